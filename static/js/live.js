// One socket per page. Elements say what they show (data-live-topics="run:12 queue"); a frame that names one of
// their topics makes htmx fetch their partial again (hx-trigger="live"). Frames carry hints only, so a frame
// missed, a skipped number or a reconnect is answered by fetching everything, and a slow timer is the backstop.
// Samples of nodes (telemetry:3) come in the frames themselves, for behaviours/telemetry.js; nothing is fetched.

const REFRESH_GAP = 250; // ms: at most four rounds of refreshes a second
const PART_GAP = 800; // ms between refreshes of one part, unless its data-live-gap says otherwise
const REST = 4; // and at least so many times what its last refresh took: a busy portal is asked less
const BACKSTOP = 30_000; // ms
const SETTLE = 300; // ms that the portal has to take in a subscription
const FIRST_RETRY = 400;
const LAST_RETRY = 10_000;
const CLOSE_UNAUTHENTICATED = 4401;

let socket = null;
let sequence = 0;
let retry = FIRST_RETRY;
let flushTimer = 0;
let lastFlush = 0;
const subscribed = new Set();
const dirty = new Set();
const begun = new WeakMap(); // part → when its running refresh began
const ready = new WeakMap(); // part → when it may be refreshed again

const topicsOf = (element) => element.dataset.liveTopics.split(/\s+/).filter(Boolean);
const liveElements = () => [...document.querySelectorAll("[data-live-topics]")];

function showState(state, text) {
  for (const dot of document.querySelectorAll("[data-live-state]")) {
    dot.dataset.state = state;
    dot.title = text;
    dot.querySelector("[data-live-text]").textContent = state === "live" ? "Live" : state === "offline" ? "Offline" : "Connecting";
  }
}

function syncTopics() {
  const wanted = new Set(liveElements().flatMap(topicsOf));
  const add = [...wanted].filter((topic) => !subscribed.has(topic));
  const drop = [...subscribed].filter((topic) => !wanted.has(topic));
  if (wanted.size && !socket) connect();
  if (socket?.readyState !== WebSocket.OPEN || (!add.length && !drop.length)) return;
  add.forEach((topic) => subscribed.add(topic));
  drop.forEach((topic) => subscribed.delete(topic));
  socket.send(JSON.stringify({ subscribe: add, unsubscribe: drop }));
}

function connect() {
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  socket = new WebSocket(`${scheme}//${location.host}/ws/live/`);
  socket.onopen = () => {
    sequence = 0;
    retry = FIRST_RETRY;
    subscribed.clear();
    showState("live", "Live: changes appear by themselves");
    syncTopics();
    // What happened between the page's making (or the loss of the last socket) and the subscription is in no frame.
    setTimeout(refreshAll, SETTLE);
  };
  socket.onmessage = (message) => receive(JSON.parse(message.data));
  socket.onclose = (event) => {
    socket = null;
    if (event.code === CLOSE_UNAUTHENTICATED) {
      showState("offline", "You are signed out");
      return;
    }
    showState("offline", "No connection to the portal; trying again");
    setTimeout(syncTopics, retry * (0.75 + Math.random() / 2));
    retry = Math.min(retry * 2, LAST_RETRY);
  };
}

function receive(frame) {
  if (frame.telemetry) document.dispatchEvent(new CustomEvent("live:telemetry", { detail: frame.telemetry }));
  if (frame.seq === undefined) return;
  const skipped = frame.seq !== sequence + 1;
  sequence = frame.seq;
  if (skipped) return refreshAll();
  const changed = new Set(frame.topics);
  if (changed.size) markDirty(liveElements().filter((element) => topicsOf(element).some((topic) => changed.has(topic))));
}

function markDirty(elements) {
  elements.forEach((element) => dirty.add(element));
  if (!dirty.size || flushTimer || document.hidden) return;
  flushTimer = setTimeout(flush, Math.max(0, REFRESH_GAP - (performance.now() - lastFlush)));
}

function flush() {
  flushTimer = 0;
  lastFlush = performance.now();
  const elements = [...dirty];
  dirty.clear();
  for (const element of elements) {
    if (!element.isConnected) continue;
    if (begun.has(element) || (ready.get(element) ?? 0) > lastFlush) {
      dirty.add(element);
      continue;
    }
    ready.set(element, lastFlush + Number(element.dataset.liveGap ?? PART_GAP));
    // Not bubbling: the refresh of a part is no refresh of what it stands in.
    element.dispatchEvent(new CustomEvent("live"));
  }
  markDirty([]);
}

function refreshAll() {
  markDirty(liveElements());
}

export function start() {
  document.addEventListener("htmx:beforeRequest", ({ target }) => begun.set(target, performance.now()));
  document.addEventListener("htmx:afterRequest", ({ target }) => {
    const now = performance.now();
    ready.set(target, Math.max(ready.get(target) ?? 0, now + REST * (now - (begun.get(target) ?? now))));
    begun.delete(target);
  });
  document.addEventListener("visibilitychange", () => document.hidden || markDirty([]));
  document.addEventListener("htmx:afterSettle", syncTopics);
  setInterval(() => document.hidden || refreshAll(), BACKSTOP);
  if (liveElements().length) syncTopics();
  // On a page where nothing changes by itself the dot would say nothing.
  else for (const dot of document.querySelectorAll("[data-live-state]")) dot.hidden = true;
}
