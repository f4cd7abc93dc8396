// One pop on the page: painted whole from the message that brought it, then kept up to date.

import { byId, el, say } from "./dom.js";
import { dropDraft, keepDraft, readDraft } from "./drafts.js";
import { OUTCOMES, cause, duration, hue, outcome, phone, timeIn, when, words } from "./format.js";

const STATES = { ringing: "Ringing", connected: "Connected", held: "On hold", ended: "Ended" };
const DIRECTIONS = { inbound: "Incoming call", outbound: "Outgoing call", internal: "Internal call" };

/** Signs that turn the direction of whatever text follows them. */
const TURNS = /[\u202a-\u202e\u2066-\u2069]/g;

/** Who it is, in one line among other words, for the title, tabs and announcements. */
export function caller(pop) {
  const name = pop.customer?.name || pop.callback?.name || pop.name;
  return name?.replace(TURNS, "") || number(pop) || "Unknown number";
}

function number(pop) {
  return pop.withheld ? "Number withheld" : pop.number_text || phone(pop.number);
}

export class PopView {
  #slots = {}; #save;

  /** `actions` has hangup(view), save(view) and close(view). */
  constructor(pop, actions) {
    this.pop = pop;
    this.saved = null;
    this.saving = false;
    this.node = byId("pop-template").content.firstElementChild.cloneNode(true);
    for (const node of this.node.querySelectorAll("[data-slot]")) this.#slots[node.dataset.slot] = node;
    this.form = this.node.querySelector("form");
    this.#save = this.form.querySelector("[type=submit]");
    this.hangup = this.node.querySelector("[data-do=hangup]");
    this.closer = this.node.querySelector("[data-do=close]");
    this.#buildForm();
    this.form.addEventListener("submit", (event) => { event.preventDefault(); actions.save(this); });
    this.form.addEventListener("input", () => { keepDraft(this.pop.id, this.draft); this.word("", ""); });
    this.hangup.addEventListener("click", () => actions.hangup(this));
    this.closer.addEventListener("click", () => actions.close(this));
    this.paint();
  }

  get draft() {
    return { outcome: this.form.querySelector(":checked")?.value ?? "", note: this.#slots.note.value };
  }

  get ended() { return this.pop.state === "ended"; }
  get untouched() { return !this.draft.outcome && !this.draft.note.trim(); }

  /** Saved, and nothing typed since. */
  get settled() { return this.saved !== null && JSON.stringify(this.saved) === JSON.stringify(this.draft); }

  /** Take over what a later message says. */
  update(change) {
    Object.assign(this.pop, change);
    this.paint();
  }

  paint() {
    const { pop } = this;
    const slots = this.#slots;
    this.node.dataset.state = pop.state;
    if (pop.client) {
      this.node.dataset.hue = "";
      this.node.style.setProperty("--hue", hue(pop.client.id));
    }
    say(slots.name, caller(pop));
    const shown = number(pop);
    say(slots.number, shown && shown !== caller(pop) ? shown : "");
    const route = [pop.direction === "inbound" && pop.did ? `called ${pop.did_text || phone(pop.did)}` : "", pop.queue ? `queue ${pop.queue}` : ""];
    say(slots.route, route.filter(Boolean).join(" · "));
    say(slots.direction, pop.callback ? "Callback, they asked to be called" : DIRECTIONS[pop.direction] ?? "Call");
    slots.for.hidden = !pop.client;
    say(slots["for-word"], pop.direction === "outbound" ? "You call for" : "Answer as");
    say(slots["client-name"], pop.client?.name ?? "");
    this.#paintState();
    this.#paintCallback();
    this.#paintCustomer();
    this.#paintClient();
    this.#paintScript();
  }

  /** The timer runs from the first ring, then from the answer, and stands at the end. */
  tick(now = Date.now()) {
    const { pop } = this;
    let ms = now - Date.parse(pop.connected_at ?? pop.at);
    if (this.ended) ms = pop.ended?.talk_ms ?? (pop.connected_at ? Date.parse(pop.ended_at ?? pop.at) - Date.parse(pop.connected_at) : 0);
    say(this.#slots.timer, this.ended && !(ms > 0) ? "" : duration(ms));
  }

  /** A word beside the save button: tone "good", "bad" or "". */
  word(text, tone) {
    this.#slots["outcome-word"].dataset.tone = tone;
    say(this.#slots["outcome-word"], text);
  }

  choose(index) {
    const input = this.form.querySelectorAll("input[type=radio]")[index];
    if (!input || input.disabled) return;
    input.checked = true;
    input.dispatchEvent(new Event("input", { bubbles: true }));
  }

  writeNote() {
    this.#slots.note.focus();
  }

  busy(isBusy, text = "Save") {
    this.#save.disabled = isBusy;
    say(this.#slots.save, isBusy ? "Saving…" : text);
  }

  dropDraft() { dropDraft(this.pop.id); }

  #buildForm() {
    const draft = readDraft(this.pop.id);
    const group = `outcome-${this.pop.id}`;
    const note = this.#slots.note;
    note.id = `note-${this.pop.id}`;
    note.value = draft.note;
    this.#slots["note-label"].htmlFor = note.id;
    OUTCOMES.forEach(([value, label], index) => {
      this.#slots.choices.append(
        el("label", { class: "choice" },
          el("input", { type: "radio", name: group, value, checked: draft.outcome === value, "aria-keyshortcuts": `Alt+${index + 1}` }),
          el("span", {}, label), el("kbd", { "aria-hidden": "true" }, `Alt ${index + 1}`)),
      );
    });
  }

  #paintState() {
    const { pop } = this;
    const talked = pop.connected_at !== null && pop.connected_at !== undefined;
    const reason = this.ended && !talked ? cause(pop.ended?.cause) : this.ended && pop.ended?.cause === "transferred" ? "Transferred" : STATES[pop.state];
    say(this.#slots.state, reason);
    this.hangup.hidden = this.ended;
    say(this.#slots.hangup, pop.state === "ringing" ? "Decline" : "Hang up");
    this.closer.hidden = !this.ended;
    this.tick();
  }

  #paintCallback() {
    const { callback } = this.pop;
    this.#slots.callback.hidden = !callback;
    if (!callback) return;
    this.#slots["callback-body"].replaceChildren(
      el("p", { class: "lead" }, callback.name || "No name given"),
      callback.note ? el("p", { class: "remark" }, callback.note) : "",
      pairs([["Asked", when(callback.requested_at)], ["On the page", link(callback.page_url)]]),
    );
  }

  #paintCustomer() {
    const { pop } = this;
    const { customer } = pop;
    const body = this.#slots.customer;
    if (customer) {
      const others = (customer.same_number ?? 1) - 1;
      body.replaceChildren(
        el("p", { class: "lead" }, customer.name || "No name"),
        customer.company ? el("p", {}, customer.company) : "",
        customer.note ? el("p", { class: "remark" }, customer.note) : "",
        others > 0 ? el("p", { class: "muted" }, `${others} other ${others === 1 ? "customer has" : "customers have"} this number: ask who is calling.`) : "",
        pairs([
          ["E-mail", customer.email],
          [customer.numbers?.length > 1 ? "Numbers" : "", customer.numbers?.map(phone).join("\n")],
          ["Reference", customer.reference],
          ["Earlier calls", customer.earlier?.length ? "" : "None"],
        ]),
      );
    } else {
      body.replaceChildren(el("p", { class: "muted" },
        pop.withheld ? "The caller hides their number. Ask for the name."
          : pop.direction === "internal" ? "A colleague." : "Not in the customer list yet."));
    }
    const earlier = customer?.earlier ?? pop.earlier ?? [];
    this.#slots["earlier-section"].hidden = earlier.length === 0;
    this.#slots.earlier.replaceChildren(...earlier.map(earlierCall));
  }

