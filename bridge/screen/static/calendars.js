// Opening hours: calendars seen and changed by supervisors and administrators. Nothing is sent before Save.

import { goToSignIn, request, setCsrf } from "./api.js";
import { paintSpecial, paintWeek, readSpecial, readWeek, special } from "./calendar_days.js";
import { byId, el, problem, say, solved, themeButton, toast } from "./dom.js";
import { words } from "./format.js";

const NUMBERS = ["slot_minutes", "agents", "ahead_days"];
const TEXTS = ["name", "timezone", "country", "subdivision"];
const EMPTY = { id: "", name: "", timezone: Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC", weekly: {}, special_days: [], country: null, subdivision: null, slot_minutes: 30, agents: null, ahead_days: 14 };

let calendars = [];
let clients = [];
let sites = [];
/** As it was painted: the calendar's row, and what the form said of it then. */
let row = EMPTY;
let before = "";

function read() {
  const found = { weekly: readWeek(byId("week")), special_days: readSpecial(byId("special")) };
  for (const name of TEXTS) found[name] = byId(name).value.trim();
  found.country = found.country.toUpperCase() || null;
  found.subdivision = found.subdivision || null;
  for (const name of NUMBERS) found[name] = byId(name).value === "" ? null : Number(byId(name).value);
  return found;
}

const dirty = () => !byId("form").hidden && JSON.stringify(read()) !== before;

function changed() {
  const open = dirty();
  byId("save").disabled = !open;
  byId("undo").disabled = !open;
}

function paint(next) {
  row = next;
  const made = row.id !== "";
  byId("form").hidden = false;
  say(byId("form-title"), made ? row.name : "New calendar");
  byId("client-field").hidden = made;
  if (!made) byId("client").replaceChildren(...clients.map((client) => el("option", { value: client.id }, client.name)));
  for (const name of [...TEXTS, ...NUMBERS]) byId(name).value = row[name] ?? "";
  paintWeek(byId("week"), row.weekly, changed);
  paintSpecial(byId("special"), row.special_days, changed);
  byId("delete").hidden = !made;
  say(byId("used"), made ? usedBy(row.id) : "A site keeps these hours once an administrator gives it the calendar.");
  clean();
  before = JSON.stringify(read());
  changed();
  loadHolidays();
}

function usedBy(id) {
  const found = sites.flatMap((site) => [
    ...(site.calendar_id === id ? [site.name] : []),
    ...Object.entries(site.queue_calendars ?? {}).filter(([, calendar]) => calendar === id).map(([queue]) => `${site.name}, queue ${queue}`),
  ]);
  return found.length ? `Kept by: ${found.join("; ")}.` : "No site keeps these hours now.";
}

async function loadHolidays() {
  const place = byId("holidays");
  place.hidden = true;
  if (!row.id || !row.country) return;
  const { id } = row;
  try {
    const { items } = await request("GET", `/calendars/${encodeURIComponent(id)}/holidays`);
    if (row.id !== id) return;
    say(place.querySelector("summary"), `${items.length} public holidays in the year to come`);
    const day = new Intl.DateTimeFormat(undefined, { weekday: "short", day: "numeric", month: "short", year: "numeric" });
    place.querySelector("ul").replaceChildren(...items.map((item) => el("li", {}, `${day.format(new Date(`${item.date}T12:00`))}: ${item.name}`)));
    place.hidden = !items.length;
  } catch (fault) {
    if (fault.status === 401) goToSignIn("expired");
  }
}

function clean() {
  say(byId("fault"), "");
  for (const input of byId("form").querySelectorAll("[aria-invalid]")) {
    input.removeAttribute("aria-invalid");
    input.removeAttribute("aria-describedby");
  }
}

/** The server's sentence at the bottom, and the field it is about marked and focused. */
function refuse(fault) {
  say(byId("fault"), fault.message.charAt(0).toUpperCase() + fault.message.slice(1));
  const input = [...byId("form").querySelectorAll("[data-field]")].find((node) => node.dataset.field === fault.field);
  if (!input) return;
  input.setAttribute("aria-invalid", "true");
  input.setAttribute("aria-describedby", "fault");
  input.focus();
}

async function save(event) {
  event.preventDefault();
  clean();
  const said = read();
  const old = before ? JSON.parse(before) : {};
  const body = row.id
    // Only what changed, so that two people who change different things keep both.
    ? Object.fromEntries(Object.entries(said).filter(([name, value]) => JSON.stringify(value) !== JSON.stringify(old[name])))
    : { ...said, client_id: byId("client").value };
  byId("save").disabled = true;
  try {
    const made = await (row.id ? request("PATCH", `/calendars/${encodeURIComponent(row.id)}`, body) : request("POST", "/calendars", body));
    calendars = [...calendars.filter((each) => each.id !== made.id), made];
    list(made.id);
    paint(made);
    toast("Saved. Callbacks that wait are looked at by these hours when they are due.");
  } catch (fault) {
    if (fault.status === 401) goToSignIn("expired");
    else refuse(fault);
    byId("save").disabled = false;
  }
}

function list(id) {
  const names = new Map(clients.map((client) => [client.id, client.name]));
  const shown = [...calendars].sort((a, b) => a.name.localeCompare(b.name));
  byId("calendar").replaceChildren(
    ...(id ? [] : [el("option", { value: "" }, "New calendar")]),
    ...shown.map((each) => el("option", { value: each.id }, names.size > 1 ? `${each.name} (${names.get(each.client_id) ?? "another client"})` : each.name)));
  byId("calendar").value = id;
}

/** Asks where something would be lost; true where it may go on. */
function sure(title, text, yes) {
  say(byId("confirm-title"), title);
  say(byId("confirm-text"), text);
  say(byId("confirm-yes"), yes);
  const dialog = byId("confirm");
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true }));
}

