// The supervisor's callbacks: found, looked into, and acted on many at once. The list is fetched again whenever the
// board's stream says that a callback moved; what is selected stays so.

import { act, results } from "./callback_actions.js";
import { promisesLine } from "./callback_promises.js";
import { row, GROUPS } from "./callback_rows.js";
import { goToSignIn, request, setCsrf } from "./api.js";
import { byId, el, problem, say, solved, themeButton, toast } from "./dom.js";
import { longDay, timeOfDay, words } from "./format.js";
import { Stream } from "./stream.js";

const QUIET_MS = 400;
const EVERY_MS = 30000;
const PROMISES_MS = 10000;
const PAGE = 50;
const NOTICED_MS = 24 * 3600 * 1000;

/** Ids that are selected, with their rows as last seen. */
const chosen = new Map();
let shown = [];
let pages = 1;
let group = "all";
let timer = 0;
let loading = false;
let again = false;
let last = -1;

const zone = () => Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";
const today = () => {
  const now = new Date();
  const two = (n) => String(n).padStart(2, "0");
  return `${now.getFullYear()}-${two(now.getMonth() + 1)}-${two(now.getDate())}`;
};

function query(more = {}) {
  const asked = {
    number: byId("number").value.trim(), day: byId("day").value, site_id: byId("site").value,
    source: byId("source").value, assigned_to: byId("agent").value, status: (GROUPS.find(([key]) => key === group)?.[2] ?? []).join(","),
    timezone: zone(), ...more,
  };
  return new URLSearchParams(Object.entries(asked).filter(([, value]) => value !== "" && value !== null));
}

async function load() {
  if (loading) {
    again = true;
    return;
  }
  loading = true;
  try {
    let counts = null;
    let cursor = null;
    const found = [];
    for (let page = 0; page < pages; page += 1) {
      const part = await request("GET", `/callbacks?${query({ limit: PAGE, cursor })}`);
      counts ??= part.counts;
      cursor = part.next;
      found.push(...part.items);
      if (!cursor) break;
    }
    paint(found, counts, cursor !== null);
    faulty("");
    solved("list");
    if (Date.now() - promisesAt > PROMISES_MS) loadPromises();
  } catch (fault) {
    if (fault.status === 401) goToSignIn("expired");
    else if (fault.status === 422 && fault.field === "number") {
      faulty(fault.message);
      paint([], {}, false);
    } else problem("list", `What you see may be old. ${fault.message}`, { label: "Try again", run: load });
  } finally {
    loading = false;
    if (again) {
      again = false;
      soon();
    }
  }
}

function soon() {
  clearTimeout(timer);
  timer = setTimeout(load, QUIET_MS);
}

/** From the first page on. */
function anew() {
  pages = 1;
  last = -1;
  load();
}

function faulty(text) {
  say(byId("number-fault"), text.charAt(0).toUpperCase() + text.slice(1));
  byId("number").setAttribute("aria-invalid", text ? "true" : "false");
}

function paint(items, counts, more) {
  const held = document.activeElement?.dataset?.id;
  const open = new Set([...document.querySelectorAll("#rows details[open]")].map((node) => node.dataset.id));
  shown = items;
  for (const item of items) if (chosen.has(item.id)) chosen.set(item.id, item);
  byId("rows").replaceChildren(...(items.length
    ? items.map((item) => row(item, { chosen: chosen.has(item.id), open: open.has(item.id), onPick: pick }))
    : [el("tr", {}, el("td", { colspan: 9, class: "none" }, "No callbacks match. Clear the search, or choose another day or state."))]));
  // Who moves through the list by keyboard stays where they were.
  if (held) [...byId("rows").querySelectorAll("input")].find((box) => box.dataset.id === held)?.focus();
  const all = Object.values(counts).reduce((a, b) => a + b, 0);
  paintGroups(counts, all);
  say(byId("shown"), items.length ? `${items.length} shown` : "");
  byId("more").hidden = !more;
  paintChosen();
}

function paintGroups(counts, all) {
  for (const [key, , statuses] of GROUPS) {
    const count = statuses.length ? statuses.reduce((sum, status) => sum + (counts[status] ?? 0), 0) : all;
    say(byId(`group-${key}`).parentElement.querySelector("b"), String(count));
  }
}

