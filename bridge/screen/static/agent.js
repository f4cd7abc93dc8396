// The agent's page: state, calls and keys. What a pop looks like is pop_view.js.

import { Problem, goToSignIn, request, setCsrf } from "./api.js";
import { byId, el, problem, say, solved, themeButton, toast } from "./dom.js";
import { cause, device, duration, outcome, phone, span, timeOfDay } from "./format.js";
import { arrows, listenForKeys } from "./keys.js";
import { PopView, caller } from "./pop_view.js";
import { Stream } from "./stream.js";

const REASONS = ["Break", "Lunch", "Meeting", "Training", "Other"];
const LEAVE_AFTER_MS = 4000;
const ACK_TRIES = 4;
const HANGUP_TRIES = 4;
const RECHECK_AFTER_MS = 1500;
const NEXT = {
  ready: "The next call appears here by itself.",
  paused: "No calls come while you are paused. Press Alt R when you are back.",
  wrapup: "Finish your notes. Press Alt R when you are ready for the next call.",
  offline: "No calls come while you are offline. Press Alt R to begin.",
};

/** @type {Map<string, PopView>} the calls on the page, oldest first */
const views = new Map();
/** Pops that this page has let go of: a late change must not bring one back, a new ring may. */
const closed = new Set();
let chosen = null;
let state = { state: "offline", reason: null, since: null, device: null };
let session = null;
let wasDown = false;
/** The last call was written down before it ended. */
let writtenEarly = false;

// State

const STATE_WORDS = { ready: "Ready", paused: "Paused", wrapup: "Wrap-up", offline: "Offline" };
const stateWord = () => (state.state === "paused" && state.reason ? `Paused: ${state.reason.toLowerCase()}` : STATE_WORDS[state.state] ?? state.state);

function showState(next) {
  state = next;
  for (const button of document.querySelectorAll(".state")) button.setAttribute("aria-pressed", String(button.dataset.state === state.state));
  say(byId("paused-label"), state.state === "paused" ? state.reason || "Paused" : "Pause");
  say(byId("idle-state"), stateWord());
  byId("idle-state").dataset.state = state.state;
  say(byId("idle-next"), NEXT[state.state] ?? "");
  say(byId("who-device"), device(state.device ?? session?.agent.device) || "Choose a phone");
  for (const view of views.values()) labelSave(view);
  tick();
  backToReady();
}

/** After a call the service puts an agent into wrap-up; who has written everything down already needs none. */
function backToReady() {
  if (!writtenEarly || state.state !== "wrapup" || views.size > 0) return;
  writtenEarly = false;
  setState("ready");
}

async function setState(name, reason) {
  closeMenu();
  try {
    showState(await request("PUT", "/me/state", reason ? { state: name, reason } : { state: name }));
    solved("state");
    say(byId("announce"), stateWord());
  } catch (fault) {
    failed(fault, "state", `Your state is still "${stateWord()}". ${fault.message}`, { label: "Try again", run: () => setState(name, reason) });
  }
}

const menu = byId("reasons");
const pauseButton = document.querySelector("[data-state=paused]");

function openMenu() {
  menu.hidden = false;
  pauseButton.setAttribute("aria-expanded", "true");
  menu.firstElementChild.focus();
}

function closeMenu() {
  if (menu.hidden) return;
  const had = menu.contains(document.activeElement);
  menu.hidden = true;
  pauseButton.setAttribute("aria-expanded", "false");
  if (had) pauseButton.focus();
}

function buildMenu() {
  menu.replaceChildren(...REASONS.map((reason, index) =>
    el("button", { type: "button", role: "menuitem", tabindex: "-1", onclick: () => setState("paused", reason) },
      el("span", {}, reason), el("kbd", { "aria-hidden": "true" }, String(index + 1)))));
  arrows(menu, "button");
  menu.addEventListener("keydown", (event) => {
    if (event.key === "Escape" || event.key === "Tab") closeMenu();
    if (/^[1-5]$/.test(event.key) && !event.altKey) menu.children[Number(event.key) - 1].click();
  });
  pauseButton.addEventListener("click", () => (menu.hidden ? openMenu() : closeMenu()));
  document.addEventListener("pointerdown", (event) => {
    if (!event.target.closest(".pause")) closeMenu();
  });
}

// Pops

function showPop(pop, arrived) {
  // A stream that is opened again begins with every call that stands, those closed here without a word too.
  if (pop.state === "ended" && closed.has(pop.id)) return;
  closed.delete(pop.id);
  writtenEarly = false;
  const known = views.get(pop.id);
  if (known) {
    known.update(pop);
  } else {
    const view = new PopView(pop, { hangup, save, close: letGo });
    views.set(pop.id, view);
    byId("panels").append(view.node);
    labelSave(view);
    choose(views.size === 1 || !isWriting() ? view : chosen);
    announce(pop);
  }
  arrange();
  if (!known) ackWhenPainted(pop.id, arrived);
}

