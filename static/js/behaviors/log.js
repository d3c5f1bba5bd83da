// A log of any length: a window of rows that moves over it. It opens at the end, reads what is new whenever its topic
// is announced until the log is complete, reads older pieces as one scrolls up, and jumps to what is looked for.
// data-source answers text/plain with X-Log-Offset, X-Log-Size and X-Log-Complete; data-find where a text stands.

import { drawn } from "../drawn.js";
import { register } from "../registry.js";
import { Painter } from "../ansi.js";
import { bytes } from "../format.js";

const TAIL = 128 * 1024; // bytes that are read at first, and around what was found
const PIECE = 128 * 1024; // bytes read as one scrolls
const LONGEST = 256 * 1024; // a row is cut here
const LINES = 12_000; // rows kept in the page
const POLL = 5000; // ms, for when no announcement comes
const NEAR = 400; // pixels from an edge of the window at which more is read
const NEWLINE = 10;

class Log {
  constructor(root) {
    this.root = root;
    this.view = root.querySelector("[data-log-view]");
    this.note = root.querySelector("[data-log-note]");
    this.followButton = root.querySelector("[data-log-follow]");
    this.wrapButton = root.querySelector("[data-log-wrap]");
    this.words = root.querySelector("[data-log-words]");
    this.decoder = new TextDecoder("utf-8");
    this.abort = new AbortController();
    this.follow = true;
    this.queue = Promise.resolve();
    this.clear(null);
    const { signal } = this.abort;
    this.followButton.addEventListener("click", () => this.setFollow(!this.follow), { signal });
    this.wrapButton.addEventListener("click", () => this.setWrap(), { signal });
    this.view.addEventListener("wheel", (event) => event.deltaY < 0 && this.setFollow(false), { signal, passive: true });
    this.view.addEventListener("scroll", () => this.scrolled(), { signal, passive: true });
    root.addEventListener("live", () => this.atEnd && this.run(() => this.readOn()), { signal });
    root.addEventListener("click", (event) => {
      const way = event.target.closest("[data-log-find]")?.dataset.logFind;
      if (way === "error") this.find("up", "");
      else if (way && this.words.value) this.find(way, this.words.value);
    }, { signal });
    this.words.addEventListener("keydown", (event) => {
      if (event.key !== "Enter") return;
      event.preventDefault();
      if (this.words.value) this.find(event.shiftKey ? "down" : "up", this.words.value);
    }, { signal });
    this.timer = setInterval(() => document.hidden || !this.atEnd || this.run(() => this.readOn()), POLL);
    this.run(() => this.openEnd());
  }

  // One thing after the other, so that pieces never mix.
  run(step) {
    this.queue = this.queue.then(step).catch((error) => {
      if (error.name !== "AbortError") this.note.textContent = "The log cannot be read just now; trying again.";
    });
    return this.queue;
  }

  clear(first) {
    this.view.replaceChildren(...(this.rows?.length ? [] : this.view.childNodes));
    this.rows = []; // {at: offset of its first byte, element}
    this.first = first; // offset of the first byte in the window
    this.last = first; // and of the first one behind what was read
    this.rest = new Uint8Array(); // of a row that has not ended
    this.number = first === 0 ? 1 : null; // of the first row, where it is known
    this.painter = new Painter();
    this.atEnd = false;
  }

  async fetch(offset, limit) {
    const address = new URL(this.root.dataset.source, location.href);
    address.searchParams.set("offset", offset);
    address.searchParams.set("limit", limit);
    const response = await fetch(address, { signal: this.abort.signal, headers: { Accept: "text/plain" } });
    if (!response.ok) throw new Error(`The log answered ${response.status}`);
    this.size = Number(response.headers.get("X-Log-Size"));
    this.complete = response.headers.get("X-Log-Complete") === "true";
    return { data: new Uint8Array(await response.arrayBuffer()), offset: Number(response.headers.get("X-Log-Offset")) };
  }

