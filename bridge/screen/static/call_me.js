// A visitor's form: ask, watch, cancel. What was asked is kept in this tab, so that a reload goes on watching.

const main = document.querySelector("main.call-me");
const site = main.dataset.site;
const KEPT = `rb:callback:${site}`;
const ASKED = `rb:asked:${site}`;
const FIRST_PAUSE_MS = 1000;
const LONGEST_PAUSE_MS = 15000;
const ENDED = new Set(["done", "failed", "cancelled", "expired"]);
const STEPS = ["queued", "calling_agent", "calling_customer", "connected"];
const byId = (id) => document.getElementById(id);
const form = byId("wish");
const zone = Intl.DateTimeFormat().resolvedOptions().timeZone || main.dataset.zone;
let attempt = recall(ASKED);
let source = null;
let pause = FIRST_PAUSE_MS;

const WORDS = {
  scheduled: ["Your callback is booked.", (body) => body.promised_at ? `We call you on ${moment(body.promised_at)}. You can close this page.` : ""],
  queued: ["We have your wish.", (body) => body.promised_at ? `Expect your phone to ring by ${clock(body.promised_at)}.` : "Your phone rings as soon as someone is free. You can close this page."],
  calling_agent: ["We are finding someone for you.", () => "Keep your phone at hand."],
  calling_customer: ["Your phone is ringing.", () => "Please answer it."],
  connected: ["You are connected.", () => ""],
  done: ["Thank you for the call.", () => ""],
  failed: ["We could not reach you.", () => "You can ask again, or call us."],
  cancelled: ["Nobody will call you.", () => "You cancelled this callback."],
  expired: ["Nobody was free in time.", () => "We are sorry. Please ask again, or call us."],
};

const clock = (text) => new Date(text).toLocaleTimeString([], { hour: "numeric", minute: "2-digit" });
const moment = (text) => new Date(text).toLocaleString([], { weekday: "long", day: "numeric", month: "long", hour: "numeric", minute: "2-digit" });
const newKey = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");

/** What this tab keeps; a browser without storage forgets it with the page. */
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

function show(element, text) {
  element.textContent = text;
  element.hidden = !text;
}

function mark(field, text) {
  const known = byId(`${field}-fault`);
  show(known ?? byId("fault"), text);
  const input = byId(field);
  if (known && input) {
    input.setAttribute("aria-invalid", "true");
    input.focus();
  }
}

function clean() {
  for (const fault of document.querySelectorAll(".fault")) show(fault, "");
  for (const input of form.querySelectorAll("[aria-invalid]")) input.removeAttribute("aria-invalid");
}

function later() {
  const chosen = form.elements.moment.value === "later";
  byId("later").hidden = !chosen;
  if (!chosen) return;
  const soon = new Date(Date.now() + 3600e3);
  soon.setMinutes(0, 0, 0);
  const local = new Date(soon.getTime() - soon.getTimezoneOffset() * 60e3).toISOString().slice(0, 16);
  if (!byId("when").value) byId("when").value = local;
  byId("when-zone").textContent = `Time zone: ${zone.replaceAll("_", " ")}`;
}

function sayWhere(fault) {
  const field = fault.field === "timezone" ? "when" : fault.field;
  mark(field ?? "", fault.detail ? `${fault.detail[0].toUpperCase()}${fault.detail.slice(1)}.`.replace("..", ".") : "This did not work. Try again.");
}

