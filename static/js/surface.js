// A canvas that stays in view while its box scrolls over something larger: the owner draws what is visible. Its
// colours are tokens of the style sheets, so that it follows the theme.

const FONT = '12px "Inter", system-ui, sans-serif';
export const STATES = {
  succeeded: "--fill-green", running: "--fill-blue", queued: "--fill-amber", deferred: "--fill-teal", waiting: "--track",
  failed: "--fill-red", upstream_failed: "--fill-orange", skipped: "--fill-violet", cancelled: "--fill-grey", none: "--track",
};
// What several tasks are together: the first of these that one of them is in.
const WORST = ["failed", "upstream_failed", "running", "queued", "deferred", "waiting", "cancelled", "succeeded", "skipped"];

export function worst(states) {
  return WORST.find((state) => states.has(state)) ?? "waiting";
}

// Which group each task is in and which one each group. An answer has {"groups": [[group, the one that it is in], …],
// "inside": for each of its lists of tasks the place of each one's group, or -1}.
export class Groups {
  constructor() {
    this.owners = new Map();
    this.parents = new Map();
  }

  take({ groups, inside }, lists) {
    if (!groups.length) this.owners.clear();
    for (const [name, parent] of groups) this.parents.set(name, parent);
    inside.forEach((places, list) => places.forEach((place, at) => this.owners.set(lists[list][at], groups[place]?.[0])));
  }

  // Those that a task is in, outermost first.
  around(task) {
    const found = [];
    for (let name = this.owners.get(task); name; name = this.parents.get(name)) found.unshift(name);
    return found;
  }

  // The tasks in their order, but those of a group together, where its first one stands.
  together(tasks) {
    const first = new Map();
    const rows = tasks.map((task, place) => ({ task, groups: this.around(task), place }));
    for (const { groups, place } of rows) for (const group of groups) if (!first.has(group)) first.set(group, place);
    const keys = new Map(rows.map(({ task, groups, place }) => [task, [...groups.map((group) => first.get(group)), place]]));
    return [...tasks].sort((one, other) => {
      const [a, b] = [keys.get(one), keys.get(other)];
      const at = a.findIndex((value, depth) => value !== b[depth]);
      return at < 0 ? 0 : a[at] - b[at];
    });
  }

  // The name of a task without the prefix of its group.
  label(task) {
    const group = this.owners.get(task);
    return group && task.startsWith(`${group}.`) ? task.slice(group.length + 1) : task;
  }
}

export class Surface {
  // draw(context, {width, height, left, top, colour}) is called when something changed; sizes in CSS pixels.
  constructor(element, draw) {
    this.element = element;
    this.draw = draw;
    this.abort = new AbortController();
    this.space = document.createElement("div");
    this.space.className = "surface__space";
    this.canvas = document.createElement("canvas");
    this.canvas.className = "surface__canvas";
    this.canvas.setAttribute("aria-hidden", "true");
    this.tip = document.createElement("div");
    this.tip.className = "surface__tip";
    this.tip.hidden = true;
    this.space.append(this.canvas);
    element.append(this.space, this.tip);
    const { signal } = this.abort;
    element.addEventListener("scroll", () => this.redraw(), { signal, passive: true });
    document.addEventListener("theme:changed", () => this.recolour(), { signal });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.recolour(), { signal });
    this.resizer = new ResizeObserver(() => this.redraw());
    this.resizer.observe(element);
    document.fonts.ready.then(() => this.redraw());
    this.colours = new Map();
  }

  size(width, height) {
    this.space.style.width = `${width}px`;
    this.space.style.height = `${height}px`;
    this.redraw();
  }

  recolour() {
    this.colours.clear();
    this.redraw();
  }

  redraw() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      this.paint();
    });
  }

  paint() {
    const { clientWidth: width, clientHeight: height, scrollLeft: left, scrollTop: top } = this.element;
    if (!width || !height) return;
    const ratio = devicePixelRatio || 1;
    const [wide, high] = [Math.round(width * ratio), Math.round(height * ratio)];
    if (this.canvas.width !== wide || this.canvas.height !== high) {
      [this.canvas.width, this.canvas.height] = [wide, high];
      this.canvas.style.width = `${width}px`;
      this.canvas.style.height = `${height}px`;
    }
    const context = this.canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    context.font = FONT;
    context.textBaseline = "middle";
    this.draw(context, { width, height, left, top, colour: (token) => this.colour(token) });
  }

  // A token as the theme has it now; light-dark() and color-mix() are resolved by the browser.
  colour(token) {
    let found = this.colours.get(token);
    if (!found) {
      this.tip.style.setProperty("--probe", `var(${token})`);
      found = getComputedStyle(this.tip).outlineColor;
      this.colours.set(token, found);
    }
    return found;
  }

  // Where the pointer is, from the corner of the visible part.
  point(event) {
    const box = this.element.getBoundingClientRect();
    return { x: event.clientX - box.left - this.element.clientLeft, y: event.clientY - box.top - this.element.clientTop };
  }

  say(text, { x, y }) {
    this.tip.hidden = !text;
    if (!text) return;
    this.tip.textContent = text;
    const room = this.element.clientWidth - this.tip.offsetWidth - 8;
    const below = y + 18 + this.tip.offsetHeight < this.element.clientHeight;
    const left = Math.max(4, Math.min(x + 12, room)) + this.element.scrollLeft;
    const top = (below ? y + 18 : y - this.tip.offsetHeight - 8) + this.element.scrollTop;
    this.tip.style.transform = `translate(${left}px, ${top}px)`;
  }

  stop() {
    cancelAnimationFrame(this.frame);
    this.abort.abort();
    this.resizer.disconnect();
    this.space.remove();
    this.tip.remove();
  }
}

// The text, cut to so many pixels.
export function clipped(context, text, room) {
  if (context.measureText(text).width <= room) return text;
  let [low, high] = [0, text.length];
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (context.measureText(`${text.slice(0, middle)}…`).width <= room) low = middle;
    else high = middle - 1;
  }
  return `${text.slice(0, low)}…`;
}
