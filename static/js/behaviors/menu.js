// A <details> as a menu: closes on Escape, on a click elsewhere and when focus leaves; arrow keys move.

export function mount(details) {
  const items = () => [...details.querySelectorAll(".menu__item:not([hidden])")];
  const close = (event) => {
    if (details.open && !details.contains(event.target)) details.open = false;
  };
  const keys = (event) => {
    if (!details.open) return;
    if (event.key === "Escape") {
      details.open = false;
      details.querySelector("summary").focus();
    } else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      const list = items();
      const step = event.key === "ArrowDown" ? 1 : -1;
      list[(list.indexOf(document.activeElement) + step + list.length) % list.length]?.focus();
    }
  };
  document.addEventListener("click", close);
  details.addEventListener("keydown", keys);
  details.addEventListener("focusout", (event) => event.relatedTarget && close({ target: event.relatedTarget }));
  return close;
}

export function unmount(_details, close) {
  document.removeEventListener("click", close);
}
