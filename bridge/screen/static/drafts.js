// What an agent has typed and not saved yet. It outlives a reload and a sign-in in the same tab.

const PREFIX = "rb:draft:";

export function readDraft(pop) {
  try {
    return JSON.parse(sessionStorage.getItem(PREFIX + pop)) ?? { outcome: "", note: "" };
  } catch {
    return { outcome: "", note: "" };
  }
}

export function keepDraft(pop, draft) {
  try {
    if (draft.outcome || draft.note) sessionStorage.setItem(PREFIX + pop, JSON.stringify(draft));
    else sessionStorage.removeItem(PREFIX + pop);
  } catch {
    // A browser without storage keeps the draft on the page itself.
  }
}

export const dropDraft = (pop) => keepDraft(pop, { outcome: "", note: "" });