  // Rows begin where a line does: what is before the first end of line belongs to one that began earlier.
  aligned({ data, offset }) {
    const cut = offset > 0 ? data.indexOf(NEWLINE) + 1 : 0;
    return { data: data.subarray(cut), offset: offset + cut };
  }

  async openEnd() {
    const { data, offset } = this.aligned(await this.fetch(-TAIL, TAIL));
    this.clear(offset);
    this.append(data);
    this.atEnd = true;
    if (this.follow) this.view.scrollTop = this.view.scrollHeight;
    this.said();
    drawn(this.root, "log");
    if (!this.done() && this.last < this.size) await this.readOn();
  }

  async openAt(place) {
    const { data, offset } = this.aligned(await this.fetch(Math.max(0, place - TAIL / 2), TAIL));
    this.clear(offset);
    this.append(data);
    this.atEnd = this.last >= this.size;
    this.said();
  }

  // What stands behind the window: what is new, or what was left out.
  async readOn() {
    for (;;) {
      if (this.done()) return;
      const { data } = await this.fetch(this.last, this.atEnd ? 4 * PIECE : PIECE);
      this.append(data);
      const all = this.last >= this.size;
      this.trim(true);
      if (this.follow) this.view.scrollTop = this.view.scrollHeight;
      this.said();
      if (all) this.atEnd = true;
      if (all || !data.length || !this.atEnd) return;
    }
  }

  async readBack() {
    if (!this.first) return;
    const from = Math.max(0, this.first - PIECE);
    const piece = await this.fetch(from, this.first - from);
    const { data, offset } = this.aligned(piece);
    const [bytes_, begin] = data.length ? [data, offset] : [piece.data, from];
    const { rows } = this.split(bytes_, begin, new Painter(), true);
    const before = this.view.scrollHeight;
    const fragment = document.createDocumentFragment();
    for (const row of rows) fragment.append(row.element);
    this.view.prepend(fragment);
    this.rows.unshift(...rows);
    this.first = begin;
    if (this.number !== null) this.number -= rows.length;
    if (begin === 0) this.number = 1;
    this.count();
    this.view.scrollTop += this.view.scrollHeight - before;
    this.trim(false);
    this.said();
  }

  done() {
    return this.complete && this.last >= this.size && this.atEnd;
  }

  append(data) {
    const start = this.last - this.rest.length;
    const whole = this.rest.length ? new Uint8Array([...this.rest, ...data]) : data;
    this.last += data.length;
    const { rows, rest } = this.split(whole, start, this.painter, this.complete && this.last >= this.size);
    this.rest = rest;
    if (!rows.length) return;
    if (!this.rows.length) this.view.replaceChildren();
    const fragment = document.createDocumentFragment();
    for (const row of rows) fragment.append(row.element);
    this.view.append(fragment);
    this.rows.push(...rows);
    this.count(this.rows.length - rows.length);
  }

  split(data, at, painter, ended) {
    const rows = [];
    let start = 0;
    while (start < data.length) {
      const end = data.indexOf(NEWLINE, start);
      const long = (end < 0 ? data.length : end) - start > LONGEST;
      if (end < 0 && !long && !ended) break;
      const stop = long ? start + LONGEST : end < 0 ? data.length : end;
      rows.push({ at: at + start, element: this.row(this.decoder.decode(data.subarray(start, stop)), painter) });
      start = stop + (stop === end ? 1 : 0);
    }
    return { rows, rest: data.slice(start) };
  }

  row(line, painter) {
    const row = document.createElement("div");
    row.className = "log__line";
    const text = document.createElement("span");
    text.className = "log__text";
    // A progress bar rewrites its row: what stands after the last carriage return is what a terminal shows.
    const shown = line.replace(/\r+$/, "");
    painter.paint(text, shown.slice(shown.lastIndexOf("\r") + 1));
    row.append(text);
    return row;
  }

  // The numbers of rows are only known where the window begins at the first one.
  count(from = 0) {
    this.view.classList.toggle("is-unnumbered", this.number === null);
    if (this.number === null) return;
    for (let place = from; place < this.rows.length; place += 1) this.rows[place].element.dataset.line = this.number + place;
  }

