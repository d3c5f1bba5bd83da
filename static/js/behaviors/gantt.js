// The timeline of a run: a row for each task, light while it was queued, in its state's colour while it ran. Groups of
// tasks fold; a mapped task opens into its instances, which are read then. A task opens its panel (an htmx partial).

import { drawn } from "../drawn.js";
import { register } from "../registry.js";
import { Groups, STATES, Surface, clipped, worst } from "../surface.js";
import { duration } from "../format.js";

const ROW = 24;
const AXIS = 30;
const OPEN_MAX = 60;
const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400];

class Gantt {
  constructor(element) {
    this.element = element;
    this.groups = new Groups();
    this.opened = null;
    this.instances = new Map(); // mapped task that is open → its answer
    this.cursor = null;
    this.abort = new AbortController();
    this.surface = new Surface(element, (context, view) => this.draw(context, view));
    const { signal } = this.abort;
    element.addEventListener("live", () => this.load(), { signal });
    element.addEventListener("pointermove", (event) => this.hover(event), { signal });
    element.addEventListener("pointerleave", () => this.point(null), { signal });
    element.addEventListener("click", (event) => this.open(this.at(this.surface.point(event))), { signal });
    element.addEventListener("keydown", (event) => this.key(event), { signal });
    this.load();
  }

  async load() {
    if (this.loading) {
      this.again = true;
      return;
    }
    this.loading = true;
    try {
      do {
        this.again = false;
        const answer = await this.read();
        for (const name of this.instances.keys()) this.instances.set(name, await this.read(name));
        this.answer = answer;
        this.arrange();
      } while (this.again);
    } catch (error) {
      if (error.name !== "AbortError") this.empty("The times cannot be read just now.");
    } finally {
      this.loading = false;
    }
  }

  async read(task) {
    const address = new URL(this.element.dataset.source, location.href);
    if (task) address.searchParams.set("task", task);
    const response = await fetch(address, { signal: this.abort.signal });
    if (!response.ok) throw new Error(String(response.status));
    return response.json();
  }

  empty(text) {
    const place = this.element.querySelector("[data-gantt-empty]");
    if (place) place.textContent = text;
  }

  bars(answer) {
    return answer.names.map((name, place) => ({
      name, label: answer.labels?.[place],
      state: answer.states[answer.letters.charCodeAt(place) - 97],
      queued: answer.times[3 * place], started: answer.times[3 * place + 1], ended: answer.times[3 * place + 2],
    }));
  }

  arrange() {
    const tasks = new Map(this.bars(this.answer).map((bar) => [bar.name, bar]));
    this.groups.take(this.answer, [this.answer.names]);
    this.opened ??= new Set(tasks.size <= OPEN_MAX ? this.groups.parents.keys() : []);
    const rows = new Map();
    for (const name of this.groups.together([...tasks.keys()])) {
      const task = tasks.get(name);
      const inside = this.groups.around(task.name);
      const closed = inside.findIndex((group) => !this.opened.has(group));
      for (const [depth, group] of inside.slice(0, closed < 0 ? inside.length : closed + 1).entries()) {
        if (!rows.has(`${group}.`)) rows.set(`${group}.`, { label: group, group, depth, open: this.opened.has(group), bars: [] });
        rows.get(`${group}.`).bars.push(task);
      }
      if (closed >= 0) continue;
      const width = this.answer.widths[task.name];
      const open = this.instances.get(task.name);
      rows.set(task.name, { label: task.name, task: task.name, width, open: Boolean(open), depth: inside.length, bars: [task] });
      if (!open) continue;
      for (const bar of this.bars(open)) rows.set(`${task.name}\n${bar.name}`, { label: bar.label ?? String(bar.name), task: task.name, index: bar.name, depth: inside.length + 1, bars: [bar] });
    }
    this.rows = [...rows.values()];
    this.end = Math.max(1000, this.answer.now, ...this.answer.times.filter((_time, place) => place % 3 === 2));
    if (!this.rows.length) return this.empty("The run has no tasks.");
    this.element.querySelector("[data-gantt-empty]")?.remove();
    const height = AXIS + this.rows.length * ROW + 6;
    this.element.style.height = `${Math.min(height + 2, 620)}px`;
    this.surface.size(this.element.clientWidth, height);
    drawn(this.element, "gantt");
  }

  // What a row spans, and how it went.
  span(row) {
    const now = this.answer.now;
    const least = (times) => times.reduce((low, time) => (time >= 0 && (low < 0 || time < low) ? time : low), -1);
    const queued = least(row.bars.map((bar) => bar.queued));
    const started = least(row.bars.map((bar) => bar.started));
    const active = row.bars.some((bar) => ["running", "queued", "deferred"].includes(bar.state));
    const ended = active ? now : row.bars.reduce((high, bar) => Math.max(high, bar.ended), -1);
    return { queued, started, ended, state: row.bars.length === 1 ? row.bars[0].state : worst(new Set(row.bars.map((bar) => bar.state))) };
  }

  side(width) {
    return Math.min(240, Math.max(110, width * 0.26));
  }

