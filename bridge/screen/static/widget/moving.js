const MOVABLE = new Set(["scheduled", "queued"]);

/** Another time for a callback that waits, by the rules of the first; "now" too for one that was to come later. */
class Mover {
  constructor(view) {
    this.view = view;
  }

  /** The callback stands so now: what cannot be moved any more is not offered. */
  hear(status) {
    this.status = status;
    if (!MOVABLE.has(status)) this.end();
    this.view.by("move").hidden = !MOVABLE.has(status) || Boolean(this.view.by("moving").firstChild);
  }

  async begin() {
    const { view } = this;
    const { words } = view;
    const button = view.by("move");
    button.disabled = true;
    const slots = await view.ofSite("slots");
    button.disabled = false;
    if (!button.isConnected || button.hidden) return;
    if (!slots?.any_time && !slots?.slots.length) {
      view.by("more").textContent = slots ? words.none : words.unsent;
      return;
    }
    view.slots = slots;
    view.form = h("form", { novalidate: true, onsubmit: (event) => this.send(event) },
      view.times(this.status === "scheduled" && slots.now, words.move),
      h("p", { id: "fault", class: "fault", role: "alert", hidden: true }),
      h("button", { class: "wide", type: "submit" }, words.moveIt),
      h("button", { id: "stay", class: "wide quiet", type: "button", onclick: () => this.end() }, words.stay));
    view.by("moving").replaceChildren(view.form);
    button.hidden = true;
    view.form.querySelector("input, select").focus();
  }

  end() {
    const { view } = this;
    const place = view.by("moving");
    if (!place.firstChild) return;
    const inside = place.contains(view.root.activeElement);
    place.replaceChildren();
    const button = view.by("move");
    button.hidden = !MOVABLE.has(this.status);
    // Who works with the keyboard must not fall out of the form.
    if (inside) (button.hidden ? view.by("title") : button).focus();
  }

  async send(event) {
    event.preventDefault();
    const { view } = this;
    view.clean();
    const time = view.chosen();
    const button = view.form.querySelector("[type=submit]");
    if (!time || button.disabled) return;
    button.disabled = true;
    try {
      const { ok, found } = await view.fetch(view.address(), {
        method: "PATCH", body: JSON.stringify({ when: null, ...time }), headers: { ...view.token(), "Content-Type": "application/json" },
      });
      if (!button.isConnected) return;
      if (ok) {
        this.end();
        view.paint(found);
      } else view.refuse(found ?? {});
    } catch {
      if (button.isConnected) view.mark("", view.words.unsent);
    } finally {
      button.disabled = false;
    }
  }
}
