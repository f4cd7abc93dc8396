// The theme a person chose on this machine: "light", "dark", or nothing, which follows the system.
// A classic script in the head, so that it acts before anything is painted.
(() => {
  try {
    const chosen = localStorage.getItem("rb:theme");
    if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
  } catch {
    // Storage may be forbidden; the system's theme it is.
  }
})();