  draw(context, { width, height, top, colour }) {
    if (!this.rows) return;
    const side = this.side(width);
    const room = width - side - 76;
    const x = (time) => side + 8 + (room * time) / this.end;
    const first = Math.max(0, Math.floor(top / ROW));
    const last = Math.min(this.rows.length - 1, Math.ceil((top + height - AXIS) / ROW));
    this.axis(context, colour, { x, width, height, side, room });
    for (let place = first; place <= last; place += 1) {
      const row = this.rows[place];
      const y = AXIS + place * ROW - top;
      if (this.cursor === place) {
        context.fillStyle = colour("--hover");
        context.fillRect(0, y, width, ROW);
      }
      const { queued, started, ended, state } = this.span(row);
      const until = ended < 0 ? this.answer.now : ended;
      const [high, inset] = row.group ? [6, 9] : [14, 5];
      if (queued >= 0) this.box(context, colour("--soft-amber"), x(queued), y + inset, x(started < 0 ? until : started) - x(queued), high);
      if (started >= 0) this.box(context, colour(STATES[state]), x(started), y + inset, Math.max(2, x(until) - x(started)), high);
      else if (queued < 0 && ended >= 0) this.box(context, colour(STATES[state]), x(ended), y + inset, 3, high);
      context.fillStyle = colour("--text-2");
      if (started >= 0) context.fillText(duration((until - started) / 1000), x(until) + 7, y + ROW / 2 + 0.5);
      this.label(context, colour, row, y, side);
    }
    context.fillStyle = colour("--surface");
    context.fillRect(0, 0, width, AXIS - 1);
    this.ticks(context, colour, { x, room });
    context.fillStyle = colour("--line");
    context.fillRect(0, AXIS - 1, width, 1);
    context.fillRect(side - 1, 0, 1, height);
  }

  label(context, colour, row, y, side) {
    context.fillStyle = colour(row.group || row.width ? "--text" : "--text-2");
    const x = 14 + Math.min(row.depth, 4) * 12;
    const label = row.group || row.index !== undefined ? row.label : this.groups.label(row.label);
    const sign = row.group || row.width ? (row.open ? "▾ " : "▸ ") : "";
    const count = row.width && !row.open ? ` · ${row.width}` : row.group && !row.open ? ` · ${row.bars.length}` : "";
    context.fillText(clipped(context, `${sign}${label}${count}`, side - x - 10), x, y + ROW / 2 + 0.5);
  }

  step() {
    const wanted = this.end / 1000 / 6;
    return STEPS.find((step) => step >= wanted) ?? Math.ceil(wanted / 86400) * 86400;
  }

  axis(context, colour, { x, height }) {
    context.fillStyle = colour("--line");
    const step = this.step();
    for (let second = 0; second * 1000 <= this.end; second += step) context.fillRect(Math.round(x(second * 1000)), AXIS, 1, height);
  }

  ticks(context, colour, { x }) {
    context.fillStyle = colour("--text-3");
    const step = this.step();
    for (let second = 0; second * 1000 <= this.end; second += step) context.fillText(second ? `+${duration(second)}` : "0", x(second * 1000) + 4, AXIS / 2);
  }

  box(context, fill, x, y, width, height) {
    if (width <= 0) return;
    context.fillStyle = fill;
    context.beginPath();
    context.roundRect(x, y, width, height, Math.min(3, width / 2));
    context.fill();
  }

  at({ y }) {
    const place = Math.floor((y + this.element.scrollTop - AXIS) / ROW);
    return this.rows && y >= AXIS && place < this.rows.length ? place : null;
  }

  words(place) {
    if (place === null) return "";
    const row = this.rows[place];
    const { queued, started, ended, state } = this.span(row);
    const until = ended < 0 ? this.answer.now : ended;
    const name = row.index === undefined ? row.label : `${row.task}[${row.index}]${row.bars[0].label ? ` ${row.bars[0].label}` : ""}`;
    const waited = queued >= 0 ? `, queued ${duration(Math.max(0, (started < 0 ? until : started) - queued) / 1000)}` : "";
    const ran = started >= 0 ? `, ran ${duration((until - started) / 1000)}` : "";
    return `${name}: ${state.replace("_", " ")}${waited}${ran}`;
  }

  hover(event) {
    const point = this.surface.point(event);
    this.point(this.at(point), point);
  }

  point(place, where = { x: 0, y: 0 }) {
    if (place !== this.cursor) {
      this.cursor = place;
      this.surface.redraw();
    }
    this.element.classList.toggle("is-over", place !== null);
    this.surface.say(this.words(place), where);
  }

  async open(place) {
    if (place === null) return;
    const row = this.rows[place];
    if (row.group) {
      if (row.open) this.opened.delete(row.group);
      else this.opened.add(row.group);
      this.arrange();
    } else if (row.width && row.index === undefined) {
      if (row.open) this.instances.delete(row.task);
      else this.instances.set(row.task, await this.read(row.task));
      this.arrange();
    } else {
      const address = new URL(this.element.dataset.panelSource.replace("/tasks/-/", `/tasks/${row.task}/`), location.href);
      if (row.index !== undefined) address.searchParams.set("index", row.index);
      htmx.ajax("GET", address.pathname + address.search, { target: this.element.dataset.panel, swap: "innerHTML" });
    }
  }

  key(event) {
    if (event.key === "Enter" && this.cursor !== null) return this.open(this.cursor);
    if (!this.rows || (event.key !== "ArrowUp" && event.key !== "ArrowDown")) return;
    event.preventDefault();
    this.cursor = Math.max(0, Math.min(this.rows.length - 1, (this.cursor ?? -1) + (event.key === "ArrowDown" ? 1 : -1)));
    const y = AXIS + this.cursor * ROW;
    if (y - this.element.scrollTop < AXIS) this.element.scrollTop = y - AXIS;
    if (y - this.element.scrollTop > this.element.clientHeight - ROW) this.element.scrollTop = y - this.element.clientHeight + ROW;
    this.element.parentElement.querySelector("[data-gantt-said]").textContent = this.words(this.cursor);
    this.surface.redraw();
  }

  stop() {
    this.abort.abort();
    this.surface.stop();
  }
}

register("gantt", { mount: (element) => new Gantt(element), unmount: (_element, gantt) => gantt.stop() });
