// A callback in a web page: asked for, watched, cancelled. Everything is drawn in a shadow root from elements, so a strict
// CSP and Trusted Types pass. Nothing is stored before the visitor asks; then this tab keeps what it needs to go on
// watching after a reload: the callback's id and token, never a number.
const NAME = "ringbridge-call";
const SCRIPT = document.currentScript ?? document.querySelector('script[src*="/widget.js"]');
const HOME = SCRIPT?.src ? new URL(".", SCRIPT.src).href : `${location.origin}/`;
const PATIENCE_MS = 10000;
const FIRST_PAUSE_MS = 1000;
const LONGEST_PAUSE_MS = 15000;
const SOON_MS = 30000;
const ENDED = new Set(["done", "failed", "cancelled", "expired"]);
const UNPROVEN = new Set(["proof_needed", "proof_invalid"]);
const OWN_ZONE = Intl.DateTimeFormat().resolvedOptions().timeZone;
const STEPS = ["queued", "calling_agent", "calling_customer", "connected"];

/** An element: attributes by name, listeners as `onclick`, children as they are; null children are left out. */
function h(tag, given = {}, ...children) {
  const made = document.createElementNS(tag === "svg" || tag === "path" ? "http://www.w3.org/2000/svg" : "http://www.w3.org/1999/xhtml", tag);
  for (const [name, value] of Object.entries(given)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== false && value != null) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child != null && child !== false));
  return made;
}

function recall(name) {
  try {
    return JSON.parse(sessionStorage.getItem(name));
  } catch {
    return null;
  }
}

function keep(name, value) {
  try {
    if (value) sessionStorage.setItem(name, JSON.stringify(value));
    else sessionStorage.removeItem(name);
  } catch {
    // The page itself still knows.
  }
}

const rest = (signal, ms) => new Promise((resolve) => {
  const timer = setTimeout(resolve, ms);
  signal.addEventListener("abort", () => { clearTimeout(timer); resolve(); }, { once: true });
});

/** One mount of the element: its form, or how its callback goes on. Everything ends with `signal`. */
class View {
  constructor(host, signal) {
    this.host = host;
    this.root = host.shadowRoot;
    this.signal = signal;
    this.site = host.getAttribute("site") ?? "";
    this.api = new URL("api/v1/", host.getAttribute("api") ?? HOME).href;
    this.inline = host.hasAttribute("inline");
    this.tel = host.getAttribute("tel");
    this.pause = FIRST_PAUSE_MS;
    this.kept = `rb:callback:${this.site}`;
    this.asked = `rb:asked:${this.site}`;
    this.attempt = recall(this.asked);
    this.lang = host.closest("[lang]")?.lang || navigator.language || "en";
    this.mover = new Mover(this);
    this.words = wordsOf(host, this.lang.toLowerCase().split("-")[0]);
    signal.addEventListener("abort", () => this.source?.close());
  }

  begin() {
    const { words } = this;
    const rtl = getComputedStyle(this.host).direction === "rtl";
    this.card = h("section", { class: "card", "aria-labelledby": "title", role: this.inline ? false : "dialog", hidden: !this.inline },
      h("h2", { id: "title", tabindex: -1 }, words.title),
      !this.inline && h("button", { class: "close", type: "button", "aria-label": words.close, onclick: () => this.close() }, "×"));
    this.body = h("div");
    this.card.append(this.body);
    this.launcher = h("button", { class: "launch", type: "button", "aria-expanded": "false", onclick: () => this.open() },
      h("svg", { viewBox: "0 0 24 24", "aria-hidden": "true", fill: "currentColor" },
        h("path", { d: "M6.6 10.8a15 15 0 0 0 6.6 6.6l2.2-2.2c.3-.3.7-.4 1-.2 1.2.4 2.4.6 3.6.6.6 0 1 .4 1 1V20c0 .6-.4 1-1 1A17 17 0 0 1 3 4c0-.6.4-1 1-1h3.5c.6 0 1 .4 1 1 0 1.2.2 2.4.6 3.6.1.3 0 .7-.2 1z" })),
      this.label = h("span", {}, words.open));
    this.root.replaceChildren(h(this.inline ? "div" : "aside", { class: this.inline ? false : "corner", lang: this.lang, dir: rtl ? "rtl" : "ltr", "aria-label": this.inline ? false : words.title, onkeydown: (event) => this.key(event) },
      !this.inline && this.launcher, this.card));
    const kept = recall(this.kept);
    if (kept) this.watch(kept);
    else if (this.inline) this.load();
  }

