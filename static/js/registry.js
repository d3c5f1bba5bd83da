// Behaviours: small modules bound to elements by data-behavior="name other-name".
// A behaviour is { mount(element) → state, unmount(element, state) }. The registry mounts what is in the page and
// what htmx brings in later, and unmounts what leaves it, so that timers and listeners never outlive their element.

const behaviors = new Map();
const mounted = new Map();

export function register(name, behavior) {
  behaviors.set(name, behavior);
  for (const element of document.querySelectorAll(`[data-behavior~="${name}"]`)) mountOne(element, name);
}

function mountOne(element, name) {
  const behavior = behaviors.get(name);
  if (!behavior) return;
  const states = mounted.get(element) ?? new Map();
  if (states.has(name)) return;
  mounted.set(element, states);
  states.set(name, behavior.mount(element));
}

function mountTree(root) {
  const elements = root.matches("[data-behavior]") ? [root] : [];
  for (const element of [...elements, ...root.querySelectorAll("[data-behavior]")]) {
    for (const name of element.dataset.behavior.split(/\s+/)) mountOne(element, name);
  }
}

function unmountGone() {
  for (const [element, states] of mounted) {
    const wanted = element.isConnected ? (element.dataset.behavior ?? "").split(/\s+/) : [];
    for (const [name, state] of states) {
      if (wanted.includes(name)) continue;
      states.delete(name);
      behaviors.get(name).unmount?.(element, state);
    }
    if (!states.size) mounted.delete(element);
  }
}

export function start() {
  mountTree(document.documentElement);
  new MutationObserver((records) => {
    // A morph may also turn an element into another one in place, so the attribute counts as well.
    if (records.some((record) => record.type === "attributes" || record.removedNodes.length)) unmountGone();
    for (const record of records) {
      const nodes = record.type === "attributes" ? [record.target] : record.addedNodes;
      for (const node of nodes) if (node.nodeType === Node.ELEMENT_NODE && node.isConnected) mountTree(node);
    }
  }).observe(document.documentElement, { childList: true, subtree: true, attributeFilter: ["data-behavior"] });
}
