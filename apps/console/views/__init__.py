"""Pages, split by area: each view parses, asks a query or gives a command, and renders."""
