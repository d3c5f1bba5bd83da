// The grid of a workflow: a column for each run under a bar as long as it took, a row for each task. Runs are read in
// pieces from data-source as one scrolls to the left; what is live is read again when it is announced. A run opens
// data-run, a cell the same with ?task=. Groups of tasks fold.

import { drawn } from "../drawn.js";
import { register } from "../registry.js";
import { Groups, STATES, Surface, clipped, worst } from "../surface.js";
import { duration } from "../format.js";

const COLUMN = 18;
const ROW = 22;
const BARS = 76; // height of the head
const GAP = 3;
const OPEN_MAX = 60; // of so many tasks all groups are open at first
const HINT = 40;

class Grid {
  constructor(element) {
    this.element = element;
    this.runs = []; // newest first: {id, state, started, seconds, letters, list}
    this.lists = new Map(); // names joined → {names, place: Map}
    this.groups = new Groups();
    this.opened = null;
    this.cursor = null;
    this.older = null;
    this.abort = new AbortController();
    this.surface = new Surface(element, (context, view) => this.draw(context, view));
    this.said = element.parentElement.querySelector("[data-grid-said]");
    const { signal } = this.abort;
    element.addEventListener("live", () => this.refresh(), { signal });
    element.addEventListener("scroll", () => element.scrollLeft < 20 * COLUMN && this.readOlder(), { signal, passive: true });
    element.addEventListener("pointermove", (event) => this.hover(event), { signal });
    element.addEventListener("pointerleave", () => this.point(null), { signal });
    element.addEventListener("click", (event) => this.open(this.at(this.surface.point(event)), event), { signal });
    element.addEventListener("keydown", (event) => this.key(event), { signal });
    this.names = Math.min(200, Math.max(96, element.clientWidth * 0.24));
    this.read({}, () => { element.scrollLeft = element.scrollWidth; });
  }

  async read(query, then = () => {}) {
    if (this.reading) return;
    this.reading = true;
    let room = false; // for more runs, where there are some
    try {
      const address = new URL(this.element.dataset.source, location.href);
      for (const [name, value] of Object.entries(query)) address.searchParams.set(name, value);
      const response = await fetch(address, { signal: this.abort.signal });
      if (!response.ok) throw new Error(String(response.status));
      this.take(await response.json(), query);
      then();
      room = this.older !== null && this.element.scrollWidth <= this.element.clientWidth;
    } catch (error) {
      if (error.name !== "AbortError") this.empty("The runs cannot be read just now.");
    } finally {
      this.reading = false;
      if (this.again) {
        this.again = false;
        this.refresh();
      } else if (room) this.readOlder();
    }
  }

  // The oldest run that still goes on, and everything behind it, may have changed.
  refresh() {
    if (this.reading) {
      this.again = true;
      return;
    }
    const active = this.runs.filter((run) => run.seconds < 0 && ["queued", "running"].includes(run.state)).at(-1) ?? this.runs[0];
    const atEnd = this.element.scrollLeft > this.element.scrollWidth - this.element.clientWidth - 2 * COLUMN;
    this.read(active ? { since: active.id } : {}, () => { if (atEnd) this.element.scrollLeft = this.element.scrollWidth; });
  }

  readOlder() {
    if (this.older === null || this.reading) return;
    const right = this.element.scrollWidth - this.element.scrollLeft;
    this.read({ before: this.older }, () => { this.element.scrollLeft = this.element.scrollWidth - right; });
  }

  take(answer, query) {
    const lists = answer.lists.map((names) => this.list(names));
    const runs = answer.runs.map(([id, state, started, seconds], place) => ({
      id, state: answer.run_states[state], started, seconds, list: lists[answer.cells[place][0]], letters: answer.cells[place][1],
    }));
    this.states = answer.states;
    this.groups.take(answer, answer.lists);
    if (query.before) this.runs.push(...runs);
    else if (query.since && answer.older === null) this.runs = [...runs, ...this.runs.filter((run) => run.id < query.since)];
    else this.runs = runs;
    if (query.before || !query.since || answer.older !== null) this.older = answer.older;
    this.longest = Math.max(1, ...this.runs.map((run) => this.seconds(run)));
    this.arrange();
  }

  list(names) {
    const key = names.join(" ");
    if (!this.lists.has(key)) this.lists.set(key, { names, place: new Map(names.map((name, place) => [name, place])) });
    return this.lists.get(key);
  }

  seconds(run) {
    if (run.seconds >= 0) return run.seconds;
    return run.started < 0 ? 0 : Date.now() / 1000 - run.started;
  }

