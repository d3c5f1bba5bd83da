// Times that stay true while the page is open: "3 min ago", and with data-count durations that run on.

import { duration, relative } from "../format.js";

const shown = new Set();
let timer = 0;

function update(element) {
  const seconds = (Date.now() - Date.parse(element.dateTime)) / 1000;
  const text = "count" in element.dataset ? duration(Math.max(0, seconds)) : relative(seconds);
  if (element.textContent !== text) element.textContent = text;
}

export function mount(element) {
  shown.add(element);
  timer ||= setInterval(() => shown.forEach(update), 1000);
}

export function unmount(element) {
  shown.delete(element);
  if (shown.size) return;
  clearInterval(timer);
  timer = 0;
}
