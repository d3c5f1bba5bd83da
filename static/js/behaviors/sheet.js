// A dialog whose content htmx fetches: it opens when that has come, and anything with data-sheet-close closes it.

import { register } from "../registry.js";

function mount(dialog) {
  const swapped = ({ target }) => {
    if (target === dialog && !dialog.open) dialog.showModal();
  };
  const clicked = ({ target }) => {
    if (target.closest("[data-sheet-close]")) dialog.close();
  };
  const closed = () => dialog.replaceChildren();
  dialog.addEventListener("htmx:afterSwap", swapped);
  dialog.addEventListener("click", clicked);
  dialog.addEventListener("close", closed);
}

register("sheet", { mount });
