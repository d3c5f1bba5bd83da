// A form whose rows come and go: a button with data-row-add="kind" copies the <template data-row-blank="kind"> to the
// end of [data-rows], with the next number in place of __N__; a button with data-row-drop removes its row.

const MARKED = ["id", "name", "for", "aria-describedby"];

export function mount(form) {
  const abort = new AbortController();
  let next = Number(form.dataset.next ?? 0);
  const rows = form.querySelector("[data-rows]");
  const count = () => form.toggleAttribute("data-empty", !rows.querySelector("[data-row]"));

  function add(kind) {
    const blank = form.querySelector(`template[data-row-blank="${CSS.escape(kind)}"]`);
    const row = blank.content.firstElementChild.cloneNode(true);
    for (const element of [row, ...row.querySelectorAll("*")]) {
      for (const name of MARKED) {
        const value = element.getAttribute(name);
        if (value?.includes("__N__")) element.setAttribute(name, value.replaceAll("__N__", next));
      }
    }
    next += 1;
    rows.append(row);
    row.querySelector("input:not([type=hidden]), select")?.focus();
    count();
  }

  form.addEventListener("click", (event) => {
    const adds = event.target.closest("[data-row-add]");
    if (adds) return add(adds.dataset.rowAdd);
    const drops = event.target.closest("[data-row-drop]");
    if (!drops) return;
    drops.closest("[data-row]").remove();
    count();
  }, { signal: abort.signal });
  count();
  return abort;
}

export function unmount(_form, abort) {
  abort.abort();
}