  key(event) {
    if (event.key !== "Escape" || this.inline || this.card.hidden) return;
    event.stopPropagation();
    this.close();
  }

  async open() {
    this.card.hidden = false;
    this.launcher.hidden = true;
    this.by("title").focus();
    if (!this.body.firstChild) await this.load();
    this.by("number")?.focus();
  }

  close() {
    this.card.hidden = true;
    this.launcher.hidden = false;
    this.launcher.focus();
  }

  by(id) {
    return this.root.getElementById(id);
  }

  /** Fetch with a deadline; what the server says is read as JSON, null where there is nothing. */
  async fetch(path, { ms = PATIENCE_MS, ...options } = {}) {
    const timeout = new AbortController();
    const timer = setTimeout(() => timeout.abort(), ms);
    this.signal.addEventListener("abort", () => timeout.abort(), { once: true });
    try {
      const answer = await fetch(this.api + path, { ...options, credentials: "omit", signal: timeout.signal });
      const text = await answer.text();
      return { ok: answer.ok, status: answer.status, found: text ? JSON.parse(text) : null };
    } finally {
      clearTimeout(timer);
    }
  }

  /** What the site says there; null where it says nothing now. */
  ofSite(path) {
    return this.fetch(`${path}?site=${encodeURIComponent(this.site)}`).then(({ ok, found }) => (ok ? found : null), () => null);
  }

  /** The form needs to know the site; times and a riddle are asked for beside it, and may be absent. */
  async load() {
    this.body.replaceChildren(h("p", { class: "lead", role: "status" }, this.words.wait));
    try {
      const [form, slots, soon] = await Promise.all([this.fetch(`callbacks/form?site=${encodeURIComponent(this.site)}`), this.ofSite("slots"), this.ofSite("promise")]);
      if (!form.ok) throw new Error(form.found?.detail ?? form.status);
      if (this.signal.aborted) return;
      this.slots = slots;
      this.riddle();
      this.drawForm(form.found);
      this.sayWhen(soon);
    } catch (error) {
      if (this.signal.aborted) return;
      console.warn(`${NAME}: ${error.message}`);
      this.drawAway();
    }
  }

  riddle() {
    const asked = this.fetch(`callbacks/challenge?site=${encodeURIComponent(this.site)}`);
    this.proof = asked.then(({ ok, found }) => (ok && found ? solve(found, this.signal) : null)).catch(() => null);
  }

  telLine(big) {
    return this.tel && h("p", { class: big ? "tel big" : "tel" }, big ? "" : `${this.words.call} `, h("a", { href: `tel:${this.tel.replace(/[^+\d]/g, "")}`, dir: "ltr" }, this.tel));
  }

  /** The service does not answer: the phone still does, or whatever the page holds for this case. */
  drawAway() {
    const { words } = this;
    this.body.replaceChildren(
      h("p", { class: "now", role: "alert" }, words.away),
      h("p", { id: "more", class: "hint" }, this.tel ? words.awayCall : ""),
      this.telLine(true) || h("slot"),
      h("button", { class: "wide quiet", type: "button", onclick: () => this.load().then(() => this.by("number")?.focus()) }, words.retry));
  }

  drawForm({ consent_text: consent, test_mode: testMode }) {
    const { words } = this;
    const field = (id, label, input, hint) => h("div", { class: "field" },
      h("label", { for: id }, label, input.required || id === "number" ? null : h("span", { class: "optional" }, ` ${words.optional}`)),
      input, hint && h("p", { id: `${id}-hint`, class: "hint" }, hint), this.faultLine(id));
    this.form = h("form", { id: "wish", novalidate: true, onsubmit: (event) => this.ask(event) },
      h("p", { class: "lead" }, words.lead),
      h("p", { id: "soon", class: "soon", hidden: true }),
      testMode && h("p", { class: "notice" }, words.test),
      field("number", words.number, h("input", { id: "number", name: "number", type: "tel", autocomplete: "tel", inputmode: "tel", maxlength: 40, required: true, dir: "ltr", "aria-describedby": "number-hint number-fault" }), words.numberHint),
      field("name", words.name, h("input", { id: "name", name: "name", autocomplete: "name", maxlength: 200, "aria-describedby": "name-fault" })),
      this.timeField(),
      field("note", words.note, h("textarea", { id: "note", name: "note", rows: 2, maxlength: 2000, "aria-describedby": "note-fault" })),
      h("div", { class: "trap", "aria-hidden": "true" }, h("label", {}, "Leave this empty", h("input", { name: "rb_blank", tabindex: -1, autocomplete: "off" }))),
      consent && h("div", { class: "field" },
        h("label", { class: "consent" }, h("input", { id: "consent", name: "consent", type: "checkbox", required: true, "aria-describedby": "consent-fault" }), h("span", { id: "consent-text" }, consent)),
        this.faultLine("consent")),
      h("p", { id: "fault", class: "fault", role: "alert", hidden: true }),
      h("button", { class: "wide", type: "submit" }, words.submit),
      this.telLine());
    this.body.replaceChildren(this.form);
    this.keepSaying(this.form);
  }