/** Typing a note in another call must not be interrupted: the new call then waits in its tab. */
const isWriting = () => document.activeElement?.matches("textarea") && document.activeElement.value !== "";

function announce(pop) {
  const words = `${pop.direction === "outbound" ? "Call to" : "Call from"} ${caller(pop)}${pop.client ? ` for ${pop.client.name}` : ""}`;
  say(byId("announce-now"), words);
  if (document.hidden && "Notification" in window && Notification.permission === "granted") {
    const note = new Notification(caller(pop), { body: pop.client ? `for ${pop.client.name}` : "", tag: pop.id });
    note.addEventListener("click", () => { window.focus(); note.close(); });
  }
}

/** Two frames: the first may still be under way when the message comes, the second shows the pop. */
function ackWhenPainted(id, arrived) {
  requestAnimationFrame(() => requestAnimationFrame(() => {
    const painted_ms = Math.round((performance.now() - arrived) * 10) / 10;
    acknowledge(id, painted_ms, 0);
  }));
}

async function acknowledge(id, painted_ms, tries) {
  try {
    await request("POST", `/pops/${encodeURIComponent(id)}/ack`, { painted_ms });
  } catch (fault) {
    // The row of a pop is written beside the fast path, so it may be a moment younger than its picture.
    if (fault.status === 401) signedOut();
    else if (tries < ACK_TRIES) setTimeout(() => acknowledge(id, painted_ms, tries + 1), 250 * 2 ** tries);
  }
}

function changePop(change, arrived) {
  if (change.shown) {
    showPop(change.shown, arrived);
    return;
  }
  const view = views.get(change.pop);
  if (!view || closed.has(change.pop)) return;
  if (change.written) {
    writtenElsewhere(view, change.written);
    return;
  }
  const before = view.pop.state;
  const { pop, call, at, type, reason, keep, ...news } = change;
  if (change.state === "connected" && before === "ringing") news.connected_at = at;
  if (change.state === "ended") news.ended_at = at;
  view.update(news);
  if (change.state === "ended" && before !== "ended") ended(view, change);
  arrange();
}

/** The same agent has saved this call in another tab; what is typed here is never thrown away. */
function writtenElsewhere(view, disposition) {
  if (view.saving || view.settled) return;
  if (!view.untouched) {
    view.word(`Saved in another tab as: ${outcome(disposition)}. Saving here replaces that.`, "");
  } else if (view.ended) {
    letGo(view);
    toast("Saved in another tab.");
  } else {
    view.saved = view.draft;
    view.word(`Saved in another tab as: ${outcome(disposition)}.`, "good");
  }
}

function ended(view, change) {
  say(byId("announce"), `Call with ${caller(view.pop)} ended`);
  const toWrite = Boolean(view.pop.connected_at) && change.keep !== false;
  loadRecent();
  if (view.settled) {
    writtenEarly = true;
    letGo(view);
    backToReady();
  } else if (toWrite) {
    labelSave(view);
  } else if (view.untouched) {
    toast(`${caller(view.pop)}: ${cause(change.reason).toLowerCase()}`);
    setTimeout(() => { if (view.ended && view.untouched) letGo(view); }, change.reason === "answered_elsewhere" ? 0 : LEAVE_AFTER_MS);
  }
}

/** After a gap: a call that ended meanwhile, and whose end nobody can tell us again, must not stay on the page. */
async function recheck() {
  for (const view of [...views.values()]) {
    if (view.ended) continue;
    try {
      const call = await request("GET", `/calls/${encodeURIComponent(view.pop.call)}`);
      if (!call.ended_at || view.ended) continue;
      changePop({
        pop: view.pop.id, call: call.id, state: "ended", at: call.ended_at, type: "call.ended",
        keep: Boolean(view.pop.connected_at), reason: call.cause, ended: { cause: call.cause, talk_ms: call.talk_ms },
      }, performance.now());
    } catch (fault) {
      if (fault.status === 401) signedOut();
    }
  }
}

function letGo(view) {
  const inside = view.node.contains(document.activeElement);
  view.dropDraft();
  view.node.remove();
  views.delete(view.pop.id);
  closed.add(view.pop.id);
  if (chosen === view) chosen = [...views.values()].at(-1) ?? null;
  arrange();
  if (inside) byId("work").focus();
}

function choose(view) {
  chosen = view;
  arrange();
}

