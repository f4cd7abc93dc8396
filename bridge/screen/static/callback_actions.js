// What is done to many callbacks at once: asked for, sent in parts, and told row by row.

import { goToSignIn, request } from "./api.js";
import { byId, el, say, toast } from "./dom.js";
import { nameOf } from "./callback_rows.js";

/** Callbacks of one request: a part is answered within seconds. */
const PART = 50;

const plural = (count) => `${count} ${count === 1 ? "callback" : "callbacks"}`;

const WORDS = {
  cancel: {
    yes: "Cancel them", tone: "danger", done: "cancelled",
    title: (items) => `Cancel ${plural(items.length)}?`,
    text: () => "Nobody calls these customers then. Phones that ring now stop; whoever is being talked with is left alone.",
  },
  requeue: {
    yes: "Re-queue them", tone: "primary", done: "re-queued",
    title: (items) => `Re-queue ${plural(items.length)}?`,
    text: (items) => {
      const unsure = items.filter((item) => item.reason === "outcome_unknown").length;
      return `Each begins anew, if its number may still be called now. ${unsure ? `${unsure} of them may have been talked with already: ask the agent first, or the customer is called twice.` : ""}`;
    },
  },
  assign: {
    yes: "Assign them", tone: "primary", done: "assigned",
    title: (items) => `Assign ${plural(items.length)}`,
    text: () => "That agent alone makes the next call. While they are not ready it waits, and expires like any other.",
  },
};

/** Ask, then do it. Resolves with `{ok, refused, stopped}`, or null where the answer was no. */
export async function act(what, items, agents) {
  const words = WORDS[what];
  const dialog = byId("confirm");
  say(byId("confirm-title"), words.title(items));
  say(byId("confirm-text"), words.text(items));
  say(byId("confirm-yes"), words.yes);
  byId("confirm-yes").className = `button ${words.tone}`;
  byId("confirm-agent").hidden = what !== "assign";
  if (what === "assign") {
    byId("to").replaceChildren(el("option", { value: "" }, "Anyone"), ...agents.map((agent) => el("option", { value: agent.id }, agent.name)));
  }
  dialog.returnValue = "no";
  dialog.showModal();
  await new Promise((resolve) => { dialog.addEventListener("close", resolve, { once: true }); });
  if (dialog.returnValue !== "yes") return null;
  const more = what === "assign" ? { agent_id: byId("to").value || null } : {};
  return send(what, items.map((item) => item.id), more);
}

async function send(what, ids, more) {
  const done = { ok: [], refused: [], stopped: "" };
  for (let from = 0; from < ids.length; from += PART) {
    const part = ids.slice(from, from + PART);
    if (ids.length > PART) toast(`${from} of ${ids.length} ...`);
    try {
      const found = await request("POST", `/callbacks/${what}`, { ids: part, ...more });
      for (const result of found.results) (result.ok ? done.ok : done.refused).push(result.ok ? result.id : result);
    } catch (fault) {
      if (fault.status === 401) goToSignIn("expired");
      const left = ids.length - from;
      done.stopped = `${fault.message} ${plural(left)} ${left === 1 ? "was" : "were"} not answered for, and may be done or not; the list shows which.`;
      break;
    }
  }
  return done;
}

/** Say what became of each; where all went well a short word is enough. */
export function results(what, done, items) {
  const { done: word } = WORDS[what];
  if (!done.refused.length && !done.stopped) {
    toast(`${plural(done.ok.length)} ${word}.`);
    return;
  }
  toast("");
  say(byId("results-title"), `${done.ok.length} ${word}, ${done.refused.length} not`);
  say(byId("results-text"), done.stopped || "These stay as they were, and stay selected:");
  byId("results-list").replaceChildren(...done.refused.map((result) => {
    const item = items.get(result.id);
    // A name may hold marks that turn what follows it round.
    return el("li", {}, el("strong", {}, el("bdi", {}, item ? nameOf(item) : result.id)), `: ${sentence(result.detail)}`);
  }));
  byId("results").showModal();
}

function sentence(text) {
  const said = text || "It was refused.";
  const whole = said.charAt(0).toUpperCase() + said.slice(1);
  return /[.!?]$/.test(whole) ? whole : `${whole}.`;
}