  /** When the phone would ring of somebody who asks now; nothing where nobody can say, or another time is chosen. */
  sayWhen(found) {
    const line = this.by("soon");
    if (!line) return;
    const minutes = found && Math.max(1, Math.ceil(found.seconds / 60));
    const text = found ? this.words.soon[minutes > 1 ? 1 : 0].replace("{0}", minutes) : "";
    if (line.textContent !== text) line.textContent = text;
    this.hideWhen();
  }

  hideWhen() {
    const line = this.by("soon");
    const later = this.by("later");
    if (line) line.hidden = !line.textContent || (later && !later.hidden);
  }

  /** Others come and go while a form stands open. */
  keepSaying(form) {
    const timer = setInterval(async () => {
      if (!form.isConnected) clearInterval(timer);
      else if (!this.card.hidden && !document.hidden) this.sayWhen(await this.ofSite("promise"));
    }, SOON_MS);
  }

  faultLine(id) {
    return h("p", { id: `${id}-fault`, class: "fault", role: "alert", hidden: true });
  }

  /** Now or later: one of the free times, or any where the site keeps no hours. Nothing where it offers none. */
  timeField() {
    const { words, slots } = this;
    if (!slots || (slots.now && !slots.any_time && !slots.slots.length)) return null;
    if (!slots.any_time && !slots.slots.length) return h("p", { class: "notice" }, words.full);
    return this.times(slots.now || slots.any_time, words.when, words.closed);
  }

  times(now, legend, notice) {
    const { words, slots } = this;
    this.zone = slots.any_time ? OWN_ZONE || slots.timezone : slots.timezone;
    const later = h("div", { id: "later", hidden: now },
      slots.any_time ? this.anyTime() : this.freeTimes(slots.slots),
      h("p", { id: "when-zone", class: "hint" }, words.zone.replace("{0}", (OWN_ZONE || slots.timezone).replaceAll("_", " "))));
    const radio = (value, label) => h("label", { class: "choice" },
      h("input", { type: "radio", name: "moment", value, checked: value === "now", onchange: () => { later.hidden = value === "now"; this.hideWhen(); } }), h("span", {}, label));
    return h("fieldset", { class: "field" }, h("legend", {}, legend),
      later.hidden ? h("div", { class: "choices" }, radio("now", words.now), radio("later", words.later)) : notice && h("p", { class: "notice" }, notice),
      later, this.faultLine("when"));
  }

  anyTime() {
    const soon = new Date(Date.now() + 3600e3);
    soon.setMinutes(-soon.getTimezoneOffset(), 0, 0);
    return h("div", { class: "pick" }, h("div", {},
      h("label", { for: "when" }, `${this.words.day}, ${this.words.time.toLocaleLowerCase(this.lang)}`),
      h("input", { id: "when", type: "datetime-local", value: soon.toISOString().slice(0, 16), "aria-describedby": "when-zone when-fault" })));
  }

  /** By day, on the visitor's own clock. */
  freeTimes(slots) {
    const day = new Intl.DateTimeFormat(this.lang, { weekday: "long", day: "numeric", month: "short" });
    const hour = new Intl.DateTimeFormat(this.lang, { hour: "numeric", minute: "2-digit" });
    const days = new Map();
    for (const slot of slots) {
      const name = day.format(new Date(slot.at));
      days.set(name, [...(days.get(name) ?? []), slot]);
    }
    const times = h("select", { id: "when", "aria-describedby": "when-zone when-fault" });
    const fill = () => times.replaceChildren(...days.get(choice.value).map((slot) => h("option", { value: slot.wall_time }, hour.format(new Date(slot.at)))));
    const choice = h("select", { id: "day", onchange: fill }, ...Array.from(days.keys(), (name) => h("option", {}, name)));
    fill();
    return h("div", { class: "pick free" },
      h("div", {}, h("label", { for: "day" }, this.words.day), choice), h("div", {}, h("label", { for: "when" }, this.words.time), times));
  }