function paintChosen() {
  const count = chosen.size;
  const hidden = [...chosen.keys()].filter((id) => !shown.some((item) => item.id === id)).length;
  say(byId("chosen"), count ? `${count} selected${hidden ? `, ${hidden} of them not shown here` : ""}` : "Select callbacks to act on them.");
  for (const name of ["requeue", "assign", "cancel"]) byId(name).disabled = !count;
  const box = byId("all");
  const here = shown.filter((item) => chosen.has(item.id)).length;
  box.checked = here > 0 && here === shown.length;
  box.indeterminate = here > 0 && here < shown.length;
  for (const node of byId("rows").children) node.toggleAttribute("data-chosen", chosen.has(node.dataset.id));
}

function set(item, on) {
  if (on) chosen.set(item.id, item);
  else chosen.delete(item.id);
  const box = [...byId("rows").querySelectorAll("input")].find((node) => node.dataset.id === item.id);
  if (box) box.checked = on;
}

/** With Shift, everything from the one picked last. */
function pick(event) {
  const at = shown.findIndex((item) => item.id === event.target.dataset.id);
  const from = event.shiftKey && last >= 0 && last < shown.length ? last : at;
  for (const item of shown.slice(Math.min(from, at), Math.max(from, at) + 1)) set(item, event.target.checked);
  last = at;
  paintChosen();
}

/** Arrow keys move from row to row, with Shift they select on the way. */
function move(event) {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step || event.target.type !== "checkbox" || event.altKey || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  const boxes = [...byId("rows").querySelectorAll("input")];
  const next = boxes[boxes.indexOf(event.target) + step];
  if (!next) return;
  if (event.shiftKey) {
    set(shown.find((item) => item.id === event.target.dataset.id), true);
    set(shown.find((item) => item.id === next.dataset.id), true);
    paintChosen();
  }
  next.focus();
}

async function run(what) {
  const items = [...chosen.values()];
  const done = await act(what, items, agents);
  if (!done) return;
  for (const id of done.ok) chosen.delete(id);
  results(what, done, new Map(items.map((item) => [item.id, item])));
  paintChosen();
  load();
}

async function exportList() {
  const button = byId("export");
  button.disabled = true;
  try {
    // Asked for with fetch, so that what is wrong can be said here and not on a page of its own.
    const answer = await fetch(`/api/v1/callbacks/export?${query()}`, { credentials: "same-origin", cache: "no-store" });
    if (answer.status === 401) {
      goToSignIn("expired");
      return;
    }
    if (!answer.ok) throw new Error((await answer.json().catch(() => null))?.detail ?? "");
    const address = URL.createObjectURL(await answer.blob());
    const name = /filename="([^"]+)"/.exec(answer.headers.get("Content-Disposition") ?? "")?.[1] ?? "callbacks.csv";
    el("a", { href: address, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(address), 10000);
    solved("export");
    toast(`${name} is saved.`);
  } catch (fault) {
    problem("export", `Nothing was exported. ${fault.message || "Try again."}`);
  } finally {
    button.disabled = false;
  }
}

// What is beside the list

let agents = [];
let sites = new Map();

async function loadChoices() {
  try {
    const [found, people] = await Promise.all([request("GET", "/sites?limit=200"), request("GET", "/agents?limit=200")]);
    sites = new Map(found.items.map((site) => [site.id, site.name]));
    agents = people.items.filter((agent) => agent.active && agent.role !== "viewer");
    options("site", "All sites", found.items);
    options("agent", "Anyone", agents);
  } catch (fault) {
    if (fault.status === 401) goToSignIn("expired");
    else problem("choices", `Sites and agents cannot be chosen now. ${fault.message}`, { label: "Try again", run: loadChoices });
    return;
  }
  solved("choices");
}

function options(id, none, items) {
  const before = byId(id).value;
  byId(id).replaceChildren(el("option", { value: "" }, none), ...items.map((item) => el("option", { value: item.id }, item.name)));
  byId(id).value = before;
}

let promises = [];
let promisesAt = 0;

/** Kept and broken promises: of the site that is chosen, else of all. */
async function loadPromises() {
  promisesAt = Date.now();
  try {
    promises = (await request("GET", `/promises?${new URLSearchParams({ timezone: zone() })}`)).items;
    paintPromises();
  } catch (fault) {
    if (fault.status === 401) goToSignIn("expired");
  }
}

