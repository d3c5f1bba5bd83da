// Copies data-copy (or the text of the element it names by id in data-copy-from) and says so on the button.

export function mount(button) {
  const icon = button.querySelector("use");
  const before = icon?.getAttribute("href");
  button.addEventListener("click", async () => {
    const text = button.dataset.copy ?? document.getElementById(button.dataset.copyFrom).textContent;
    await navigator.clipboard.writeText(text);
    icon?.setAttribute("href", before.replace(/#.*/, "#check"));
    button.setAttribute("aria-label", "Copied");
    setTimeout(() => icon?.setAttribute("href", before), 1500);
  });
}