const mayLeave = async () => !dirty() || sure("Leave these changes?", "They are not saved.", "Drop the changes");

async function choose(id) {
  if (!await mayLeave()) {
    byId("calendar").value = row.id;
    return;
  }
  list(id);
  paint(calendars.find((each) => each.id === id) ?? EMPTY);
}

async function remove() {
  if (!await sure(`Delete ${row.name}?`, "Its hours and special days are gone then. One that a site keeps is not deleted.", "Delete")) return;
  try {
    await request("DELETE", `/calendars/${encodeURIComponent(row.id)}`);
  } catch (fault) {
    if (fault.status === 401) goToSignIn("expired");
    else refuse(fault);
    return;
  }
  calendars = calendars.filter((each) => each.id !== row.id);
  before = JSON.stringify(read());
  toast("Deleted.");
  first();
}

function first() {
  byId("none").hidden = calendars.length > 0;
  const next = [...calendars].sort((a, b) => a.name.localeCompare(b.name))[0];
  list(next?.id ?? "");
  paint(next ?? EMPTY);
}

async function signOut() {
  if (!await mayLeave()) return;
  before = JSON.stringify(read());
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

/** Every page of a list. */
async function all(path) {
  const found = [];
  let cursor = null;
  do {
    const page = await request("GET", `${path}?${new URLSearchParams({ limit: 200, ...(cursor ? { cursor } : {}) })}`);
    found.push(...page.items);
    cursor = page.next;
  } while (cursor);
  return found;
}

async function start() {
  try {
    const session = await request("GET", "/session");
    setCsrf(session.csrf);
    say(byId("who-name"), session.agent.name);
    say(byId("who-role"), words(session.agent.role));
    [calendars, clients, sites] = await Promise.all([all("/calendars"), all("/clients"), all("/sites")]);
  } catch (fault) {
    if (fault.status === 401) goToSignIn("expired");
    else problem("start", `Opening hours cannot be shown now. ${fault.message}`, { label: "Try again", run: start });
    return;
  }
  solved("start");
  byId("zones").replaceChildren(...(Intl.supportedValuesOf?.("timeZone") ?? []).map((name) => el("option", { value: name })));
  first();
}

byId("form").addEventListener("submit", save);
byId("form").addEventListener("input", changed);
byId("calendar").addEventListener("change", (event) => choose(event.target.value));
byId("new").addEventListener("click", async () => {
  await choose("");
  if (!row.id) byId("name").focus();
});
byId("undo").addEventListener("click", () => paint(row));
byId("delete").addEventListener("click", remove);
byId("add-day").addEventListener("click", () => {
  const added = special({ date: "", name: "", hours: [] }, changed);
  byId("special").append(added);
  added.querySelector("input").focus();
  changed();
});
byId("sign-out").addEventListener("click", signOut);
addEventListener("beforeunload", (event) => { if (dirty()) event.preventDefault(); });
themeButton();
start();
