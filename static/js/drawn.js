// Says in the browser's own timings when a behaviour first showed what it was there to show: the mark "<name>:drawn",
// set in the task after the frame that paints it. `./portal bench pages` and a browser's profiler read it.

const said = new WeakSet();

export function drawn(element, name) {
  if (said.has(element)) return;
  said.add(element);
  requestAnimationFrame(() => setTimeout(() => performance.mark(`${name}:drawn`)));
}
