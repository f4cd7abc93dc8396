// Building the page. Text goes in as text nodes only: nothing here, or in any module, parses markup,
// but for the one place in pop_view.js that says why it may.

/** An element: `on*` values are listeners, true/false are boolean attributes, null and undefined are left out. */
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return node;
}

export const byId = (id) => document.getElementById(id);

/** Set text only where it differs, so that a screen reader is not told the same thing again. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

let toastTimer = 0;
/** A short word that goes away by itself. */
export function toast(text) {
  const node = byId("toast");
  say(node, text);
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => say(node, ""), 5000);
}

/** A fault that stays until it is put right or dismissed; one line per `key`. */
export function problem(key, text, action = null) {
  solved(key);
  const line = el("div", { class: "problem", "data-key": key }, el("p", {}, text));
  if (action) line.append(el("button", { class: "button quiet", type: "button", onclick: action.run }, action.label));
  line.append(el("button", { class: "button quiet", type: "button", onclick: () => line.remove() }, "Dismiss"));
  byId("problems").append(line);
}

export function solved(key) {
  for (const line of byId("problems").children) if (line.dataset.key === key) line.remove();
}

/** The button that goes round: as the system, light, dark. */
export function themeButton() {
  const button = byId("theme");
  const root = document.documentElement;
  const names = { "": "as the system", light: "light", dark: "dark" };
  const tell = () => {
    const label = `Theme: ${names[root.dataset.theme ?? ""]}`;
    button.setAttribute("aria-label", label);
    button.title = label;
  };
  button.addEventListener("click", () => {
    const next = { "": "light", light: "dark", dark: "" }[root.dataset.theme ?? ""];
    if (next) root.dataset.theme = next;
    else delete root.dataset.theme;
    try {
      if (next) localStorage.setItem("rb:theme", next);
      else localStorage.removeItem("rb:theme");
    } catch {
      // Not kept, then: it holds for this page.
    }
    tell();
  });
  tell();
}
