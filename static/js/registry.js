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
    if (element.isConnected) continue;
    mounted.delete(element);
    for (const [name, state] of states) behaviors.get(name).unmount?.(element, state);
  }
}

export function start() {
  mountTree(document.documentElement);
  new MutationObserver((records) => {
    let removed = false;
    for (const record of records) {
      removed ||= record.removedNodes.length > 0;
      for (const node of record.addedNodes) if (node.nodeType === Node.ELEMENT_NODE && node.isConnected) mountTree(node);
    }
    if (removed) unmountGone();
  }).observe(document.documentElement, { childList: true, subtree: true });
}
