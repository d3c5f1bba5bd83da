// The sidebar is a popover on phones; following a link inside it closes it.

export function mount(sidebar) {
  sidebar.addEventListener("click", (event) => {
    if (event.target.closest("a") && sidebar.matches(":popover-open")) sidebar.hidePopover();
  });
}
