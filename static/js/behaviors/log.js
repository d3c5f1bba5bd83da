// A log tail: reads bytes from the offset it has reached, whenever its topic is announced, until the log is
// complete. data-source answers text/plain with X-Log-Offset, X-Log-Size and X-Log-Complete.

import { register } from "../registry.js";
import { Painter } from "../ansi.js";
import { bytes } from "../format.js";

const TAIL = 512 * 1024; // bytes of a long log that are shown at first
const LINES = 10_000; // rows kept in the page
const POLL = 5000; // ms, for when no announcement comes

class Tail {
  constructor(root) {
    this.root = root;
    this.view = root.querySelector("[data-log-view]");
    this.note = root.querySelector("[data-log-note]");
    this.followButton = root.querySelector("[data-log-follow]");
    this.wrapButton = root.querySelector("[data-log-wrap]");
    this.decoder = new TextDecoder("utf-8");
    this.painter = new Painter();
    this.offset = null;
    this.line = 0;
    this.pending = "";
    this.reading = false;
    this.again = false;
    this.abort = new AbortController();
    this.follow = true;
    const { signal } = this.abort;
    this.followButton.addEventListener("click", () => this.setFollow(!this.follow), { signal });
    this.wrapButton.addEventListener("click", () => this.setWrap(), { signal });
    this.view.addEventListener("wheel", (event) => event.deltaY < 0 && this.setFollow(false), { signal, passive: true });
    this.view.addEventListener("scroll", () => this.atEnd() && this.setFollow(true), { signal, passive: true });
    root.addEventListener("live", () => this.read(), { signal });
    this.timer = setInterval(() => document.hidden || this.read(), POLL);
    this.read();
  }

  atEnd() {
    return this.view.scrollHeight - this.view.scrollTop - this.view.clientHeight < 4;
  }

  setFollow(follow) {
    this.follow = follow;
    this.followButton.setAttribute("aria-pressed", String(follow));
    if (follow) this.view.scrollTop = this.view.scrollHeight;
  }

  setWrap() {
    const wrapped = this.view.classList.toggle("is-wrapped");
    this.wrapButton.setAttribute("aria-pressed", String(wrapped));
  }

  async read() {
    if (this.reading) {
      this.again = true;
      return;
    }
    this.reading = true;
    try {
      do {
        this.again = false;
        while (await this.readPiece());
      } while (this.again);
    } catch (error) {
      if (error.name !== "AbortError") this.note.textContent = "The log cannot be read just now; trying again.";
    } finally {
      this.reading = false;
    }
  }

  // One request; returns whether there is more to fetch at once.
  async readPiece() {
    const address = new URL(this.root.dataset.source, location.href);
    address.searchParams.set("offset", this.offset ?? 0);
    if (this.offset === null) {
      const size = Number(this.root.dataset.size ?? 0);
      this.offset = Math.max(0, size - TAIL);
      address.searchParams.set("offset", this.offset);
      this.cut = this.offset > 0;
    }
    const response = await fetch(address, { signal: this.abort.signal, headers: { Accept: "text/plain" } });
    if (!response.ok) throw new Error(`The log answered ${response.status}`);
    const data = new Uint8Array(await response.arrayBuffer());
    const size = Number(response.headers.get("X-Log-Size"));
    const complete = response.headers.get("X-Log-Complete") === "true";
    this.offset += data.length;
    const done = complete && this.offset >= size;
    this.append(this.decoder.decode(data, { stream: !done }), done);
    this.show(size, done);
    return !done && data.length > 0 && this.offset < size;
  }

  append(text, done) {
    const lines = (this.pending + text).split("\n");
    this.pending = lines.pop();
    if (this.cut && lines.length) {
      lines.shift(); // The first row of a tail begins in the middle.
      this.cut = false;
    }
    if (done && this.pending) {
      lines.push(this.pending);
      this.pending = "";
    }
    if (lines.length) {
      const rows = document.createDocumentFragment();
      for (const line of lines) rows.append(this.row(line));
      this.view.querySelector("[data-log-empty]")?.remove();
      this.view.append(rows);
      while (this.view.childElementCount > LINES) this.view.firstElementChild.remove();
      if (this.follow) this.view.scrollTop = this.view.scrollHeight;
    }
  }

  row(line) {
    const row = document.createElement("div");
    row.className = "log__line";
    row.dataset.line = String((this.line += 1));
    const text = document.createElement("span");
    text.className = "log__text";
    // A progress bar rewrites its row: what stands after the last carriage return is what a terminal shows.
    const shown = line.replace(/\r+$/, "");
    this.painter.paint(text, shown.slice(shown.lastIndexOf("\r") + 1));
    row.append(text);
    return row;
  }

  show(size, done) {
    const started = Number(this.root.dataset.size ?? 0) > TAIL ? `, last ${bytes(TAIL)} shown` : "";
    this.note.textContent = `${bytes(size)}${started}${done ? "" : " · following"}`;
    if (done) {
      clearInterval(this.timer);
      const empty = this.view.querySelector("[data-log-empty]");
      if (empty) empty.textContent = "It wrote nothing.";
    }
  }

  stop() {
    clearInterval(this.timer);
    this.abort.abort();
  }
}

register("log", { mount: (element) => new Tail(element), unmount: (_element, tail) => tail.stop() });
