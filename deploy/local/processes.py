"""Processes as /proc shows them: who they are, whether they are still the same, what memory they hold."""

import ctypes
import json
import os
import select
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PR_SET_PDEATHSIG = 1

libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Identified:
    """A process that cannot be mistaken for a later one with the same pid."""

    pid: int
    started: int
    boot: str

    @classmethod
    def of(cls, pid: int) -> "Identified | None":
        """The process with this pid, or None when there is none (a zombie is none)."""
        try:
            stat = Path(f"/proc/{pid}/stat").read_bytes()
        except OSError:
            return None
        # The name in parentheses may hold anything, so count from the last parenthesis (proc_pid_stat(5)).
        fields = stat[stat.rindex(b")") + 2 :].split()
        if fields[0] in (b"Z", b"X"):
            return None
        return cls(pid, int(fields[19]), boot_id())

    @classmethod
    def read(cls, path: Path) -> "Identified | None":
        """The process that a pid file names, if it still lives and really is that one."""
        try:
            content = json.loads(path.read_text())
            recorded = cls(int(content["pid"]), int(content["started"]), str(content["boot"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return recorded if recorded.alive() else None

    def write(self, path: Path) -> None:
        """Write a pid file."""
        write_file(path, json.dumps({"pid": self.pid, "started": self.started, "boot": self.boot}))

    def alive(self) -> bool:
        return Identified.of(self.pid) == self

    def signal(self, number: int) -> None:
        """Send a signal; a process that has gone, or is another's, is left alone."""
        with suppress(ProcessLookupError, PermissionError):
            if self.alive():
                os.kill(self.pid, number)

    def wait(self, seconds: float) -> bool:
        """Wait for its end, also when it is no child of ours; False when the seconds ran out."""
        deadline = time.monotonic() + seconds
        try:
            descriptor = os.pidfd_open(self.pid)
        except OSError:
            descriptor = -1
        try:
            while self.alive():
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                if descriptor >= 0:
                    select.select([descriptor], [], [], min(left, 1.0))
                else:
                    time.sleep(min(left, 0.05))
            return True
        finally:
            if descriptor >= 0:
                os.close(descriptor)

    def end(self, *steps: tuple[int, float]) -> bool:
        """Send each signal in turn and give it its seconds; True as soon as the process has gone."""
        for number, seconds in steps:
            self.signal(number)
            if self.wait(seconds):
                return True
        return not self.alive()


def boot_id() -> str:
    """Differs after each start of the machine, since start times count from there."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def write_file(path: Path, content: str, mode: int = 0o600) -> None:
    """Replace a small file in one step, so that a reader never sees half of it."""
    partial = path.with_name(f".{path.name}.partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w") as file:
        file.write(content)
    os.replace(partial, path)


def die_with_parent(parent: int, number: int) -> None:
    """In a child before exec: be sent `number` when the parent (its pid) ends in whatever way."""
    libc.prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def inside(folder: Path, mention: bool = False) -> list[Identified]:
    """Processes whose working folder is in `folder`; with `mention`, also those whose command line names it."""
    top = os.path.realpath(folder)
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            working = os.readlink(f"/proc/{entry}/cwd").removesuffix(" (deleted)")
            hit = working == top or working.startswith(top + "/")
            if mention and not hit:
                hit = f"{top}/".encode() in Path(f"/proc/{entry}/cmdline").read_bytes()
        except OSError:
            continue
        process = Identified.of(int(entry)) if hit else None
        if process is not None:
            found.append(process)
    return found


def end_all(processes: list[Identified], *steps: tuple[int, float]) -> None:
    """Send each signal to all that still live, and give them its seconds together."""
    for number, seconds in steps:
        living = [process for process in processes if process.alive()]
        for process in living:
            process.signal(number)
        deadline = time.monotonic() + seconds
        for process in living:
            process.wait(max(0.0, deadline - time.monotonic()))


def family(pid: int) -> list[int]:
    """The process and all its descendants."""
    members = [pid]
    for member in members:
        with suppress(OSError):
            for task in os.listdir(f"/proc/{member}/task"):
                text = Path(f"/proc/{member}/task/{task}/children").read_text()
                members += [int(child) for child in text.split()]
    return members


def proportional_memory(pid: int, descendants: bool = True) -> int | None:
    """Bytes of memory of the process and its descendants, shared pages divided by their users (PSS).

    None when the process has gone or the kernel does not tell.
    """
    total = 0
    for member in family(pid) if descendants else [pid]:
        try:
            lines = Path(f"/proc/{member}/smaps_rollup").read_text().splitlines()
        except OSError:
            if member == pid:
                return None
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total
