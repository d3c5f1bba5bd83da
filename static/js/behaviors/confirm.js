// Asks before a form does something that cannot be undone: data-confirm-title, -text, -label on the form.

export function mount(form) {
  const dialog = document.querySelector("[data-confirm-dialog]");
  const ask = (event) => {
    if (form.dataset.confirmed) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    dialog.querySelector("[data-confirm-title]").textContent = form.dataset.confirmTitle;
    dialog.querySelector("[data-confirm-text]").textContent = form.dataset.confirmText ?? "";
    const button = dialog.querySelector("[data-confirm-do]");
    button.textContent = form.dataset.confirmLabel ?? "Do it";
    dialog.returnValue = "";
    dialog.onclose = () => {
      if (dialog.returnValue !== "do") return;
      form.dataset.confirmed = "1";
      form.requestSubmit(event.submitter);
      delete form.dataset.confirmed;
    };
    dialog.showModal();
  };
  form.addEventListener("submit", ask, { capture: true });
}
