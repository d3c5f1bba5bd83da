"""`./portal status` and `./portal logs`: looking at a portal without touching it."""

import argparse
import json
import time
from pathlib import Path

from .console import Console, Refusal
from .folder import DataFolder
from .processes import proportional_memory

FOLLOW_SECONDS = 0.2
NOT_RUNNING = 3


def status(options: argparse.Namespace) -> int:
    """A table of the processes; exit status 3 when the portal does not run, 1 when a process or server is not ready."""
    console = Console()
    data = DataFolder(options.data)
    launcher = data.running()
    state = data.state() if launcher is not None else {}
    rows = []
    now = time.time()
    services = state.get("services", {})
    if launcher is not None:
        own = {
            "pid": launcher.pid,
            "state": "ready",
            "restarts": 0,
            "started_at": state.get("started_at", now),
        }
        services = {"portal": own, **services}
    for name, service in services.items():
        pid = service["pid"]
        # The launcher is every other's parent, so it is counted alone.
        memory = proportional_memory(pid, descendants=name != "portal") if pid else None
        uptime = now - service["started_at"] if pid else None
        rows.append({"name": name, **service, "uptime_seconds": uptime, "pss_bytes": memory})
    outside = state.get("outside", {})
    if options.json:
        found = {
            "running": launcher is not None,
            "data": str(data.path),
            "url": state.get("url"),
            "processes": rows,
            "outside": [{"name": name, **server} for name, server in outside.items()],
        }
        print(json.dumps(found, indent=2))
    elif launcher is None:
        console.line(f"No portal runs on {data.path}. Start one with ./portal up.")
    else:
        console.line(f"{state.get('url') or 'starting'}   data folder {data.path}")
        for line in table(rows):
            console.line(line)
        for name, server in outside.items():
            console.line(f"{name:<10}{'-':>8}  {server['state']:<11}outside, at {server['address']}")
    if launcher is None:
        return NOT_RUNNING
    return 0 if all(row["state"] == "ready" for row in [*rows, *outside.values()]) else 1


def table(rows: list[dict[str, object]]) -> list[str]:
    """The lines of the status table, with the sum of memory at the end."""
    lines = [f"{'PROCESS':<10}{'PID':>8}  {'STATE':<11}{'RESTARTS':>8}{'UPTIME':>10}{'MEMORY':>12}"]
    total = 0
    for row in rows:
        memory, uptime = row["pss_bytes"], row["uptime_seconds"]
        total += memory if isinstance(memory, int) else 0
        size = f"{memory / 2**20:.1f} MiB" if isinstance(memory, int) else "-"
        age = duration(uptime) if isinstance(uptime, float) else "-"
        lines.append(
            f"{row['name']:<10}{row['pid'] or '-':>8}  {row['state']:<11}{row['restarts']:>8}{age:>10}{size:>12}"
        )
    return [*lines, f"{'total':<49}{f'{total / 2**20:.1f} MiB':>12}"]


def duration(seconds: float) -> str:
    """Seconds as 12 s, 3 min, 5 h or 2 d."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def logs(options: argparse.Namespace) -> int:
    """Print the end of one log or of all; with --follow go on until Ctrl-C."""
    data = DataFolder(options.data)
    known = {path.stem: path for path in sorted(data.log.glob("*.log"))} if data.log.is_dir() else {}
    if options.name is not None:
        if options.name not in known:
            names = ", ".join(known) or "none yet"
            raise Refusal(f"There is no log of {options.name!r} in {data.log}. Logs: {names}.")
        known = {options.name: known[options.name]}
    if not known:
        raise Refusal(f"{data.log} has no logs yet. Start the portal with ./portal up.")
    width = 0 if options.name else max(map(len, known)) + 2
    tails = {name: Tail(path, options.lines) for name, path in known.items()}
    try:
        while True:
            for name, log in tails.items():
                for line in log.read():
                    print(f"{name:<{width}}{line}" if width else line)
            if not options.follow:
                return 0
            print(end="", flush=True)
            time.sleep(FOLLOW_SECONDS)
    except (BrokenPipeError, KeyboardInterrupt):
        return 0


class Tail:
    """The last lines of a growing file, then what is added; starts over when the file is replaced."""

    def __init__(self, path: Path, lines: int) -> None:
        self.path = path
        self.rest = b""
        self.offset = 0
        self.inode = 0
        self.first = lines

    def read(self) -> list[str]:
        """The whole lines that are new since the last call."""
        try:
            found = self.path.stat()
            if found.st_ino != self.inode or found.st_size < self.offset:
                self.inode, self.offset, self.rest = found.st_ino, 0, b""
            with self.path.open("rb") as file:
                file.seek(self.offset)
                added = file.read()
        except OSError:
            return []
        self.offset += len(added)
        *lines, self.rest = (self.rest + added).split(b"\n")
        if self.first >= 0:
            lines = lines[-self.first :] if self.first else []
            self.first = -1
        return [line.decode(errors="replace") for line in lines]