const tabId = (view) => `tab-${view.pop.id}`;

/** Tabs for two calls, none for one; the title says who it is. */
function arrange() {
  const list = [...views.values()];
  byId("idle").hidden = list.length > 0;
  byId("calls").hidden = list.length === 0;
  const tabs = byId("tabs");
  tabs.hidden = list.length < 2;
  for (const view of list) {
    view.node.hidden = view !== chosen;
    view.node.id = `panel-${view.pop.id}`;
    if (list.length > 1) {
      view.node.setAttribute("role", "tabpanel");
      view.node.setAttribute("aria-labelledby", tabId(view));
    } else {
      view.node.removeAttribute("role");
      view.node.removeAttribute("aria-labelledby");
    }
  }
  const focused = document.activeElement?.id;
  tabs.replaceChildren(...(list.length < 2 ? [] : list.map(tabFor)));
  if (focused?.startsWith("tab-")) byId(focused)?.focus();
  const ringing = list.find((view) => view.pop.state === "ringing");
  const shown = ringing ?? chosen;
  document.title = shown ? `${shown === ringing ? "☎ " : ""}${caller(shown.pop)}${shown.pop.client ? ` · ${shown.pop.client.name}` : ""}` : "Ringbridge";
}

function tabFor(view) {
  const isChosen = view === chosen;
  const tab = el("button", {
    class: "tab", type: "button", role: "tab", id: tabId(view), "aria-selected": String(isChosen),
    "aria-controls": `panel-${view.pop.id}`, tabindex: isChosen ? "0" : "-1", onclick: () => choose(view),
  }, el("i", { "aria-hidden": "true" }), el("strong", { class: "cut" }, caller(view.pop)),
  el("small", { class: "cut" }, [view.node.querySelector("[data-slot=state]").textContent, view.pop.client?.name].filter(Boolean).join(" · ")));
  if (view.node.dataset.hue !== undefined) {
    tab.dataset.hue = "";
    tab.style.setProperty("--hue", view.node.style.getPropertyValue("--hue"));
  }
  return tab;
}

// Actions on a call

async function hangup(view) {
  if (view.ended) return;
  view.hangup.disabled = true;
  view.word("Hanging up…", "");
  try {
    await hangUp(view, 0);
  } catch (fault) {
    view.word("", "");
    failed(fault, "hangup", `The call was not hung up. ${fault.message} You can always hang up at the phone itself.`);
  }
  setTimeout(() => { view.hangup.disabled = false; }, 1500);
}

async function hangUp(view, tries) {
  try {
    await request("POST", `/calls/${encodeURIComponent(view.pop.call)}/hangup`);
  } catch (fault) {
    // A call's row is written beside the fast path too; where it is not found nothing was sent to the PBX.
    if (fault.status !== 404 || tries >= HANGUP_TRIES || view.ended) throw fault;
    await new Promise((resolve) => setTimeout(resolve, 100 * 2 ** tries));
    await hangUp(view, tries + 1);
  }
}

function commandDone(result) {
  const isHangup = result.action === "hangup";
  const what = isHangup ? "hangup" : "action";
  if (result.ok) {
    solved(what);
    return;
  }
  const why = { timeout: "The PBX did not answer.", link_down: "The link to the PBX is down.", not_found: "The PBX no longer knows this call.", refused: "The PBX refused." };
  problem(what, `${isHangup ? "The call was not hung up" : "That did not work"}. ${why[result.reason] ?? result.detail ?? ""} Use the phone itself.`);
  if (isHangup) for (const view of views.values()) view.word("", "");
}

const labelSave = (view) => view.busy(false, state.state === "wrapup" && view.ended ? "Save and be ready" : "Save");

/** A note is kept as one line, as every text is that may end up in a list or an export. */
const oneLine = (text) => text.trim().replace(/\s*\n\s*/g, " / ").replace(/\s+/g, " ");

async function save(view) {
  const draft = view.draft;
  if (!draft.outcome) {
    view.word("Choose how it ended, then save.", "bad");
    view.form.querySelector("input").focus();
    return;
  }
  view.busy(true);
  view.saving = true;
  try {
    await request("POST", `/calls/${encodeURIComponent(view.pop.call)}/disposition`, {
      disposition: draft.outcome, note: oneLine(draft.note), ready: view.ended && state.state === "wrapup",
    });
    solved("save");
    view.dropDraft();
    view.saved = draft;
    if (view.ended) {
      letGo(view);
      toast("Saved.");
    } else {
      view.word(`Saved ${timeOfDay(new Date())}. You can still change it.`, "good");
    }
    loadRecent();
  } catch (fault) {
    view.word("Not saved. Your note is kept on this page.", "bad");
    failed(fault, "save", `The outcome was not saved. ${fault.message}`, { label: "Try again", run: () => save(view) });
  }
  view.saving = false;
  labelSave(view);
}

