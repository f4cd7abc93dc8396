// The supervisor's page: one picture of the day, fetched again whenever the board says that something moved.

import { goToSignIn, request, setCsrf } from "./api.js";
import { byId, el, problem, say, solved, themeButton, toast } from "./dom.js";
import { cause, device, duration, longDay, outcome, phone, span, timeOfDay, when, words } from "./format.js";
import { Stream } from "./stream.js";

const QUIET_MS = 400;
const EVERY_MS = 20000;
const STATE_TONES = { ready: "good", paused: "warn", wrapup: "busy" };
const STATUS_TONES = { connected: "good", done: "good", calling_agent: "busy", calling_customer: "busy", failed: "bad", expired: "bad" };
const CALL_TONES = { connected: "good", held: "busy", ringing: "warn", queued: "warn", offered: "warn" };

let timer = 0;
let loading = false;
let again = false;
let dialling = null;
/** Names of agents and clients by id. */
let names = new Map();

const cell = (content, attributes = {}) => el("td", attributes, content ?? "");
const tag = (text, tone) => el("span", { class: "tag", "data-tone": tone }, text);
const none = (columns, text) => el("tr", {}, cell(text, { colspan: columns, class: "none" }));
const fill = (id, rows, columns, text) => byId(id).replaceChildren(...(rows.length ? rows : [none(columns, text)]));

async function load() {
  if (loading) {
    again = true;
    return;
  }
  loading = true;
  try {
    const { timeZone } = Intl.DateTimeFormat().resolvedOptions();
    const [board, clients] = await Promise.all([
      request("GET", `/board?${new URLSearchParams({ timezone: timeZone || "UTC" })}`),
      request("GET", "/clients?limit=200"),
    ]);
    names = new Map([...board.agents, ...clients.items].map((row) => [row.id, row.name]));
    paint(board);
    solved("board");
  } catch (fault) {
    if (fault.status === 401) goToSignIn("expired");
    else problem("board", `What you see may be old. ${fault.message}`, { label: "Try again", run: load });
  } finally {
    loading = false;
    if (again) {
      again = false;
      soon();
    }
  }
}

/** Many things move at once; one picture for all of them. */
function soon() {
  clearTimeout(timer);
  timer = setTimeout(load, QUIET_MS);
}

function paint(board) {
  say(byId("board-date"), longDay(new Date()));
  paintDialling(board.dialing);
  byId("links").replaceChildren(...board.links.map((link) =>
    el("span", { class: "pbx", "data-up": link.up ? "yes" : "no", title: link.detail },
      el("i", { "aria-hidden": "true" }), `${link.pbx}: ${link.up ? "linked" : link.detail || "link down"}`)));
  paintTotals(board);
  fill("agents", board.agents.map(agentRow), 4, "No agents yet. An administrator adds them with: ringbridge user add");
  fill("callbacks", board.callbacks.rows.map(callbackRow), 6, "Nobody has asked to be called today.");
  fill("calls", board.calls.rows.map(callRow), 10, "No calls today.");
  sayShown("callbacks", board.callbacks);
  sayShown("calls", board.calls);
}

const sum = (counts) => Object.values(counts).reduce((a, b) => a + b, 0);

/** The tables hold the latest rows alone; nobody shall take them for the whole day. */
function sayShown(table, { rows, counts }) {
  const all = sum(counts);
  say(byId(`${table}-shown`), all > rows.length ? `the latest ${rows.length} of ${all}` : "");
}

function paintTotals(board) {
  const causes = board.calls.causes;
  const totals = [
    ["Calls", sum(board.calls.counts)],
    ["Talked", causes.completed ?? 0],
    ["Gave up", causes.abandoned ?? 0],
    ["Callbacks asked", sum(board.callbacks.counts)],
    ["Callbacks done", board.callbacks.counts.done ?? 0],
    ["Agents ready", board.agents.filter((agent) => agent.state === "ready").length],
  ];
  byId("totals").replaceChildren(...totals.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, String(value)))));
}

function agentRow(agent) {
  const label = agent.state === "paused" && agent.reason ? agent.reason : { ready: "Ready", paused: "Paused", wrapup: "Wrap-up", offline: "Offline" }[agent.state] ?? agent.state;
  return el("tr", {},
    cell(agent.name, { class: "long", title: agent.name }),
    cell(agent.live_calls > 0 && agent.state !== "offline" ? tag(`On a call, ${label.toLowerCase()}`, "busy") : tag(label, STATE_TONES[agent.state])),
    cell(agent.since && agent.state !== "offline" ? span(Date.now() - Date.parse(agent.since)) : "", { title: agent.since ? when(agent.since) : null }),
    cell(agent.state === "offline" ? "" : device(agent.device)));
}

