// Requests to /api/v1. Every fault becomes a Problem whose message can be shown to a person as it is.

const API = "/api/v1";
const PATIENCE_MS = 10000;
let csrf = "";

export class Problem extends Error {
  constructor(message, { status = 0, code = "", field = "" } = {}) {
    super(message);
    Object.assign(this, { status, code, field });
  }
}

export const setCsrf = (token) => { csrf = token ?? ""; };

/** The body of the answer. Raises Problem; one of status 401 means that nobody is signed in. */
export async function request(method, path, body) {
  const headers = { Accept: "application/json" };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (method !== "GET" && csrf) headers["X-CSRF-Token"] = csrf;
  let answer;
  try {
    answer = await fetch(API + path, {
      method, headers, credentials: "same-origin", cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS),
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch {
    throw new Problem("Ringbridge does not answer. Check the network of this computer; your work here is kept, so try again.");
  }
  const data = await answer.json().catch(() => null);
  if (answer.ok) return data;
  throw new Problem(sentence(answer.status, data), { status: answer.status, code: data?.code ?? "", field: data?.field ?? "" });
}

function sentence(status, data) {
  const said = data?.detail || data?.title;
  if (said) return /[.!?]$/.test(said) ? said : `${said}.`;
  if (status === 429) return "Too many tries. Wait a minute, then try again.";
  if (status >= 500) return "Ringbridge could not do this just now. Try again; if it stays so, tell your administrator.";
  return `Ringbridge refused this (${status}). Load the page again and try once more.`;
}

/** To the sign-in page; drafts are in sessionStorage and wait there. */
export function goToSignIn(why) {
  const query = new URLSearchParams({ next: location.pathname, ...(why ? { why } : {}) });
  location.assign(`/login?${query}`);
}
