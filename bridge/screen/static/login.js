// Signing in: name and password first, then the phone, since only then is it known which are yours.

import { request, setCsrf } from "./api.js";
import { byId, el, say } from "./dom.js";
import { device } from "./format.js";

const credentials = byId("credentials");
const devices = byId("devices");
const WHY = {
  expired: "Your session has ended. Sign in to go on; notes that you had not saved are kept in this tab.",
  out: "You are signed out.",
};
const query = new URLSearchParams(location.search);

if (WHY[query.get("why")]) {
  byId("why").hidden = false;
  say(byId("why"), WHY[query.get("why")]);
}

/** Only a path of this site: an address from outside must not choose where a signed-in person lands. */
function next(session) {
  const asked = query.get("next") ?? "";
  if (/^\/[a-z]/.test(asked)) return asked;
  return session.devices.length || session.role === "agent" ? "/agent" : "/supervisor";
}

async function attempt(form, word, work) {
  const button = form.querySelector("[type=submit]");
  button.disabled = true;
  say(word, "");
  try {
    await work();
  } catch (fault) {
    say(word, fault.status === 401 ? "Username or password is not right. Check both and try again." : fault.message);
    form.querySelector("input")?.focus();
  } finally {
    button.disabled = false;
  }
}

let signedIn = null;

credentials.addEventListener("submit", (event) => {
  event.preventDefault();
  attempt(credentials, byId("refused"), async () => {
    const username = byId("username").value.trim();
    const password = byId("password").value;
    if (!username || !password) {
      say(byId("refused"), "Enter your username and your password.");
      byId(username ? "password" : "username").focus();
      return;
    }
    await arrived(await request("POST", "/session", { username, password }));
  });
});

devices.addEventListener("submit", (event) => {
  event.preventDefault();
  attempt(devices, byId("device-refused"), async () => {
    const name = devices.querySelector(":checked")?.value;
    if (name) await finish(name);
    else say(byId("device-refused"), "Choose a phone first.");
  });
});

/** Signed in: people without a phone go on at once, with one phone they sit at it, with more they choose. */
async function arrived(session) {
  setCsrf(session.csrf);
  if (session.role === "viewer") {
    say(byId("refused"), "You are signed in, but there is no page for client companies yet. Your account reads calls and customers over the API: /api/docs.");
    return;
  }
  signedIn = session;
  if (session.devices.length > 1) choosePhone((await request("GET", "/me/devices")).items);
  else await finish(session.devices[0] ?? null);
}

function choosePhone(phones) {
  let last = "";
  try { last = localStorage.getItem("rb:device") ?? ""; } catch { /* the first free one, then */ }
  const free = phones.filter((phone) => !phone.taken);
  const preset = free.find((phone) => phone.device === last) ?? free[0];
  byId("device-list").replaceChildren(...phones.map((phone) =>
    el("label", { class: "choice-row" },
      el("input", { type: "radio", name: "device", value: phone.device, checked: phone === preset, disabled: phone.taken }),
      el("span", {}, device(phone.device)),
      phone.taken ? el("span", { class: "muted" }, "a colleague sits there") : "")));
  credentials.hidden = true;
  byId("why").hidden = true;
  devices.hidden = false;
  (devices.querySelector(":checked") ?? byId("devices-title")).focus();
  if (!preset) say(byId("device-refused"), "All your phones are taken. Ask your supervisor for another one.");
}

async function finish(name) {
  if (name) {
    await request("PUT", "/me/state", { state: "paused", reason: "Just signed in", device: name });
    try { localStorage.setItem("rb:device", name); } catch { /* not remembered, then */ }
  }
  location.assign(next(signedIn));
}

/** Who is signed in already and wants another phone. */
if (query.get("phone")) {
  request("GET", "/session").then(arrived).catch((fault) => {
    if (fault.status !== 401) say(byId("refused"), fault.message);
  });
}
