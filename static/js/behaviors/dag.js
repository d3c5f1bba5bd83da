// A workflow's graph: laid out by dagre, drawn as SVG, repainted in place when its run is announced. data-source
// answers {"tasks": [{id, label, sub, state, width, counts, panel, mark, group}], "edges": [[from, to], …], "groups":
// [{id, parent, label}]}. A task opens its panel (an htmx partial) in the element that data-panel names; a group folds
// into one box and unfolds, and stays as it was left for as long as the page is open. data-icons is the sprite of marks.

import { register } from "../registry.js";
import { Graph, layout } from "../../vendor/dagre-3.1.3/dagre.esm.js";

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 196;
const HEIGHT = 52;
const MAPPED = 64;
const MARGIN = 24;
const SMALLEST = 0.5;
const ORDER = ["succeeded", "running", "failed", "skipped"];
const ENDED = ["succeeded", "failed", "skipped", "upstream_failed", "cancelled"];
// A graph with more tasks than this begins with its groups folded.
const FOLD_ABOVE = 60;

function make(name, attributes = {}, children = []) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

function shorten(text, most) {
  return text.length > most ? `${text.slice(0, most - 1)}…` : text;
}

// The points of an edge, from the middle of one box's side to the middle of the other's.
function anchored(graph, from, to, down) {
  const [a, b] = [graph.node(from), graph.node(to)];
  const bends = graph.edge(from, to).points.slice(1, -1);
  if (down) return [{ x: a.x, y: a.y + a.height / 2 }, ...bends, { x: b.x, y: b.y - b.height / 2 }];
  return [{ x: a.x + a.width / 2, y: a.y }, ...bends, { x: b.x - b.width / 2, y: b.y }];
}

// The state of a folded group: the first of these that one of its tasks has, and that of its tasks when all have ended.
function together(states) {
  for (const state of ["failed", "upstream_failed", "cancelled", "running", "queued", "deferred"]) {
    if (states.includes(state)) return state;
  }
  if (states.some((state) => !ENDED.includes(state))) return states.includes("none") ? "none" : "waiting";
  return states.includes("succeeded") ? "succeeded" : "skipped";
}

// The box that stands for a folded group of tasks.
function folded(group, members) {
  const counts = {};
  for (const { state } of members) {
    const name = state === "upstream_failed" || state === "cancelled" ? "failed" : state;
    counts[name] = (counts[name] ?? 0) + 1;
  }
  const done = members.filter(({ state }) => ENDED.includes(state)).length;
  const state = together(members.map((task) => task.state));
  const sub = state === "none" ? `${members.length} tasks` : `${done} of ${members.length} tasks`;
  return { id: `group:${group.id}`, fold: group.id, label: group.label, sub, state, width: members.length, counts, panel: "", mark: "layers" };
}