function failed(fault, key, text, action = null) {
  if (!(fault instanceof Problem)) throw fault;
  if (fault.status === 401) signedOut();
  else problem(key, text, action);
}

const signedOut = () => goToSignIn("expired");

// Recent calls

async function loadRecent() {
  const midnight = new Date();
  midnight.setHours(0, 0, 0, 0);
  let page;
  try {
    page = await request("GET", `/calls?${new URLSearchParams({ since: midnight.toISOString(), agent_id: session.agent.id, limit: "100" })}`);
  } catch (fault) {
    if (fault.status === 401) signedOut();
    return; // the list is a comfort, the calls themselves do not need it
  }
  const calls = page.items;
  const more = page.next ? "+" : "";
  say(byId("today"), calls.length === 1 ? "1 call today" : `${calls.length}${more} calls today`);
  byId("recent-none").hidden = calls.length > 0;
  byId("recent").replaceChildren(...calls.slice(0, 8).map(recentCall));
}

function recentCall(call) {
  const name = (call.direction === "outbound" ? call.to_party : call.from_party)?.name;
  const what = [call.disposition ? outcome(call.disposition) : call.cause ? cause(call.cause) : "Now", call.talk_ms ? duration(call.talk_ms) : ""];
  return el("li", {},
    el("time", { datetime: call.started_at }, timeOfDay(call.started_at)),
    el("span", { class: "cut" }, phone(call.customer_number) || "Unknown number", name ? el("span", { class: "muted" }, ` ${name}`) : ""),
    el("span", { class: "what" }, what.filter(Boolean).join(" · ")),
    call.note ? el("span", { class: "note cut" }, call.note) : "");
}

// The page itself

function tick() {
  const now = Date.now();
  for (const view of views.values()) view.tick(now);
  say(byId("idle-since"), state.since ? `since ${timeOfDay(state.since)} (${span(now - Date.parse(state.since))})` : "");
}

function showLink(link) {
  byId("link").dataset.link = link;
  say(byId("link").lastElementChild, { live: "Live", connecting: "Connecting", down: "Reconnecting" }[link]);
  if (link !== "live") {
    wasDown ||= link === "down";
    return;
  }
  solved("link");
  if (wasDown) setTimeout(recheck, RECHECK_AFTER_MS);
  wasDown = false;
}

function offerNotifications() {
  const button = byId("notify");
  button.hidden = !("Notification" in window) || Notification.permission !== "default";
  button.addEventListener("click", async () => {
    await Notification.requestPermission();
    button.hidden = true;
  });
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

function nextCall() {
  const list = [...views.values()];
  if (list.length > 1) choose(list[(list.indexOf(chosen) + 1) % list.length]);
}

async function start() {
  themeButton();
  buildMenu();
  offerNotifications();
  document.querySelector("[data-state=ready]").addEventListener("click", () => setState("ready"));
  document.querySelector("[data-state=wrapup]").addEventListener("click", () => setState("wrapup"));
  byId("sign-out").addEventListener("click", signOut);
  arrows(byId("tabs"), ".tab", (tab) => { tab.click(); byId(tab.id)?.focus(); });
  const onChosen = (act) => () => { if (chosen) act(chosen); };
  listenForKeys({
    KeyR: () => setState("ready"), KeyP: openMenu, KeyW: () => setState("wrapup"),
    KeyH: onChosen(hangup), KeyN: onChosen((view) => view.writeNote()), KeyC: nextCall,
    KeyS: onChosen(save), Save: onChosen(save),
    ...Object.fromEntries([1, 2, 3, 4, 5].map((n) => [`Digit${n}`, onChosen((view) => view.choose(n - 1))])),
  });
  setInterval(tick, 1000);
  await begin();
}

async function begin() {
  try {
    session = await request("GET", "/session");
  } catch (fault) {
    if (fault.status === 401) signedOut();
    else {
      showLink("down");
      problem("link", fault.message);
      setTimeout(begin, 3000);
    }
    return;
  }
  solved("link");
  setCsrf(session.csrf);
  say(byId("who-name"), session.agent.name);
  new Stream("/api/v1/me/events", {
    events: {
      pop: (data) => showPop(data, performance.now()),
      call: (data) => changePop(data, performance.now()),
      state: showState,
      command: commandDone,
    },
    onLink: showLink,
    onSignedOut: signedOut,
  }).open();
  loadRecent();
}

start();