async function ask(event) {
  event.preventDefault();
  clean();
  const number = byId("number").value.trim();
  const consent = byId("consent");
  if (!number) return mark("number", "Enter the number that we shall call.");
  if (consent && !consent.checked) return mark("consent", "We may call you only if you agree.");
  const body = { number, site, name: byId("name").value.trim(), note: byId("note").value.trim().replace(/\s+/g, " "), page_url: location.href.slice(0, 2000) };
  if (consent) body.consent = byId("consent-text").textContent.trim().replace(/\s+/g, " ");
  if (form.elements.moment.value === "later") {
    if (!byId("when").value) return mark("when", "Choose a day and a time.");
    Object.assign(body, { when: byId("when").value, timezone: zone });
  }
  // The same wish sent again after a lost answer is one callback, also after a reload.
  const sent = JSON.stringify(body);
  if (attempt?.sent !== sent) remember({ sent, key: newKey() });
  const button = form.querySelector("[type=submit]");
  button.disabled = true;
  try {
    const answer = await fetch("/api/v1/callbacks", {
      method: "POST", body: sent, headers: { "Content-Type": "application/json", "Idempotency-Key": attempt.key },
    });
    const found = await answer.json();
    if (!answer.ok) {
      // 409: the first try is still in work, and may well succeed.
      if (answer.status < 500 && answer.status !== 409) remember(null);
      return sayWhere(found);
    }
    remember(null);
    keep(KEPT, { id: found.id, token: found.token });
    watch(found);
    byId("title").focus();
  } catch {
    mark("", "We did not hear whether this worked. Check your connection and press the button again; you will be called once.");
  } finally {
    button.disabled = false;
  }
}

function remember(next) {
  attempt = next;
  keep(ASKED, next);
}

function paint(body) {
  const [now, more] = WORDS[body.status] ?? ["", () => ""];
  byId("now").textContent = now;
  byId("more").textContent = more(body);
  const at = STEPS.indexOf(body.status);
  for (const step of document.querySelectorAll(".steps li")) {
    const index = STEPS.indexOf(step.dataset.step);
    step.classList.toggle("done", body.status === "done" || index < at);
    step.classList.toggle("here", index === at);
  }
  const over = ENDED.has(body.status);
  byId("cancel").hidden = over || body.status === "connected";
  byId("again").hidden = !over;
  if (over) {
    source?.close();
    keep(KEPT, null);
  }
}

/** The stream was refused: is the callback over or gone, or is it the network? */
async function look({ id, token }) {
  try {
    const answer = await fetch(`/api/v1/callbacks/${encodeURIComponent(id)}`, { headers: { Authorization: `Bearer ${token}` } });
    if (answer.ok) {
      const body = await answer.json();
      paint(body);
      if (ENDED.has(body.status)) return;
    } else if (answer.status === 403 || answer.status === 404) {
      keep(KEPT, null);
      startOver();
      mark("", "The callback that you asked for here is not known any more. Please ask again.");
      return;
    }
  } catch {
    // Not reachable now; the pause grows.
  }
  byId("link").hidden = false;
  setTimeout(() => { if (!byId("progress").hidden && byId("again").hidden) watch({ id, token }); }, pause * (0.75 + Math.random() / 2));
  pause = Math.min(LONGEST_PAUSE_MS, pause * 2);
}

function watch({ id, token }) {
  if (form.hidden === false) byId("now").textContent = "One moment …";
  form.hidden = true;
  byId("progress").hidden = false;
  const address = `/api/v1/callbacks/${encodeURIComponent(id)}`;
  source = new EventSource(`${address}/events?token=${encodeURIComponent(token)}`);
  source.addEventListener("status", (event) => {
    byId("link").hidden = true;
    pause = FIRST_PAUSE_MS;
    paint(JSON.parse(event.data));
  });
  source.addEventListener("error", () => {
    if (source.readyState !== EventSource.CLOSED) {
      byId("link").hidden = false;
      return;
    }
    look({ id, token });
  });
  byId("cancel").onclick = async () => {
    byId("cancel").disabled = true;
    try {
      const answer = await fetch(address, { method: "DELETE", headers: { Authorization: `Bearer ${token}` } });
      const found = await answer.json();
      if (answer.ok) paint(found);
      else byId("more").textContent = found.detail;
    } catch {
      byId("more").textContent = "This did not get through. Try again.";
    } finally {
      byId("cancel").disabled = false;
    }
  };
}

function startOver() {
  source?.close();
  byId("progress").hidden = true;
  form.hidden = false;
  byId("number").focus();
}

byId("again").addEventListener("click", startOver);
form.addEventListener("submit", ask);
for (const radio of form.querySelectorAll("[name=moment]")) radio.addEventListener("change", later);

const kept = recall(KEPT);
if (kept) watch(kept);
