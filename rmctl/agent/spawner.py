"""The agent's end of `rmctl.agent.cells`: a sandbox that is built once, and in it a process that makes cells."""

import contextlib
import fcntl
import marshal
import os
import signal
import socket
import sys
from typing import Any

from rmctl.agent.launch import Started

READY = b"ready"
# Coming up takes 50 milliseconds and an answer one; who does not answer for so long is stuck.
ANSWER_SECONDS = 20.0
ARGUMENTS, CONTROL = 3, 4


class Spawner:
    """Starts tasks in cells. The process behind it is started at the first need, and again when it is gone.

    `arguments` are bubblewrap's, `log` is where it and the process complain.
    """

    def __init__(self, bubblewrap: str, arguments: list[str], program: str, data: str) -> None:
        self._command = [bubblewrap, "--args", str(ARGUMENTS), "--", sys.executable, "-I", "-S", "-B"]
        # The two last words tell people, and `process.find_shell`, whose it is.
        self._command += [program, "rmportal-task", data]
        self._arguments = b"".join(os.fsencode(argument) + b"\0" for argument in arguments)
        self._log = f"{data}/spawner.log"
        self._control: socket.socket | None = None
        self._pid = 0

    def start(self, request: dict[str, Any], log: str, groups: list[str]) -> Started:
        """Start a task in a cell of its own (`request`: see `cells.furnish` and `execute`). Raises OSError."""
        with contextlib.ExitStack() as opened:
            descriptors = []
            for path, flags in [(log, os.O_APPEND), *((f"{group}/cgroup.procs", 0) for group in groups)]:
                descriptors.append(os.open(path, os.O_WRONLY | os.O_CLOEXEC | flags))
                opened.callback(os.close, descriptors[-1])
            data = marshal.dumps(request)
            if self._control is not None and self._is_gone():
                self.close()
            control = self._control or self._begin()
            try:
                return _ask(control, data, descriptors)
            except OSError:
                self.close()
                raise

    def close(self) -> None:
        """End the process, which goes when nobody asks any more; the cells that it has made live on."""
        if self._control is not None:
            self._control.close()
            self._control = None
            os.kill(self._pid, signal.SIGKILL)  # bubblewrap, which only waits for it
            os.waitpid(self._pid, 0)

    def _is_gone(self) -> bool:
        return bool(os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOHANG | os.WNOWAIT))

    def _begin(self) -> socket.socket:
        """Start the process and wait until it is ready. Raises OSError."""
        mine, theirs = socket.socketpair()
        arguments = os.memfd_create("arguments")
        os.write(arguments, self._arguments)
        os.lseek(arguments, 0, os.SEEK_SET)
        # Out of the way of the two numbers that they get in the new process.
        source, end = (fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 10) for number in (arguments, theirs.fileno()))
        try:
            self._pid = os.posix_spawn(
                self._command[0], self._command, {},
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 1, self._log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
                    (os.POSIX_SPAWN_DUP2, 1, 2),
                    (os.POSIX_SPAWN_DUP2, source, ARGUMENTS),
                    (os.POSIX_SPAWN_DUP2, end, CONTROL),
                ],
                setsid=True,
            )  # fmt: skip
        finally:
            theirs.close()
            for number in (arguments, source, end):
                os.close(number)
        self._control = mine
        mine.settimeout(ANSWER_SECONDS)
        if mine.recv(len(READY)) != READY:
            self.close()
            raise OSError(f"the process that starts tasks did not come up; {self._log} says why")
        return mine


def _ask(control: socket.socket, data: bytes, descriptors: list[int]) -> Started:
    socket.send_fds(control, [len(data).to_bytes(8, "little")], descriptors)
    control.sendall(data)
    answer, received, _, _ = socket.recv_fds(control, 8, 1)
    if not received:
        raise OSError("the process that starts tasks was ended")
    return Started(int.from_bytes(answer, "little"), received[0], is_child=False)