  // The rows: the newest run's tasks, then those that only former runs had, group by group; a closed group is one row.
  arrange() {
    const names = this.groups.together([...new Set(this.runs.flatMap((run, place) => (place && run.list === this.runs[place - 1].list ? [] : run.list?.names ?? [])))]);
    this.opened ??= new Set(names.length <= OPEN_MAX ? this.groups.parents.keys() : []);
    const rows = new Map();
    for (const name of names) {
      const inside = this.groups.around(name);
      const closed = inside.findIndex((group) => !this.opened.has(group));
      // The row of a group, open or closed, shows what all of its tasks are together.
      for (const [depth, group] of inside.slice(0, closed < 0 ? inside.length : closed + 1).entries()) {
        if (!rows.has(`${group}.`)) rows.set(`${group}.`, { label: group, group, depth, open: this.opened.has(group), tasks: [] });
        rows.get(`${group}.`).tasks.push(name);
      }
      if (closed < 0) rows.set(name, { label: name, depth: inside.length, tasks: [name] });
    }
    this.rows = [...rows.values()];
    if (!this.runs.length) return this.empty(this.element.dataset.blank);
    this.element.querySelector("[data-grid-empty]")?.remove();
    const [width, height] = [this.names + this.runs.length * COLUMN + 8, BARS + this.rows.length * ROW + 8];
    this.element.style.height = `${Math.min(height + 14, 560)}px`;
    this.surface.size(Math.max(width, this.element.clientWidth), height);
    drawn(this.element, "grid");
  }

  empty(text) {
    const place = this.element.querySelector("[data-grid-empty]");
    if (place) place.textContent = text;
  }

  // The x of a column in the whole; the newest is at the right end.
  left() {
    return Math.max(this.names, this.element.scrollWidth - 8 - this.runs.length * COLUMN);
  }

  state(run, row) {
    if (!run.list) return "none";
    const found = new Set();
    for (const name of row.tasks) {
      const place = run.list.place.get(name);
      if (place !== undefined) found.add(this.states[run.letters.charCodeAt(place) - 97]);
    }
    return found.size ? worst(found) : null;
  }

  draw(context, { width, height, left, top, colour }) {
    if (!this.runs.length) return;
    const start = this.left();
    const first = Math.max(0, Math.floor((left + this.names - start) / COLUMN));
    const last = Math.min(this.runs.length - 1, Math.ceil((left + width - start) / COLUMN));
    const [top_row, low_row] = [Math.max(0, Math.floor(top / ROW)), Math.min(this.rows.length - 1, Math.ceil((top + height - BARS) / ROW))];
    if (this.cursor) {
      context.fillStyle = colour("--hover");
      if (this.cursor.row !== null) context.fillRect(0, BARS + this.cursor.row * ROW - top, width, ROW);
      if (this.cursor.column !== null) context.fillRect(start + this.cursor.column * COLUMN - left, 0, COLUMN, height);
    }
    for (let column = first; column <= last; column += 1) {
      const run = this.runs[this.runs.length - 1 - column];
      const x = start + column * COLUMN - left;
      for (let row = top_row; row <= low_row; row += 1) {
        const state = this.state(run, this.rows[row]);
        if (state === null) continue;
        const thin = this.rows[row].open ? 5 : 0;
        this.box(context, colour, state, x + GAP / 2, BARS + row * ROW - top + GAP / 2 + thin, COLUMN - GAP, ROW - GAP - 2 * thin);
      }
    }
    this.head(context, colour, { first, last, start, left, width });
    this.side(context, colour, { top_row, low_row, top, height });
    context.fillStyle = colour("--surface");
    context.fillRect(0, 0, this.names, BARS);
    context.fillStyle = colour("--text-3");
    context.textAlign = "right";
    context.fillText(duration(this.longest), this.names - 10, 14);
    context.fillText("0", this.names - 10, BARS - 10);
    context.textAlign = "left";
    context.fillStyle = colour("--line");
    context.fillRect(0, BARS - 1, width, 1);
    context.fillRect(this.names - 1, 0, 1, height);
  }

  box(context, colour, state, x, y, width, height) {
    context.fillStyle = colour(STATES[state] ?? "--track");
    context.beginPath();
    context.roundRect(x, y, width, height, 3);
    context.fill();
  }

  head(context, colour, { first, last, start, left, width }) {
    context.fillStyle = colour("--surface");
    context.fillRect(this.names, 0, width, BARS);
    context.strokeStyle = colour("--line");
    context.setLineDash([2, 3]);
    context.strokeRect(this.names, 14.5, width, 0);
    context.setLineDash([]);
    for (let column = first; column <= last; column += 1) {
      const run = this.runs[this.runs.length - 1 - column];
      const x = start + column * COLUMN - left;
      const high = Math.max(3, (BARS - 24) * (this.seconds(run) / this.longest));
      if (this.cursor?.column === column) {
        context.fillStyle = colour("--active");
        context.fillRect(x, 0, COLUMN, BARS);
      }
      this.box(context, colour, run.state, x + GAP / 2, BARS - 8 - high, COLUMN - GAP, high);
    }
  }