  #paintClient() {
    const { client } = this.pop;
    this.#slots["client-section"].hidden = !client;
    if (!client) return;
    const local = client.timezone ? timeIn(client.timezone) : "";
    this.#slots.client.replaceChildren(
      el("p", { class: "lead" }, client.name),
      pairs([
        ...Object.entries(client.card ?? {}).filter(([key]) => key !== "color").map(([key, value]) => [words(key), link(value)]),
        ["Time now", local],
      ]),
    );
  }

  #paintScript() {
    const { pop } = this;
    const slots = this.#slots;
    say(slots.greeting, pop.client?.greeting ?? "");
    say(slots["script-name"], pop.script ? `${pop.script.name}, version ${pop.script.version}` : "");
    if (!pop.script) {
      const why = pop.client ? "There is no script for this number." : pop.direction === "internal" ? "" : "No client company is known for this number, so there is no script.";
      slots.script.replaceChildren(el("p", { class: "nothing" }, why));
      return;
    }
    if (this.painted === pop.script.html) return;
    this.painted = pop.script.html;
    // The only markup that any page of Ringbridge inserts. It is safe because the server made it
    // (services/script_text.py): Markdown with raw HTML off, links limited to http, mailto and tel, and
    // callers' words escaped after parsing. The page's Content-Security-Policy runs no inline script besides.
    slots.script.innerHTML = pop.script.html;
  }
}

function pairs(rows) {
  const filled = rows.filter(([label, value]) => label && value);
  if (!filled.length) return "";
  return el("dl", { class: "pairs" }, ...filled.map(([label, value]) => el("div", {}, el("dt", {}, label), el("dd", {}, value))));
}

/** A web address becomes a link; everything else, and every other scheme, stays text. */
function link(text) {
  if (!/^https?:\/\/\S+$/i.test(text ?? "")) return text;
  return el("a", { href: text, target: "_blank", rel: "noopener noreferrer" }, text.replace(/^https?:\/\//i, "").replace(/\/$/, ""));
}

function earlierCall(call) {
  const more = [call.agent, call.talk_ms ? duration(call.talk_ms) : ""].filter(Boolean).join(", ");
  return el("li", {},
    el("span", {}, call.disposition ? outcome(call.disposition) : cause(call.cause)),
    el("span", { class: "when" }, when(call.at)),
    call.note ? el("span", { class: "more" }, call.note) : "",
    more ? el("span", { class: "more" }, more) : "");
}
