// Ctrl-K (or /): a dialog that jumps to pages, jobs, runs, workflows and nodes. The server finds them; arrow keys
// choose one, Enter goes there.

export function mount(dialog) {
  const input = dialog.querySelector("input");
  const results = dialog.querySelector("[data-palette-results]");
  const items = () => [...results.querySelectorAll(".palette__item")];
  const choose = (index) => {
    const list = items();
    list.forEach((item, position) => item.setAttribute("aria-selected", String(position === index)));
    list[index]?.scrollIntoView({ block: "nearest" });
    if (list[index]) input.setAttribute("aria-activedescendant", list[index].id);
  };
  const chosen = () => items().findIndex((item) => item.getAttribute("aria-selected") === "true");
  const open = () => {
    if (dialog.open) return;
    dialog.showModal();
    input.select();
    htmx.trigger(input, "palette");
  };
  const shortcut = (event) => {
    const typing = event.target.closest?.("input, textarea, select, [contenteditable]");
    if ((event.key === "k" && (event.ctrlKey || event.metaKey)) || (event.key === "/" && !typing)) {
      event.preventDefault();
      open();
    }
  };
  const opener = (event) => event.target.closest("[data-palette-open]") && open();
  dialog.addEventListener("keydown", (event) => {
    const count = items().length;
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      if (count) choose((chosen() + (event.key === "ArrowDown" ? 1 : -1) + count) % count);
    } else if (event.key === "Enter") {
      event.preventDefault();
      items()[Math.max(0, chosen())]?.click();
    }
  });
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  results.addEventListener("htmx:afterSwap", () => choose(0));
  document.addEventListener("keydown", shortcut);
  document.addEventListener("click", opener);
  return { shortcut, opener };
}

export function unmount(_dialog, { shortcut, opener }) {
  document.removeEventListener("keydown", shortcut);
  document.removeEventListener("click", opener);
}