  side(context, colour, { top_row, low_row, top, height }) {
    context.fillStyle = colour("--surface");
    context.fillRect(0, BARS, this.names, height);
    for (let place = top_row; place <= low_row; place += 1) {
      const row = this.rows[place];
      const y = BARS + place * ROW - top + ROW / 2;
      if (y < BARS - ROW / 2) continue;
      const x = 14 + Math.min(row.depth, 4) * 12;
      if (this.cursor?.row === place) {
        context.fillStyle = colour("--hover");
        context.fillRect(0, y - ROW / 2, this.names, ROW);
      }
      context.fillStyle = colour(row.group ? "--text" : "--text-2");
      const label = row.group ? row.label : this.groups.label(row.label);
      const sign = row.group ? `${row.open ? "▾" : "▸"} ` : "";
      context.fillText(clipped(context, `${sign}${label}${row.group && !row.open ? ` · ${row.tasks.length}` : ""}`, this.names - x - 12), x, y);
    }
  }

  at({ x, y }) {
    if (!this.rows) return null;
    const { scrollLeft: left, scrollTop: top } = this.element;
    const column = x < this.names ? null : Math.floor((x + left - this.left()) / COLUMN);
    const row = y < BARS ? null : Math.floor((y + top - BARS) / ROW);
    if ((column !== null && (column < 0 || column >= this.runs.length)) || (row !== null && row >= this.rows.length)) return null;
    return { column, row };
  }

  run(spot) {
    return this.runs[this.runs.length - 1 - spot.column];
  }

  words(spot) {
    if (!spot || spot.column === null) return spot?.row != null && this.rows[spot.row].group ? this.rows[spot.row].label : "";
    const run = this.run(spot);
    if (spot.row === null) return `Run ${run.id}: ${run.state}${run.started < 0 ? "" : `, ${duration(this.seconds(run))}`}`;
    const state = this.state(run, this.rows[spot.row]);
    return `${this.rows[spot.row].label} in run ${run.id}: ${state ? state.replace("_", " ") : "not a task of it"}`;
  }

  hover(event) {
    const point = this.surface.point(event);
    this.point(this.at(point), point);
  }

  point(spot, place = { x: 0, y: 0 }) {
    if (spot?.column !== this.cursor?.column || spot?.row !== this.cursor?.row) {
      this.cursor = spot;
      this.surface.redraw();
    }
    this.element.classList.toggle("is-over", Boolean(spot));
    this.surface.say(this.words(spot), place);
  }

  open(spot, event) {
    if (!spot) return;
    const row = spot.row === null ? null : this.rows[spot.row];
    if (row?.group) {
      if (this.opened.has(row.group)) this.opened.delete(row.group);
      else this.opened.add(row.group);
      return this.arrange();
    }
    if (spot.column === null) return;
    const address = new URL(this.element.dataset.run.replace(/\/0\//, `/${this.run(spot).id}/`), location.href);
    if (row) address.searchParams.set("task", row.label);
    if (event?.metaKey || event?.ctrlKey) open(address, "_blank", "noopener");
    else location.assign(address);
  }

  key(event) {
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (event.key === "Enter" && this.cursor) return this.open(this.cursor);
    if (!steps[event.key] || !this.runs.length) return;
    event.preventDefault();
    const [across, down] = steps[event.key];
    const from = this.cursor ?? { column: this.runs.length - 1 - across, row: down > 0 ? -1 : null };
    const column = Math.max(0, Math.min(this.runs.length - 1, (from.column ?? 0) + across));
    const row = Math.min(this.rows.length - 1, (from.row ?? -1) + down);
    this.cursor = { column, row: row < 0 ? null : row };
    const x = this.left() + column * COLUMN;
    if (x - this.element.scrollLeft < this.names + HINT) this.element.scrollLeft = x - this.names - HINT;
    if (x - this.element.scrollLeft > this.element.clientWidth - HINT) this.element.scrollLeft = x - this.element.clientWidth + HINT;
    if (this.cursor.row !== null) {
      const y = BARS + this.cursor.row * ROW;
      if (y - this.element.scrollTop < BARS) this.element.scrollTop = y - BARS;
      if (y - this.element.scrollTop > this.element.clientHeight - ROW) this.element.scrollTop = y - this.element.clientHeight + 2 * ROW;
    }
    if (this.said) this.said.textContent = this.words(this.cursor);
    this.surface.redraw();
  }

  stop() {
    this.abort.abort();
    this.surface.stop();
  }
}

register("grid", { mount: (element) => new Grid(element), unmount: (_element, grid) => grid.stop() });
