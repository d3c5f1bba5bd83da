"""The node agent: starts, limits, watches and reports the tasks that the portal places on this machine."""
