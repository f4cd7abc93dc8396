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
    const answer = await request("POST", "/session", { username, password });
    setCsrf(answer.csrf);
    signedIn = answer;
    if (answer.devices.length > 1) choosePhone(answer.devices);
    else await finish(answer.devices[0] ?? null);
  });
});

devices.addEventListener("submit", (event) => {
  event.preventDefault();
  attempt(devices, byId("device-refused"), () => finish(devices.querySelector(":checked")?.value));
});

function choosePhone(names) {
  let last = "";
  try { last = localStorage.getItem("rb:device") ?? ""; } catch { /* the first one, then */ }
  byId("device-list").replaceChildren(...names.map((name, index) =>
    el("label", { class: "choice-row" },
      el("input", { type: "radio", name: "device", value: name, checked: names.includes(last) ? name === last : index === 0 }),
      el("span", {}, device(name)))));
  credentials.hidden = true;
  byId("why").hidden = true;
  devices.hidden = false;
  devices.querySelector(":checked").focus();
}

async function finish(name) {
  if (name) {
    try { localStorage.setItem("rb:device", name); } catch { /* not remembered, then */ }
    await request("PUT", "/me/state", { state: "paused", device: name });
  }
  location.assign(next(signedIn));
}
