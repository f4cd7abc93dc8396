// The element that the one script tag adds to a page; no global name beside it.
let sheet;

class RingbridgeCall extends HTMLElement {
  static observedAttributes = ["api", "inline", "lang", "site", "tel"];
  #life = null;

  connectedCallback() {
    if (!sheet) {
      sheet = new CSSStyleSheet();
      sheet.replaceSync(CSS);
    }
    if (!this.shadowRoot) this.attachShadow({ mode: "open" }).adoptedStyleSheets = [sheet];
    this.#life = new AbortController();
    new View(this, this.#life.signal).begin();
  }

  disconnectedCallback() {
    this.#life?.abort();
    this.#life = null;
    this.shadowRoot.replaceChildren();
  }

  attributeChangedCallback(_name, before, after) {
    if (!this.#life || before === after) return;
    this.disconnectedCallback();
    this.connectedCallback();
  }
}

/** A script tag with data-site draws the button in the page's corner; with data-inline, the form where the tag is. */
function mount(script) {
  const { site, tel, lang, inline } = script.dataset;
  const made = h(NAME, { site, tel, lang, inline: inline !== undefined });
  if (inline === undefined) document.body.append(made);
  else script.after(made);
}

if (!customElements.get(NAME)) customElements.define(NAME, RingbridgeCall);
if (SCRIPT?.dataset.site) {
  if (document.body) mount(SCRIPT);
  else addEventListener("DOMContentLoaded", () => mount(SCRIPT), { once: true });
}