function callbackRow(row) {
  const who = row.name || phone(row.number);
  return el("tr", {},
    cell(timeOfDay(row.created_at)),
    cell(el("span", {}, tag(words(row.status), STATUS_TONES[row.status]), row.reason ? ` ${words(row.reason).toLowerCase()}` : "")),
    cell(who, { class: "long", title: row.name ? `${row.name}, ${phone(row.number)}` : who }),
    cell(row.due_at ? when(row.due_at) : ""),
    cell(names.get(row.client_id), { class: "long" }),
    cell(String(row.tries ?? 0), { class: "num" }));
}

function customerOf(row) {
  const name = (row.direction === "outbound" ? row.to_party : row.from_party)?.name;
  return [name, phone(row.customer_number)].filter(Boolean).join(", ");
}

function callRow(row) {
  const live = !row.ended_at;
  return el("tr", {},
    cell(timeOfDay(row.started_at)),
    cell(live ? tag(words(row.state), CALL_TONES[row.state] ?? "warn") : tag(cause(row.cause), row.cause === "completed" ? "good" : row.cause === "abandoned" || row.cause === "failed" ? "bad" : "")),
    cell(words(row.direction ?? "")),
    cell(customerOf(row) || "Number unknown", { class: "long" }),
    cell(names.get(row.agent_id), { class: "long" }),
    cell(names.get(row.client_id), { class: "long" }),
    cell(row.queue),
    cell(row.wait_ms === null || row.wait_ms === undefined ? "" : duration(row.wait_ms), { class: "num" }),
    cell(row.talk_ms ? duration(row.talk_ms) : "", { class: "num" }),
    cell(row.disposition ? outcome(row.disposition) : ""));
}

// The switch

function paintDialling(next) {
  dialling = next;
  const stopped = next.state === "stopped";
  const button = byId("dialling");
  button.closest("section").toggleAttribute("data-stopped", stopped);
  say(byId("dialling-word"), next.observe ? "Observing only" : stopped ? "All dialling is stopped" : "Dialling is on");
  say(byId("dialling-detail"), next.observe ? "The settings say that nothing is dialled." : next.by ? `${stopped ? "Stopped" : "Switched on"} by ${next.by}, ${when(next.at)}` : "");
  say(button, stopped ? "Resume dialling" : "Stop all dialling");
  button.className = `button big ${stopped ? "primary" : "danger"}`;
  button.disabled = next.observe;
}

function askDialling() {
  const stopped = dialling.state === "stopped";
  say(byId("confirm-title"), stopped ? "Resume dialling?" : "Stop all dialling now?");
  say(byId("confirm-text"), stopped
    ? "Callbacks that are due will be dialled again, the oldest first."
    : "No callback is dialled from now on, for every client company, until someone resumes. Calls that people are in go on; customers who call in still get through.");
  say(byId("confirm-yes"), stopped ? "Resume dialling" : "Stop all dialling");
  byId("confirm-yes").className = `button ${stopped ? "primary" : "danger"}`;
  byId("confirm").returnValue = "no";
  byId("confirm").showModal();
}

async function moveDialling() {
  if (byId("confirm").returnValue !== "yes") return;
  const state = dialling.state === "stopped" ? "on" : "stopped";
  try {
    paintDialling(await request("PUT", "/dialing", { state }));
    solved("dialling");
    toast(state === "stopped" ? "All dialling is stopped." : "Dialling is on again.");
  } catch (fault) {
    if (fault.status === 401) goToSignIn("expired");
    else problem("dialling", `Dialling is ${state === "stopped" ? "NOT stopped" : "still stopped"}. ${fault.message} On the server, this does the same: ringbridge dialing ${state === "stopped" ? "stop" : "start"}`);
  }
}

function showLink(link) {
  byId("link").dataset.link = link;
  say(byId("link").lastElementChild, { live: "Live", connecting: "Connecting", down: "Reconnecting" }[link]);
  if (link === "live") soon();
}

async function signOut() {
  try {
    await request("DELETE", "/session");
  } catch (fault) {
    if (fault.status !== 401) {
      problem("sign-out", `You are still signed in. ${fault.message}`, { label: "Try again", run: signOut });
      return;
    }
  }
  location.assign("/login?why=out");
}

async function start() {
  try {
    const session = await request("GET", "/session");
    setCsrf(session.csrf);
    say(byId("who-name"), session.agent.name);
    say(byId("who-role"), words(session.agent.role));
  } catch (fault) {
    if (fault.status === 401) goToSignIn("expired");
    else {
      problem("board", fault.message);
      setTimeout(start, 3000);
    }
    return;
  }
  solved("board");
  new Stream("/api/v1/board/events", {
    events: { board: soon }, onLink: showLink, onSignedOut: () => goToSignIn("expired"),
  }).open();
  setInterval(load, EVERY_MS);
  load();
}

themeButton();
byId("sign-out").addEventListener("click", signOut);
byId("dialling").addEventListener("click", askDialling);
byId("confirm").addEventListener("close", moveDialling);
start();
