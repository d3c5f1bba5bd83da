// Chooses light, dark or the system's theme; the cookie lets the server render the next page in it at once.

const YEAR = 31_536_000; // seconds

export function mount(button) {
  button.addEventListener("click", () => {
    const choice = button.dataset.themeChoice;
    const root = document.documentElement;
    if (choice === "system") delete root.dataset.theme;
    else root.dataset.theme = choice;
    document.cookie = `theme=${choice}; path=/; max-age=${YEAR}; samesite=lax`;
    for (const other of document.querySelectorAll("[data-theme-choice]")) {
      other.setAttribute("aria-checked", String(other.dataset.themeChoice === choice));
    }
    document.dispatchEvent(new CustomEvent("theme:changed"));
    button.closest("details")?.removeAttribute("open");
  });
}
