// A short message in the corner; the page has one [data-toasts] with a <template> for them.

export function toast(text, state = "running") {
  const holder = document.querySelector("[data-toasts]");
  if (!holder) return;
  const item = holder.querySelector("template").content.firstElementChild.cloneNode(true);
  item.dataset.state = state;
  item.querySelector("[data-toast-text]").textContent = text;
  holder.append(item);
}
