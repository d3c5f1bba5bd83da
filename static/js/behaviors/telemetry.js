// Live bars of one node: data-node names it, [data-metric] inside are its parts. Samples come with the live frames
// and go straight into the page; nothing is fetched.

import { bytes } from "../format.js";

// A sample leaves out what is zero.
const METRICS = {
  cpu: {
    percent: (sample) => sample.cpu_percent ?? 0,
    text: (sample) => `${Math.round(sample.cpu_percent ?? 0)} %`,
  },
  memory: {
    pressure: true,
    percent: (sample) => (sample.memory_total ? (100 * (sample.memory_used ?? 0)) / sample.memory_total : 0),
    text: (sample) => bytes(sample.memory_used ?? 0),
  },
  tasks: { percent: () => 0, text: (sample) => String(sample.tasks ?? 0) },
};

function show(element, sample) {
  for (const part of element.querySelectorAll("[data-metric]")) {
    const metric = METRICS[part.dataset.metric];
    const rect = part.querySelector("rect");
    if (!rect) {
      part.textContent = metric.text(sample);
      continue;
    }
    const percent = Math.max(0, Math.min(100, metric.percent(sample)));
    rect.setAttribute("width", `${percent.toFixed(1)}%`);
    rect.setAttribute("class", metric.pressure && percent >= 95 ? "is-full" : metric.pressure && percent >= 85 ? "is-warn" : "is-running");
  }
  if (element.dataset.level !== undefined) {
    element.dataset.level = String(Math.min(9, Math.ceil((sample.cpu_percent ?? 0) / 11)));
  }
}

export function mount(element) {
  const receive = ({ detail }) => detail[element.dataset.node] && show(element, detail[element.dataset.node]);
  document.addEventListener("live:telemetry", receive);
  return receive;
}

export function unmount(_element, receive) {
  document.removeEventListener("live:telemetry", receive);
}
