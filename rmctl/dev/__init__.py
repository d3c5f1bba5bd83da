"""`rmctl dev`: a workflow on its author's machine, one task after the other, without a portal."""
