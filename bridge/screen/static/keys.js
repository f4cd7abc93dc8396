// Keys of the agent's page. All are Alt chords, so that they work while a note is being written and never
// fire from ordinary typing; a physical key is meant, since Alt changes the letter on some keyboards.

/** `table` maps codes such as "KeyR" to functions; Ctrl+Enter is "Save" too. */
export function listenForKeys(table) {
  document.addEventListener("keydown", (event) => {
    if (event.repeat || event.isComposing) return;
    const alone = event.altKey && !event.ctrlKey && !event.metaKey && !event.shiftKey && !event.getModifierState("AltGraph");
    const code = event.key === "Enter" && (event.ctrlKey || event.metaKey) ? "Save" : alone ? event.code : "";
    const act = table[code];
    if (!act) return;
    event.preventDefault();
    act();
  });
}

/** Arrow keys in a menu or a row of tabs. */
export function arrows(box, selector, onMove = (item) => item.focus()) {
  box.addEventListener("keydown", (event) => {
    const items = [...box.querySelectorAll(selector)];
    const at = items.indexOf(document.activeElement);
    const step = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
    const target = step ? items[(at + step + items.length) % items.length] : { Home: items[0], End: items.at(-1) }[event.key];
    if (!target || event.altKey) return;
    event.preventDefault();
    onMove(target);
  });
}