  mark(field, text) {
    const line = this.by(`${field}-fault`) ?? this.by("fault");
    line.textContent = text;
    line.hidden = false;
    const input = this.by(field);
    if (line.id === "fault" || !input) return;
    input.setAttribute("aria-invalid", "true");
    input.focus();
  }

  clean() {
    for (const line of this.root.querySelectorAll(".fault")) line.hidden = true;
    for (const input of this.root.querySelectorAll("[aria-invalid]")) input.removeAttribute("aria-invalid");
  }

  /** What was wrong, in the visitor's language; the server's own sentence where it is theirs too. */
  refuse({ code, detail, field }) {
    const english = this.words.submit === WORDS.en.submit && detail;
    const said = english ? `${detail[0].toUpperCase()}${detail.slice(1)}.`.replace("..", ".") : this.words.failed;
    this.mark(field === "timezone" ? "when" : field ?? "", this.words.codes[code] ?? said);
  }

  remember(next) {
    this.attempt = next;
    keep(this.asked, next);
  }

  wish() {
    const { elements } = this.form;
    const text = (name) => elements[name].value.trim().replace(/\s+/g, " ");
    const body = { number: text("number"), site: this.site, name: text("name"), note: text("note"), page_url: location.href.slice(0, 2000) };
    if (!body.number) return this.mark("number", this.words.needNumber);
    if (elements.consent) {
      if (!elements.consent.checked) return this.mark("consent", this.words.needConsent);
      body.consent = this.by("consent-text").textContent.trim().replace(/\s+/g, " ");
    }
    if (elements.rb_blank.value) body.website = elements.rb_blank.value.slice(0, 200);
    const time = this.chosen();
    return time && { ...body, ...time };
  }

  /** The time that is chosen, nothing for now; undefined where there should be one. */
  chosen() {
    const later = this.by("later");
    if (!later || later.hidden) return {};
    if (!this.by("when").value) return this.mark("when", this.words.needTime);
    return { when: this.by("when").value, timezone: this.zone };
  }

  async ask(event) {
    event.preventDefault();
    this.clean();
    const body = this.wish();
    const button = this.form.querySelector("[type=submit]");
    if (!body || button.disabled) return;
    // The same wish sent again after a lost answer is one callback, also after a reload; the tab keeps no number.
    const sent = sha256(JSON.stringify(body)).join();
    if (this.attempt?.sent !== sent) this.remember({ sent, key: Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("") });
    button.disabled = true;
    button.textContent = this.words.wait;
    try {
      let { ok, status, found } = await this.send(body);
      if (UNPROVEN.has(found?.code)) {
        // The riddle of a form that stood open for long is out of date.
        this.riddle();
        ({ ok, status, found } = await this.send(body));
      }
      if (!ok) {
        // 409: the first try is still in work, and may well succeed.
        if (status < 500 && status !== 409) this.remember(null);
        this.riddle();
        // Filled in by the browser, perhaps: whoever presses once more is a person.
        this.form.elements.rb_blank.value = "";
        this.refuse(found ?? {});
        return;
      }
      this.remember(null);
      keep(this.kept, { id: found.id, token: found.token });
      this.watch(found);
      this.by("title").focus();
    } catch {
      if (!this.signal.aborted) this.mark("", this.words.lost);
    } finally {
      button.disabled = false;
      button.textContent = this.words.submit;
    }
  }

  async send(body) {
    const proof = await this.proof;
    return this.fetch("callbacks", {
      method: "POST", body: JSON.stringify(proof ? { ...body, proof } : body),
      headers: { "Content-Type": "application/json", "Idempotency-Key": this.attempt.key },
    });
  }

