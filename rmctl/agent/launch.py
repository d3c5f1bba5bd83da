"""Executing a task's shell without copying the agent and without leaving anything of the agent in it."""

import os
import select
import signal
from dataclasses import dataclass
from typing import NamedTuple

# Python ignores these two; a task must find them as every program does.
DEFAULT_SIGNALS = (signal.SIGPIPE, signal.SIGXFSZ)


@dataclass(frozen=True)
class Launch:
    """What to execute. `arguments` is what bubblewrap reads from descriptor 3, with the task's environment in
    it: a command line could be read by every user of the node."""

    argv: list[str]
    env: dict[str, str]
    arguments: bytes = b""


class Started(NamedTuple):
    """A process that was started, with a pidfd of it, which the taker closes."""

    pid: int
    descriptor: int
    # Whether it is the agent's own child, to be reaped.
    is_child: bool


def start(launch: Launch, log: str) -> Started:
    """Start it in a session of its own with its output in `log`.

    posix_spawn does not copy the agent's memory, so this takes under a millisecond. Raises OSError.
    """
    descriptor = _arguments_descriptor(launch)
    actions: list[tuple[int, int] | tuple[int, int, int] | tuple[int, int, str, int, int]] = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_APPEND, 0),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    if descriptor is not None:
        actions.append((os.POSIX_SPAWN_DUP2, descriptor, 3))
    try:
        pid = os.posix_spawn(
            launch.argv[0], launch.argv, launch.env,
            file_actions=actions, setsid=True, setsigdef=DEFAULT_SIGNALS,
        )  # fmt: skip
    finally:
        if descriptor is not None:
            os.close(descriptor)
    return Started(pid, os.pidfd_open(pid), is_child=True)


def wait(started: Started, seconds: float) -> None:
    """Wait for its end, or kill it after `seconds`."""
    poll = select.poll()
    poll.register(started.descriptor, select.POLLIN)
    if not poll.poll(seconds * 1000):
        os.killpg(started.pid, signal.SIGKILL)
    os.close(started.descriptor)
    if started.is_child:
        os.waitpid(started.pid, 0)


def _arguments_descriptor(launch: Launch) -> int | None:
    if not launch.arguments:
        return None
    descriptor = os.memfd_create("arguments")
    os.write(descriptor, launch.arguments)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor
