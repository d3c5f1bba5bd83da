// A workflow's graph: laid out by dagre, drawn as SVG, repainted in place when its run is announced. data-source
// answers {"tasks": [{id, label, sub, state, width, counts, panel, parent, icon, kind}], "edges": [[from, to], …],
// "groups": [{id, label, parent}], "path": pairs of the longest path} (apps/console/folding.py). A task opens its panel
// (an htmx partial) in the element that data-panel names; a box with `group` opens into its tasks, the name of an open
// group closes it. A button with data-dag-path="<id of the graph>" shows and hides the path, for all graphs from then
// on. data-icons is the sprite of the icons.

import { drawn } from "../drawn.js";
import { register } from "../registry.js";
import { Graph, layout } from "../../vendor/dagre-3.1.3/dagre.esm.js";

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 196;
const HEIGHT = 52;
const MAPPED = 64;
const MARGIN = 24;
const SMALLEST = 0.7;
const HIDDEN = "dag-path-hidden"; // in localStorage where the path is not to be seen
const ORDER = ["succeeded", "running", "failed", "skipped"];

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

class Dag {
  constructor(element) {
    this.element = element;
    this.abort = new AbortController();
    this.nodes = new Map();
    this.opened = null; // groups that are open, once somebody has opened or closed one
    const { signal } = this.abort;
    element.addEventListener("live", () => this.load(), { signal });
    element.addEventListener("click", (event) => this.open(event.target.closest("[data-task], [data-group]")), { signal });
    element.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      const node = event.target.closest("[data-task], [data-group]");
      if (!node) return;
      event.preventDefault();
      this.open(node);
    }, { signal });
    this.pathButton = document.querySelector(`[data-dag-path="${element.id}"]`);
    this.pathButton?.addEventListener("click", () => this.showPath(element.classList.contains("is-pathless")), { signal });
    if (localStorage.getItem(HIDDEN)) this.showPath(false);
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
        const response = await fetch(this.address(), { signal: this.abort.signal });
        if (!response.ok) return;
        this.show(await response.json());
      } while (this.again);
    } catch (error) {
      if (error.name !== "AbortError") this.element.dataset.failed = "1";
    } finally {
      this.loading = false;
    }
  }

  address() {
    const address = new URL(this.element.dataset.source, location.href);
    if (this.opened) {
      address.searchParams.set("open", "");
      for (const group of this.opened) address.searchParams.append("open", group);
    }
    return address;
  }

  show(graph) {
    this.groups = graph.groups;
    const shape = JSON.stringify([graph.tasks.map((task) => [task.id, task.width !== null, task.parent, task.icon]), graph.edges]);
    if (shape !== this.shape) {
      this.shape = shape;
      this.draw(graph);
    }
    for (const task of graph.tasks) this.paint(task);
    const states = new Map(graph.tasks.map((task) => [task.id, task.state]));
    const critical = new Set(graph.path.map((pair) => pair.join("\n")));
    for (const edge of this.edges) {
      const [from, to] = [states.get(edge.dataset.from), states.get(edge.dataset.to)];
      edge.dataset.state = from === "succeeded" ? (to === "running" || to === "queued" ? "running" : "succeeded") : "waiting";
      edge.toggleAttribute("data-critical", critical.has(`${edge.dataset.from}\n${edge.dataset.to}`));
    }
    drawn(this.element, "graph");
  }

  draw({ tasks, edges, groups }) {
    const down = this.element.clientWidth < 560;
    const graph = new Graph({ compound: true });
    graph.setGraph({ rankdir: down ? "TB" : "LR", nodesep: 20, ranksep: down ? 36 : 56, marginx: MARGIN, marginy: MARGIN });
    graph.setDefaultEdgeLabel(() => ({}));
    for (const task of tasks) graph.setNode(task.id, { width: WIDTH, height: task.width === null ? HEIGHT : MAPPED });
    for (const { id } of groups) graph.setNode(`${id}.`, {});
    for (const { id, parent } of groups) if (parent) graph.setParent(`${id}.`, `${parent}.`);
    for (const { id, parent } of tasks) if (parent) graph.setParent(id, `${parent}.`);
    for (const [from, to] of edges) graph.setEdge(from, to);
    layout(graph);
    const size = graph.graph();
    this.size = { width: size.width || 1, height: size.height || 1 };
    this.edges = edges.map(([from, to]) => this.edge(from, to, anchored(graph, from, to, down), down));
    this.nodes = new Map(tasks.map((task) => [task.id, this.node(task, graph.node(task.id))]));
    this.svg = make("svg", { viewBox: `0 0 ${this.size.width} ${this.size.height}`, role: "group", "aria-label": "Tasks of the workflow and what they wait for" }, [
      ...groups.map((group) => this.group(group, graph.node(`${group.id}.`))),
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

  group({ id, label }, { x, y, width, height }) {
    const name = make("g", { class: "dag__close", tabindex: "0", role: "button", "aria-label": `Close the group ${id}`, transform: "translate(10,15)" }, [
      make("text", { class: "dag__group-name" }, [`▾ ${label}`]),
    ]);
    name.dataset.group = id;
    return make("g", { class: "dag__group", transform: `translate(${x - width / 2},${y - height / 2})` }, [
      make("rect", { class: "dag__group-box", width, height, rx: 12 }),
      name,
    ]);
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

  node(task, { x, y, width, height }) {
    const [left, top] = [x - width / 2, y - height / 2];
    const node = make("g", { class: "dag__node", transform: `translate(${left},${top})`, tabindex: "0", role: "button" });
    node.dataset.task = task.id;
    if (task.width !== null) {
      node.append(make("rect", { class: "dag__stack", x: 5, y: -5, width, height, rx: 9 }));
    }
    node.append(
      make("rect", { class: "dag__box", width, height, rx: 9 }),
      make("circle", { class: "dag__dot", cx: 17, cy: 20, r: 4.5 }),
      make("text", { class: "dag__label", x: 31, y: 24.5 }, [shorten(task.group ? `▸ ${task.label}` : task.label, task.icon ? 18 : 21)]),
      make("text", { class: "dag__sub", x: 31, y: 41 }),
      make("title"),
    );
    if (task.icon && this.element.dataset.icons) {
      node.append(make("use", { class: "dag__icon", href: `${this.element.dataset.icons}#${task.icon}`, x: width - 25, y: 12, width: 15, height: 15 }));
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
    node.toggleAttribute("data-critical", Boolean(task.critical));
    if (task.group) node.dataset.group = task.id;
    else delete node.dataset.group;
    if (task.mark) node.dataset.mark = task.mark;
    else delete node.dataset.mark;
    const kind = task.sub.startsWith(task.kind) ? "" : task.kind;
    const said = [task.id, task.state === "none" ? "" : task.state.replace("_", " "), task.sub, kind, task.mark].filter(Boolean).join(", ");
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
    if (node?.dataset.group) return this.toggle(node.dataset.group);
    if (!node?.dataset.panel) return;
    for (const other of this.nodes.values()) other.removeAttribute("aria-current");
    node.setAttribute("aria-current", "true");
    htmx.ajax("GET", node.dataset.panel, { target: this.element.dataset.panel, swap: "innerHTML" });
  }

  toggle(group) {
    this.opened ??= new Set(this.groups.map(({ id }) => id));
    if (this.opened.has(group)) this.opened.delete(group);
    else this.opened.add(group);
    this.load();
  }

  showPath(shown) {
    this.element.classList.toggle("is-pathless", !shown);
    this.pathButton?.setAttribute("aria-pressed", String(shown));
    if (shown) localStorage.removeItem(HIDDEN);
    else localStorage.setItem(HIDDEN, "1");
  }

  stop() {
    this.abort.abort();
    this.resizer.disconnect();
  }
}

register("dag", { mount: (element) => new Dag(element), unmount: (_element, dag) => dag.stop() });