  drawProgress() {
    const { words } = this;
    this.body.replaceChildren(h("div", { id: "progress" },
      h("ol", { class: "steps", "aria-hidden": "true" }, ...STEPS.map((step, i) => h("li", { "data-step": step }, words.steps[i]))),
      h("div", { role: "status" }, h("p", { id: "now", class: "now" }, words.wait), h("p", { id: "more", class: "hint" })),
      h("p", { id: "link", class: "notice", hidden: true }, words.link),
      h("div", { id: "moving" }),
      h("button", { id: "move", class: "wide quiet", type: "button", hidden: true, onclick: () => this.mover.begin() }, words.move),
      h("button", { id: "cancel", class: "wide quiet", type: "button", onclick: () => this.cancel() }, words.cancel),
      h("button", { id: "again", class: "wide", type: "button", hidden: true, onclick: () => this.startOver() }, words.again),
      this.telLine()));
  }

  watch(callback) {
    this.callback = callback;
    if (!this.by("progress")) this.drawProgress();
    this.source?.close();
    const source = new EventSource(`${this.api}callbacks/${encodeURIComponent(callback.id)}/events?token=${encodeURIComponent(callback.token)}`);
    this.source = source;
    source.addEventListener("status", (event) => {
      this.pause = FIRST_PAUSE_MS;
      this.paint(JSON.parse(event.data));
    });
    source.addEventListener("error", () => {
      if (this.signal.aborted) return;
      this.by("link").hidden = false;
      if (source.readyState === EventSource.CLOSED) this.look();
    });
    if (callback.status) this.paint(callback);
  }

  /** The stream was refused: is the callback over or gone, or is it the network? Asks until one of them is known. */
  async look() {
    const { callback } = this;
    try {
      const { ok, status, found } = await this.fetch(this.address(), { headers: this.token() });
      if (ok) this.paint(found);
      else if (status === 403 || status === 404) {
        keep(this.kept, null);
        await this.startOver();
        if (this.form) this.mark("", this.words.gone);
        return;
      }
    } catch {
      // Not reachable now; the pause grows.
    }
    await rest(this.signal, this.pause * (0.75 + Math.random() / 2));
    this.pause = Math.min(LONGEST_PAUSE_MS, this.pause * 2);
    if (!this.signal.aborted && this.callback === callback && this.by("again")?.hidden) this.watch({ id: callback.id, token: callback.token });
  }

  address() {
    return `callbacks/${encodeURIComponent(this.callback.id)}`;
  }

  token() {
    return { Authorization: `Bearer ${this.callback.token}` };
  }

  paint(body) {
    const [now, promised, open] = this.words.status[body.status] ?? ["", "", ""];
    const at = body.promised_at && new Date(body.promised_at);
    const soon = at && at - Date.now() < 12 * 3600e3;
    const format = body.status === "scheduled" || !soon ? { weekday: "long", day: "numeric", month: "long", hour: "numeric", minute: "2-digit" } : { hour: "numeric", minute: "2-digit" };
    this.by("now").textContent = now;
    this.by("more").textContent = at && promised ? promised.replace("{0}", at.toLocaleString(this.lang, format)) : open;
    this.by("link").hidden = true;
    this.label.textContent = now || this.words.open;
    const here = STEPS.indexOf(body.status);
    this.root.querySelectorAll(".steps li").forEach((step, i) => {
      step.classList.toggle("done", body.status === "done" || i < here);
      step.classList.toggle("here", i === here);
    });
    const over = ENDED.has(body.status);
    this.root.querySelector(".steps").hidden = over || body.status === "scheduled";
    this.mover.hear(body.status);
    this.by("cancel").hidden = over || body.status === "connected";
    this.by("again").hidden = !over;
    this.host.dispatchEvent(new CustomEvent("ringbridge-status", { bubbles: true, composed: true, detail: { status: body.status, reason: body.reason } }));
    if (!over) return;
    this.source?.close();
    keep(this.kept, null);
  }

  async cancel() {
    const button = this.by("cancel");
    button.disabled = true;
    try {
      const { ok, found } = await this.fetch(this.address(), { method: "DELETE", headers: this.token() });
      if (ok) this.paint(found);
      else this.by("more").textContent = this.words.submit === WORDS.en.submit ? found.detail : this.words.unsent;
      if (ok) this.by("again").focus();
    } catch {
      this.by("more").textContent = this.words.unsent;
    } finally {
      button.disabled = false;
    }
  }

  async startOver() {
    this.source?.close();
    this.callback = null;
    this.label.textContent = this.words.open;
    await this.load();
    if (!this.card.hidden) this.by("number")?.focus();
  }
}
