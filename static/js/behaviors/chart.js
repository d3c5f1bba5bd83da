// A Plotly figure from data-source, or in data-figure (JSON made by apps/console/figures.py). Colours are token names such as
// "var(--blue)", resolved here so that a figure follows the theme. Redrawn when its topic is announced, and every
// data-every seconds.

import { register } from "../registry.js";

const CONFIG = { displayModeBar: false, responsive: true, scrollZoom: false };

function resolver() {
  const probe = document.createElement("span");
  probe.hidden = true;
  document.body.append(probe);
  const known = new Map();
  const colour = (token) => {
    if (!known.has(token)) {
      probe.style.color = token;
      known.set(token, getComputedStyle(probe).color);
    }
    return known.get(token);
  };
  const walk = (value) => {
    if (typeof value === "string") return value.startsWith("var(") ? colour(value) : value;
    if (Array.isArray(value)) return value.map(walk);
    if (value && typeof value === "object") return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, walk(item)]));
    return value;
  };
  return { walk, done: () => probe.remove() };
}

class Chart {
  constructor(element) {
    this.element = element;
    this.plot = element.querySelector("[data-chart-plot]");
    this.empty = element.querySelector("[data-chart-empty]");
    this.abort = new AbortController();
    const { signal } = this.abort;
    element.addEventListener("live", () => this.load(), { signal });
    document.addEventListener("theme:changed", () => this.draw(), { signal });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw(), { signal });
    const every = Number(element.dataset.every);
    this.timer = every ? setInterval(() => document.hidden || this.load(), every * 1000) : 0;
    this.load();
  }

  async load() {
    if (this.element.dataset.figure) {
      this.figure = JSON.parse(this.element.dataset.figure);
      return this.draw();
    }
    try {
      const response = await fetch(this.element.dataset.source, { signal: this.abort.signal });
      if (!response.ok) return;
      this.figure = await response.json();
      this.draw();
    } catch (error) {
      if (error.name !== "AbortError") this.empty.textContent = "The figures cannot be read just now.";
    }
  }

  draw() {
    if (!this.figure) return;
    const blank = !this.figure.data.some((trace) => (trace.y ?? trace.values ?? []).length);
    this.empty.hidden = !blank;
    this.plot.hidden = blank;
    if (blank) {
      this.empty.textContent = this.element.dataset.blank ?? "Nothing measured yet.";
      return;
    }
    const { walk, done } = resolver();
    const figure = walk(this.figure);
    done();
    Plotly.react(this.plot, figure.data, { ...figure.layout, autosize: true }, CONFIG);
  }

  stop() {
    clearInterval(this.timer);
    this.abort.abort();
    if (this.plot.data) Plotly.purge(this.plot);
  }
}

register("chart", { mount: (element) => new Chart(element), unmount: (_element, chart) => chart.stop() });
