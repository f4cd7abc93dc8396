// The event stream of a page: an EventSource that is opened again for as long as the page lives.
// The browser itself resumes a broken connection with Last-Event-ID; where it gives up (an answer that is
// no stream, such as 401 or 502), the stream is opened anew from the last id seen.

import { request } from "./api.js";

const SILENCE_MS = 45000;

export class Stream {
  #path; #events; #onLink; #onSignedOut;
  #source = null; #lastId = ""; #heard = 0; #pings = false; #tries = 0; #timer = 0;

  /** `events` maps an event's name to a function of (data, id); `onLink` hears "live", "connecting" or "down". */
  constructor(path, { events, onLink, onSignedOut }) {
    this.#path = path;
    this.#events = events;
    this.#onLink = onLink;
    this.#onSignedOut = onSignedOut;
    setInterval(() => this.#watch(), 5000);
    window.addEventListener("online", () => this.open());
    // A connection that was cut does not say so by itself for a long time.
    window.addEventListener("offline", () => {
      this.#onLink("down");
      this.open();
    });
    window.addEventListener("pagehide", () => this.#source?.close());
  }

  open() {
    clearTimeout(this.#timer);
    this.#source?.close();
    const query = this.#lastId ? `?last_event_id=${encodeURIComponent(this.#lastId)}` : "";
    const source = new EventSource(this.#path + query);
    this.#source = source;
    this.#heard = performance.now();
    source.addEventListener("open", () => {
      this.#heard = performance.now();
      this.#tries = 0;
      this.#onLink("live");
    });
    source.addEventListener("error", () => this.#broken(source));
    source.addEventListener("ping", () => {
      this.#heard = performance.now();
      this.#pings = true;
    });
    for (const [name, hear] of Object.entries(this.#events)) {
      source.addEventListener(name, (event) => {
        this.#heard = performance.now();
        if (event.lastEventId) this.#lastId = event.lastEventId;
        hear(JSON.parse(event.data), event.lastEventId);
      });
    }
  }

  #broken(source) {
    if (source !== this.#source) return;
    this.#onLink("down");
    if (source.readyState !== EventSource.CLOSED) return; // the browser is at it already
    this.#again();
  }

  #again() {
    const pause = Math.min(10000, 500 * 2 ** this.#tries) * (0.75 + Math.random() / 2);
    this.#tries += 1;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#check(), pause);
  }

  /** Was it the session, or the network? */
  async #check() {
    try {
      await request("GET", "/session");
      this.open();
    } catch (fault) {
      if (fault.status === 401) this.#onSignedOut();
      else this.#again();
    }
  }

  /** A connection can die without a word; the server pings every few seconds, so silence means it did. */
  #watch() {
    if (this.#pings && this.#source?.readyState === EventSource.OPEN && performance.now() - this.#heard > SILENCE_MS) {
      this.#onLink("down");
      this.open();
    }
  }
}