function paintPromises() {
  const site = byId("site").value;
  const open = byId("promises").querySelector("details")?.open;
  const line = promisesLine(promises.filter((each) => !site || each.site_id === site));
  if (open && line?.querySelector("details")) line.querySelector("details").open = true;
  // What says the same stays in place, for whoever reads it just now.
  if (line?.textContent !== byId("promises").textContent || !line) byId("promises").replaceChildren(...(line ? [line] : []));
  byId("promises").hidden = !line;
}

/** Floods of refused requests and spent budgets, as the audit log keeps them: told while they last, and for the rest of the day. */
async function loadNotices() {
  try {
    const found = await request("GET", "/audit?actor=ringbridge&limit=50");
    const recent = found.items.filter((item) => NOTICES[item.action] && Date.now() - Date.parse(item.at) < NOTICED_MS).slice(0, 5);
    byId("notices").replaceChildren(...recent.map((item) => el("p", { class: "notice" }, ...NOTICES[item.action](item))));
    byId("notices").hidden = !recent.length;
  } catch (fault) {
    if (fault.status === 401) goToSignIn("expired");
  }
}

const NOTICES = {
  "abuse.flood": ({ at, object, detail }) => {
    const { refused, ...kinds } = detail;
    const told = Object.entries(kinds).sort((a, b) => b[1] - a[1]).map(([kind, count]) => `${words(kind).toLowerCase()}: ${count}`).join(", ");
    return [
      el("strong", {}, `Many requests refused at ${sites.get(object) ?? "a site"}, ${timeOfDay(at)}.`),
      ` ${refused} within an hour by then (the last of them ${told}). None of them is called. If it goes on, ask an administrator to switch the site's riddle on, or to give it a new key.`,
    ];
  },
  "budget.spent": ({ at, object, detail }) => [
    el("strong", {}, `${detail.budget === "client" ? "The budget of the client of" : "The budget of"} ${sites.get(object) ?? "a site"} for ${longDay(new Date(`${detail.day}T12:00`))} was spent at ${timeOfDay(at)}.`),
    " On that day no more calls are made under it: new requests for the day are refused, and callbacks that wait go on the day after, or expire with this reason. An administrator can raise the budget, or give the day's budget once more.",
  ],
};

function showLink(link) {
  byId("link").dataset.link = link;
  say(byId("link").lastElementChild, { live: "Live", connecting: "Connecting", down: "Reconnecting" }[link]);
  if (link === "live") soon();
}

function hear(data) {
  if (data.kind === "notice") loadNotices();
  if (data.kind === "callback" || data.kind === "agent") soon();
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
      problem("list", fault.message);
      setTimeout(start, 3000);
    }
    return;
  }
  solved("list");
  await loadChoices();
  new Stream("/api/v1/board/events", {
    events: { board: hear }, onLink: showLink, onSignedOut: () => goToSignIn("expired"),
  }).open();
  setInterval(load, EVERY_MS);
  load();
  loadNotices();
}

byId("groups").replaceChildren(...GROUPS.map(([key, label]) => el("label", { class: "group" },
  el("input", { type: "radio", name: "group", id: `group-${key}`, checked: key === group, onchange: () => { group = key; anew(); } }),
  label, el("b", {}, "0"))));
byId("day").value = today();
byId("filters").addEventListener("submit", (event) => {
  event.preventDefault();
  anew();
});
for (const id of ["day", "site", "source", "agent"]) byId(id).addEventListener("change", anew);
byId("site").addEventListener("change", paintPromises);
byId("clear").addEventListener("click", () => {
  byId("filters").reset();
  byId("day").value = "";
  paintPromises();
  anew();
});
byId("all").addEventListener("change", (event) => {
  for (const item of shown) set(item, event.target.checked);
  paintChosen();
});
byId("rows").addEventListener("keydown", move);
byId("more").addEventListener("click", () => {
  pages += 1;
  load();
});
for (const name of ["requeue", "assign", "cancel"]) byId(name).addEventListener("click", () => run(name));
byId("export").addEventListener("click", exportList);
byId("sign-out").addEventListener("click", signOut);
themeButton();
start();