  // Rows that are too many leave at the end that nobody looks at.
  trim(top) {
    const many = this.rows.length - LINES;
    if (many <= 0) return;
    if (top) {
      const gone = this.rows.splice(0, many);
      const before = this.view.scrollHeight;
      for (const row of gone) row.element.remove();
      if (!this.follow) this.view.scrollTop -= before - this.view.scrollHeight;
      this.first = this.rows[0].at;
      if (this.number !== null) this.number += many;
    } else {
      const gone = this.rows.splice(LINES);
      for (const row of gone) row.element.remove();
      this.last = gone[0].at;
      this.rest = new Uint8Array();
      this.atEnd = false;
    }
  }

  scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.view;
    const below = scrollHeight - scrollTop - clientHeight;
    if (below < 4 && this.atEnd) this.setFollow(true);
    if (this.moving || (scrollTop > NEAR && (below > NEAR || this.atEnd)) || (scrollTop <= NEAR && !this.first && this.atEnd)) return;
    this.moving = true;
    this.run(async () => {
      if (scrollTop <= NEAR) await this.readBack();
      else await this.readOn();
    }).finally(() => { this.moving = false; });
  }

  setFollow(follow) {
    if (this.follow === follow && (!follow || this.atEnd)) return;
    this.follow = follow;
    this.followButton.setAttribute("aria-pressed", String(follow));
    if (!follow) return;
    if (this.atEnd) this.view.scrollTop = this.view.scrollHeight;
    else this.run(() => this.openEnd());
  }

  setWrap() {
    const wrapped = this.view.classList.toggle("is-wrapped");
    this.wrapButton.setAttribute("aria-pressed", String(wrapped));
  }

  find(way, words) {
    if (words !== this.sought) {
      this.sought = words;
      this.found = null;
    }
    this.setFollow(false);
    return this.run(() => this.seek(way, words));
  }

  async seek(way, words) {
    let from = this.found === null ? null : way === "up" ? this.found : this.found + 1;
    if (this.found === null && way === "down") from = 0;
    for (;;) {
      const address = new URL(this.root.dataset.find, location.href);
      address.searchParams.set("q", words);
      address.searchParams.set("way", way);
      if (from !== null) address.searchParams.set("from", from);
      const response = await fetch(address, { signal: this.abort.signal });
      if (!response.ok) throw new Error(`The search answered ${response.status}`);
      const { at, further, size } = await response.json();
      if (at !== null) return this.show(at);
      if (further === null) {
        const what = words ? `“${words}”` : "error";
        this.note.textContent = this.found === null ? `No ${what} in ${bytes(size)}` : `No ${what} further ${way}`;
        return undefined;
      }
      from = further;
      this.note.textContent = `Searched ${Math.round((100 * (way === "up" ? size - further : further)) / size)} % of ${bytes(size)}…`;
    }
  }

  async show(at) {
    this.found = at;
    if (at < this.first || at >= this.last) await this.openAt(at);
    let [low, high] = [0, this.rows.length - 1];
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.rows[middle].at <= at) low = middle;
      else high = middle - 1;
    }
    this.view.querySelector(".is-found")?.classList.remove("is-found");
    const row = this.rows[low]?.element;
    if (!row) return;
    row.classList.add("is-found");
    this.view.scrollTop += row.getBoundingClientRect().top - this.view.getBoundingClientRect().top - this.view.clientHeight / 3;
    this.said();
  }

  said() {
    const where = this.atEnd || !this.size ? "" : ` · at ${Math.round((100 * this.first) / this.size)} %`;
    this.note.textContent = `${bytes(this.size)}${where}${this.done() || !this.atEnd ? "" : " · following"}`;
    if (!this.done()) return;
    clearInterval(this.timer);
    const empty = this.view.querySelector("[data-log-empty]");
    if (empty) empty.textContent = "It wrote nothing.";
  }

  stop() {
    clearInterval(this.timer);
    this.abort.abort();
  }
}

register("log", { mount: (element) => new Log(element), unmount: (_element, log) => log.stop() });
