"""Watching and ending the processes of a task, by what the Linux kernel says about them."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path

from rmctl.agent import cgroups


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def start_ticks(pid: int) -> int | None:
    """When the kernel started the process (ticks since boot); None when there is no such live process."""
    fields = _stat(pid)
    return None if fields is None or fields[0] in "ZX" else int(fields[19])


def find_shell(folder: str) -> int | None:
    """Pid of the process that stays outside of the task in `folder` and writes how it ended.

    A watcher of `rmctl.agent.cells` has left its pid in the folder, and its command line names the data folder;
    a shell is found by its command line.
    """
    marker = b"\0rmportal-task\0" + os.fsencode(folder) + b"\0"
    found = [pid for pid in _pids() if marker in _command_line(pid)]
    with contextlib.suppress(FileNotFoundError, ValueError):
        watcher = int(Path(folder, "process").read_text())
        if b"\0rmportal-task\0" + os.fsencode(Path(folder).parents[1]) + b"\0" in _command_line(watcher):
            found.append(watcher)
    # The inner shell has the same command line until it executes the task; the outer one leads the session.
    return next((pid for pid in found if os.getsid(pid) == pid), None)


def watch(descriptor: int, ended: Callable[[], None]) -> None:
    """Call `ended` once in the running loop when the process of a pidfd ends, child or not, until `unwatch`."""
    asyncio.get_running_loop().add_reader(descriptor, ended)


def unwatch(descriptor: int) -> None:
    """Stop watching, and close the pidfd."""
    asyncio.get_running_loop().remove_reader(descriptor)
    os.close(descriptor)


def terminate(shell: int, groups: list[str], wrappers: int) -> bool:
    """SIGTERM to every process of the task; False when there was none to ask.

    The shell and the processes around the task, so many below each other, are left out: they must live to see how
    it ends.
    """
    asked = False
    for pid in _members(shell, groups) - _wrappers(shell, groups, wrappers):
        asked |= _signal(pid, signal.SIGTERM)
    return asked


def kill(shell: int, groups: list[str]) -> None:
    """SIGKILL to every process of the task except its shell, which then writes the exit status and ends."""
    for pid in _members(shell, groups) - {shell}:
        _signal(pid, signal.SIGKILL)
    cgroups.kill(groups)


def kill_leftovers(shell: int, groups: list[str], is_child: bool) -> None:
    """End what a task that is over left running. To be called before a child is reaped: its pid still stands."""
    if groups:
        if cgroups.processes(groups[:1]):
            cgroups.kill(groups)
    elif is_child or start_ticks(shell) is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(shell, signal.SIGKILL)


def _members(shell: int, groups: list[str]) -> set[int]:
    inside = cgroups.processes(groups)
    session = {pid for pid in _pids() if (fields := _stat(pid)) and int(fields[3]) == shell}
    return inside | session


def _wrappers(shell: int, groups: list[str], depth: int) -> set[int]:
    found = level = {shell}
    if depth:
        parents = {pid: int(fields[1]) for pid in _members(shell, groups) if (fields := _stat(pid))}
    for _ in range(depth):
        level = {pid for pid, parent in parents.items() if parent in level}
        found = found | level
    return found


def _signal(pid: int, number: signal.Signals) -> bool:
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _stat(pid: int) -> list[str] | None:
    """Fields of /proc/PID/stat from the third on: state, parent, group, session, …"""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            return file.read().rpartition(b")")[2].decode().split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def _command_line(pid: int) -> bytes:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return b""