class Dag {
  constructor(element) {
    this.folded = null;
    this.element = element;
    this.abort = new AbortController();
    this.nodes = new Map();
    const { signal } = this.abort;
    element.addEventListener("live", () => this.load(), { signal });
    element.addEventListener("click", (event) => this.open(event.target.closest(".dag__node, .dag__fold")), { signal });
    element.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      const node = event.target.closest(".dag__node, .dag__fold");
      if (!node) return;
      event.preventDefault();
      this.open(node);
    }, { signal });
    this.resizer = new ResizeObserver(() => this.fit());
    this.resizer.observe(element);
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
        const response = await fetch(this.element.dataset.source, { signal: this.abort.signal });
        if (!response.ok) return;
        this.show(await response.json());
      } while (this.again);
    } catch (error) {
      if (error.name !== "AbortError") this.element.dataset.failed = "1";
    } finally {
      this.loading = false;
    }
  }

  // The graph with folded groups as one box each.
  fold({ tasks, edges, groups = [] }) {
    const known = new Map(groups.map((group) => [group.id, group]));
    this.folded ??= new Set(tasks.length > FOLD_ABOVE ? known.keys() : []);
    const stands = (name) => {
      let found = null;
      for (let group = known.get(name); group; group = known.get(group.parent)) if (this.folded.has(group.id)) found = group;
      return found;
    };
    const boxes = new Map();
    const shown = [];
    const place = new Map();
    for (const task of tasks) {
      const group = stands(task.group);
      place.set(task.id, group ? `group:${group.id}` : task.id);
      if (!group) shown.push(task);
      else if (boxes.has(group.id)) boxes.get(group.id).push(task);
      else boxes.set(group.id, [task]);
    }
    for (const [name, members] of boxes) shown.push(folded(known.get(name), members));
    const lines = new Map();
    for (const [from, to] of edges) {
      const [a, b] = [place.get(from), place.get(to)];
      if (a !== b) lines.set(JSON.stringify([a, b]), [a, b]);
    }
    // Groups that are open: drawn as frames around their tasks and inner groups.
    const frames = groups.filter((group) => !this.folded.has(group.id) && !stands(group.parent));
    for (const task of shown) if (task.fold) task.group = known.get(task.fold).parent;
    return { tasks: shown, edges: [...lines.values()], frames };
  }

  toggle(name) {
    if (this.folded.has(name)) this.folded.delete(name);
    else this.folded.add(name);
    this.show(this.graph);
    const twin = [...this.element.querySelectorAll("[data-fold]")].find((item) => item.dataset.fold === name);
    twin?.focus();
  }

  show(whole) {
    this.graph = whole;
    const graph = this.fold(whole);
    const shape = JSON.stringify([graph.tasks.map((task) => [task.id, task.width !== null]), graph.edges, graph.frames]);
    if (shape !== this.shape) {
      this.shape = shape;
      this.draw(graph);
    }
    for (const task of graph.tasks) this.paint(task);
    const states = new Map(graph.tasks.map((task) => [task.id, task.state]));
    for (const edge of this.edges) {
      const [from, to] = [states.get(edge.dataset.from), states.get(edge.dataset.to)];
      edge.dataset.state = from === "succeeded" ? (to === "running" || to === "queued" ? "running" : "succeeded") : "waiting";
    }
  }

  draw({ tasks, edges, frames }) {
    const down = this.element.clientWidth < 560;
    const graph = new Graph({ compound: true });
    graph.setGraph({ rankdir: down ? "TB" : "LR", nodesep: 20, ranksep: down ? 36 : 56, marginx: MARGIN, marginy: MARGIN });
    graph.setDefaultEdgeLabel(() => ({}));
    for (const task of tasks) graph.setNode(task.id, { width: WIDTH, height: task.width === null ? HEIGHT : MAPPED });
    for (const frame of frames) graph.setNode(`frame:${frame.id}`, {});
    for (const { id, parent } of frames) if (parent) graph.setParent(`frame:${id}`, `frame:${parent}`);
    for (const task of tasks) if (task.group) graph.setParent(task.id, `frame:${task.group}`);
    for (const [from, to] of edges) graph.setEdge(from, to);
    layout(graph);
    const size = graph.graph();
    this.size = { width: size.width || 1, height: size.height || 1 };
    this.edges = edges.map(([from, to]) => this.edge(from, to, anchored(graph, from, to, down), down));
    this.nodes = new Map(tasks.map((task) => [task.id, this.node(task, graph.node(task.id))]));
    const boxes = frames.map((frame) => this.frame(frame, graph.node(`frame:${frame.id}`)));
    this.svg = make("svg", { viewBox: `0 0 ${this.size.width} ${this.size.height}`, role: "group", "aria-label": "Tasks of the workflow and what they wait for" }, [
      ...boxes,
      ...this.edges,
      ...this.nodes.values(),
    ]);
    this.element.replaceChildren(this.svg);
    this.fit();
  }

  fit() {
    if (!this.svg) return;
    const room = this.element.clientWidth;
    const scale = Math.max(SMALLEST, Math.min(1, room / this.size.width));
    this.svg.setAttribute("width", this.size.width * scale);
    this.svg.setAttribute("height", this.size.height * scale);
  }

  edge(from, to, points, down) {
    const first = points[0];
    let path = `M${first.x},${first.y}`;
    for (let index = 1; index < points.length; index += 1) {
      const [a, b] = [points[index - 1], points[index]];
      const middle = down ? (a.y + b.y) / 2 : (a.x + b.x) / 2;
      path += down ? ` C${a.x},${middle} ${b.x},${middle} ${b.x},${b.y}` : ` C${middle},${a.y} ${middle},${b.y} ${b.x},${b.y}`;
    }
    const edge = make("path", { class: "dag__edge", d: path });
    edge.dataset.from = from;
    edge.dataset.to = to;
    return edge;
  }

  frame({ id, label }, { x, y, width, height }) {
    const frame = make("g", { class: "dag__frame", transform: `translate(${x - width / 2},${y - height / 2})` });
    const fold = make("g", { class: "dag__fold", tabindex: "0", role: "button", "aria-expanded": "true", "aria-label": `Fold ${label}` }, [
      make("rect", { width: Math.min(width, 9 * label.length + 24), height: 18, fill: "transparent" }),
      make("text", { class: "dag__group", x: 10, y: 14 }, [`▾ ${shorten(label, 24)}`]),
    ]);
    fold.dataset.fold = id;
    frame.append(make("rect", { class: "dag__area", width, height, rx: 12 }), fold);
    return frame;
  }

  node(task, { x, y, width, height }) {
    const [left, top] = [x - width / 2, y - height / 2];
    const node = make("g", { class: "dag__node", transform: `translate(${left},${top})`, tabindex: "0", role: "button" });
    node.dataset.task = task.id;
    if (task.fold) {
      node.dataset.fold = task.fold;
      node.setAttribute("aria-expanded", "false");
    }
    if (task.width !== null) {
      node.append(make("rect", { class: "dag__stack", x: 5, y: -5, width, height, rx: 9 }));
    }
    node.append(
      make("rect", { class: "dag__box", width, height, rx: 9 }),
      make("circle", { class: "dag__dot", cx: 17, cy: 20, r: 4.5 }),
      make("text", { class: "dag__label", x: 31, y: 24.5 }, [shorten(task.label, task.mark ? 18 : 21)]),
      make("text", { class: "dag__sub", x: 31, y: 41 }),
      make("title"),
    );
    if (task.mark && this.element.dataset.icons) {
      node.append(make("use", { class: "dag__mark", href: `${this.element.dataset.icons}#${task.mark}`, x: width - 25, y: 12, width: 15, height: 15 }));
    }
    if (task.width !== null) {
      node.append(make("rect", { class: "dag__track", x: 31, y: 50, width: width - 46, height: 4, rx: 2 }));
      for (const state of ORDER) {
        const part = make("rect", { class: "dag__part", x: 31, y: 50, width: 0, height: 4, rx: 2 });
        part.dataset.state = state;
        node.append(part);
      }
    }
    return node;
  }

  paint(task) {
    const node = this.nodes.get(task.id);
    node.dataset.state = task.state;
    node.dataset.panel = task.panel ?? "";
    const kind = task.kind && !task.sub.startsWith(task.kind) ? `, ${task.kind}` : "";
    const said = `${task.label}: ${task.state.replace("_", " ")}${task.sub ? `, ${task.sub}` : ""}${kind}`;
    node.setAttribute("aria-label", said);
    node.querySelector("title").textContent = said;
    node.querySelector(".dag__sub").textContent = shorten(task.sub, 27);
    if (task.width === null) return;
    const room = WIDTH - 46;
    let x = 31;
    for (const state of ORDER) {
      const part = node.querySelector(`.dag__part[data-state="${state}"]`);
      const width = task.width ? (room * (task.counts[state] ?? 0)) / task.width : 0;
      part.setAttribute("x", x);
      part.setAttribute("width", width);
      x += width;
    }
  }

  open(node) {
    if (node?.dataset.fold) {
      this.toggle(node.dataset.fold);
      return;
    }
    if (!node?.dataset.panel) return;
    for (const other of this.nodes.values()) other.removeAttribute("aria-current");
    node.setAttribute("aria-current", "true");
    htmx.ajax("GET", node.dataset.panel, { target: this.element.dataset.panel, swap: "innerHTML" });
  }

  stop() {
    this.abort.abort();
    this.resizer.disconnect();
  }
}

register("dag", { mount: (element) => new Dag(element), unmount: (_element, dag) => dag.stop() });
