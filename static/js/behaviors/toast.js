// A message that leaves by itself; failures stay until they are closed.

const STAY = 6000; // ms

export function mount(element) {
  element.querySelector("button").addEventListener("click", () => element.remove());
  return element.dataset.state === "failed" ? 0 : setTimeout(() => element.remove(), STAY);
}

export function unmount(_element, timer) {
  clearTimeout(timer);
}
