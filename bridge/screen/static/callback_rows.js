// One callback as a row of the supervisor's list: when it was promised, what came of it, why, and what to do next.

import { el } from "./dom.js";
import { duration, phone, span, when, words } from "./format.js";

/** Key, label and statuses of each group; no statuses are all of them. */
export const GROUPS = [
  ["all", "All", []],
  ["waiting", "Waiting", ["scheduled", "queued"]],
  ["now", "Being called", ["calling_agent", "calling_customer", "connected"]],
  ["trouble", "Failed or expired", ["failed", "expired"]],
  ["done", "Done", ["done"]],
  ["cancelled", "Cancelled", ["cancelled"]],
];

const TONES = {
  connected: "good", done: "good", calling_agent: "busy", calling_customer: "busy", failed: "bad", expired: "bad", queued: "warn",
};
const SOURCES = { queue: "in a queue", missed: "missed call" };
const AGENT_STATES = { ready: "ready", paused: "paused", wrapup: "in wrap-up", offline: "offline" };

const cell = (label, kind, ...content) => el("td", { role: "cell", class: kind, "data-label": label || null }, ...content);
const time = (text) => (text ? el("time", { datetime: text }, when(text)) : null);
const small = (text, kind = null) => (text ? el("small", { class: kind }, text) : null);

export const nameOf = (item) => item.name || phone(item.number);

export function row(item, { chosen, open, onPick }) {
  const pick = el("input", {
    type: "checkbox", "data-id": item.id, "aria-label": `Select ${nameOf(item)}, ${words(item.status).toLowerCase()}`, onclick: onPick,
  });
  pick.checked = chosen;
  return el("tr", { role: "row", "data-id": item.id, "data-chosen": chosen },
    cell("", "pick", pick),
    cell("", "state", el("span", { class: "tag", "data-tone": TONES[item.status] }, words(item.status)), small(forWhom(item))),
    cell("", "customer", nameOf(item), item.name ? small(phone(item.number)) : null, small(item.note)),
    cell("Asked at", "time", time(item.created_at), small(SOURCES[item.source])),
    cell("Promised", "time", time(item.promised_at) ?? "Nothing", dueOf(item)),
    cell("Actual", "time", time(item.rang_at) ?? (over(item) ? "Never rang" : "Not yet"), kept(item)),
    cell("", "because", ...because(item)),
    cell("Site", "site", item.site, item.client === item.site ? null : small(item.client)),
    cell("", "tries", tries(item, open)));
}

function forWhom(item) {
  if (!item.assigned) return "";
  if (item.assigned.state === "gone") return "Its agent has left: anyone";
  return `For ${item.assigned.name} (${AGENT_STATES[item.assigned.state] ?? item.assigned.state})`;
}

const over = (item) => item.ended_at !== null;

function dueOf(item) {
  if (over(item) || (item.promised_at && Math.abs(Date.parse(item.due_at) - Date.parse(item.promised_at)) < 60000)) return null;
  return small(Date.parse(item.due_at) > Date.now() ? `next try ${when(item.due_at)}` : `due since ${when(item.due_at)}`);
}

/** How the promise stands: kept, or late by how much. */
function kept(item) {
  if (!item.promised_at || item.status === "cancelled") return item.connected_at ? small(`talked ${when(item.connected_at)}`) : null;
  const late = (item.rang_at ? Date.parse(item.rang_at) : over(item) ? NaN : Date.now()) - Date.parse(item.promised_at);
  if (Number.isNaN(late)) return null;
  if (late > 60000) return small(`${span(late)} late`, "late");
  return item.rang_at ? small(late > 0 ? `${duration(late)} late` : "in time") : null;
}

function because(item) {
  const parts = [];
  if (item.reason) parts.push(item.reason_text, small(item.next_step));
  if (!over(item) && item.assigned && item.assigned.state !== "ready" && item.assigned.state !== "gone") {
    parts.push(small(`It waits for ${item.assigned.name} alone, until ${when(item.expires_at)}. Assign it to anyone if that is too long.`));
  }
  if (item.requeued_as) parts.push(small("Re-queued: another callback goes on with it."));
  if (item.requeued_from) parts.push(small("Re-queued from one that had ended."));
  return parts;
}

function tries(item, open) {
  if (!item.attempts.length) return "None";
  const list = el("ol", { class: "tried" }, ...item.attempts.map((attempt) => el("li", {},
    time(attempt.began_at), attempt.agent ? `, ${attempt.agent}` : "",
    small(attempt.reason ? attempt.reason_text : `${words(attempt.state)}.`),
    attempt.rang_at ? small(`rang ${when(attempt.rang_at)}${attempt.connected_at ? `, talked ${when(attempt.connected_at)}` : ""}`) : null)));
  const count = item.attempts.length;
  return el("details", { "data-id": item.id, open }, el("summary", {}, `${count} ${count === 1 ? "try" : "tries"}`), list);
}
