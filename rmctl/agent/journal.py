"""The agent's memory on disk: one folder per placement, `DATA/tasks/<placement>-<token>/`.

    assignment.msgpack   what was asked, without the secrets
    state                who runs it: process, kernel start time, boot, groups (absent until it was started)
    ending               why the agent is ending it, written before the first signal
    exit                 exit status and a newline, written by the task's own shell or watcher, which outlives the agent
    process              the pid of that watcher and a newline, where there is one (rmctl.agent.cells)
    log                  a header, then standard output and error, written by the task itself
    inputs.json          the inputs
    work/ tmp/ out/      what the task may write; `out/` holds `result.json`, `checkpoint`, `artifacts/`,
                         and `saved/` if the task keeps its checkpoints with the portal

A file that was cut short while it was written does not decode and counts as absent. Nothing is fsynced: a
killed agent loses nothing that was written, and after a power failure the boot id differs, so every task of the
old boot is reported lost whatever its files say.

Folders are used again (`Spares`): where thousands of short tasks make and delete a dozen inodes each, a file
system like ext4, which avoids inodes deleted in the last seconds, spends more time on them than on the tasks. Nor is
a file cut to nothing and written again, as ext4 takes that for the replacement of a document and waits for its blocks
(auto_da_alloc): what is left of an old one is its first byte, and it is written over.
"""

import os
import re
import shutil
import stat
from collections.abc import Iterator
from copy import copy
from pathlib import Path
from typing import TypeVar

import msgspec

from rmctl.agent.logs import HEADER
from rmctl.agent.protocol import Assignment

T = TypeVar("T")

MAX_SPARES = 64
KEPT_FILES = frozenset({"assignment.msgpack", "state", "exit", "process", "log", "inputs.json"})
FOLDER_NAME = re.compile(r"([0-9]+)-([0-9]+)")


class State(msgspec.Struct, frozen=True, omit_defaults=True):
    """What identifies a started task across restarts of the agent."""

    pid: int
    start_ticks: int
    boot_id: str
    started_at: float
    # How many processes below each other stand between the one named and the task's own.
    wrappers: int = 0
    groups: list[str] = []
    container: str = ""
    enforced: dict[str, str] = {}


class TaskFolder:
    """Paths and small files of one placement."""

    __slots__ = ("path",)

    def __init__(self, root: str, placement: int, token: int) -> None:
        self.path = f"{root}/{placement}-{token}"

    @property
    def work(self) -> str:
        return self.path + "/work"

    @property
    def temporary(self) -> str:
        return self.path + "/tmp"

    @property
    def out(self) -> str:
        return self.path + "/out"

    @property
    def artifacts(self) -> str:
        return self.path + "/out/artifacts"

    @property
    def result(self) -> str:
        return self.path + "/out/result.json"

    @property
    def checkpoint(self) -> str:
        return self.path + "/out/checkpoint"

    @property
    def saved(self) -> str:
        return self.path + "/out/saved"

    @property
    def inputs(self) -> str:
        return self.path + "/inputs.json"

    @property
    def log(self) -> str:
        return self.path + "/log"

    def create(self, assignment: Assignment, modes: tuple[int, int], owner: int | None) -> None:
        """Make the folder (with the first mode) and everything the task needs (folders with the second).
        `owner` is the user that the task runs as, if not the agent's own. Raises OSError (a full disk, for
        one); the caller then calls `remove`."""
        os.mkdir(self.path, modes[0])
        for path in (self.work, self.temporary, self.out, self.artifacts):
            os.mkdir(path, modes[1])
        os.close(os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        if owner is not None:
            for path in (self.work, self.temporary, self.out, self.artifacts, self.log):
                os.chown(path, owner, owner)
        self.fill(assignment)

    def fill(self, assignment: Assignment) -> None:
        """Write what was asked, without the secrets, the inputs, and the header of the log. Raises OSError."""
        descriptor = os.open(self.log, os.O_WRONLY | os.O_NOFOLLOW)
        try:
            os.write(descriptor, HEADER)
        finally:
            os.close(descriptor)
        stored = msgspec.structs.replace(assignment, secrets={})
        _write(self.path + "/assignment.msgpack", msgspec.msgpack.encode(stored), 0o600)
        _write(self.inputs, msgspec.json.encode(assignment.inputs), 0o644)

    def empty(self, mode: int) -> bool:
        """Make the folder of an ended task as good as new; False when the task left something of its own.

        The task owned these folders: what it may have put in their place is not followed, and permissions,
        times and attributes that it may have set are not passed on to the next one.
        """
        try:
            for path in (self.out, self.artifacts, self.work, self.temporary):
                if not stat.S_ISDIR(os.lstat(path).st_mode):
                    return False
            for name in os.listdir(self.out):
                if name in ("result.json", "checkpoint"):
                    os.unlink(f"{self.out}/{name}")
                elif name != "artifacts":
                    return False
            if os.listdir(self.artifacts) or os.listdir(self.work) or os.listdir(self.temporary):
                return False
            for path in (self.out, self.artifacts, self.work, self.temporary, self.log):
                if os.listxattr(path):
                    return False
                os.chmod(path, 0o600 if path == self.log else mode)
                os.utime(path, (0, 0))
            for name in os.listdir(self.path):
                if name in KEPT_FILES:
                    path = f"{self.path}/{name}"
                    os.truncate(path, min(1, os.stat(path).st_size))
                elif name not in ("work", "tmp", "out"):
                    os.unlink(f"{self.path}/{name}")
        except OSError:
            return False
        return True

    def assignment(self) -> Assignment | None:
        """The journalled assignment, or None when the folder was cut short before it was written."""
        return _read(self.path + "/assignment.msgpack", Assignment)

    def state(self) -> State | None:
        return _read(self.path + "/state", State)

    def write_state(self, state: State) -> None:
        _write(self.path + "/state", msgspec.msgpack.encode(state), 0o600)

    def ending(self) -> str:
        try:
            with open(self.path + "/ending", encoding="utf-8") as file:
                return file.read()
        except FileNotFoundError:
            return ""

    def write_ending(self, reason: str) -> None:
        write_atomically(self.path + "/ending", reason.encode())

    def exit_status(self) -> tuple[int, float] | None:
        """Exit status and when it was written, or None while there is none (a torn write has no newline)."""
        try:
            with open(self.path + "/exit", encoding="ascii") as file:
                text = file.read(16)
                written_at = os.fstat(file.fileno()).st_mtime
        except FileNotFoundError:
            return None
        return (int(text), written_at) if text.endswith("\n") else None

    def refusal(self) -> str:
        """Why the task's shell could not put the task under its limits; empty when it could."""
        try:
            with open(self.path + "/refused", encoding="utf-8", errors="replace") as file:
                return file.read().strip()
        except FileNotFoundError:
            return ""

    def remove(self) -> None:
        """Remove the folder with everything in it, also folders that the task made unreadable."""
        shutil.rmtree(self.path, onerror=_open_and_retry)


class Spares:
    """Emptied folders for the next tasks, all of one owner and mode."""

    def __init__(self, root: str, owner: int | None, modes: tuple[int, int]) -> None:
        self._root = root
        self._owner = owner
        self._modes = modes
        self._free: list[str] = []
        self._count = 0
        shutil.rmtree(root, ignore_errors=True)
        os.mkdir(root, 0o700)

    def create(self, folder: TaskFolder, assignment: Assignment) -> None:
        """Like `TaskFolder.create`, from a spare folder when there is one. Raises OSError."""
        if self._free:
            os.rename(self._free.pop(), folder.path)
            folder.fill(assignment)
        else:
            folder.create(assignment, self._modes, self._owner)

    def keep(self, folder: TaskFolder) -> TaskFolder | None:
        """Take the folder of an ended task; what cannot be used again is returned, to be removed.

        It is moved away before it is emptied: an agent that is killed here must not find half of a task after its
        restart, with a log that looks as if the task had emptied it.
        """
        if len(self._free) >= MAX_SPARES:
            return folder
        self._count += 1
        moved = copy(folder)
        moved.path = f"{self._root}/{self._count}"
        try:
            os.rename(folder.path, moved.path)
        except OSError:
            return folder
        if not moved.empty(self._modes[1]):
            return moved
        self._free.append(moved.path)
        return None


def _open_and_retry(function: object, path: str, _: object) -> None:
    # A task may leave folders without permissions behind; only an agent that is not root meets this.
    try:
        os.chmod(os.path.dirname(path), 0o700)
        if os.path.isdir(path) and not os.path.islink(path):
            os.chmod(path, 0o700)
            shutil.rmtree(path, ignore_errors=True)
        else:
            os.unlink(path)
    except OSError:
        pass


def _read(path: str, kind: type[T]) -> T | None:
    try:
        with open(path, "rb") as file:
            return msgspec.msgpack.decode(file.read(), type=kind)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def write_atomically(path: str, data: bytes, mode: int = 0o600, durable: bool = False) -> None:
    """Replace the file at `path`; `durable` also waits for the disk. Raises OSError."""
    temporary = path + ".new"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        _write_all(descriptor, data)
        if durable:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.rename(temporary, path)


def _write(path: str, data: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, mode)
    try:
        _write_all(descriptor, data)
        os.ftruncate(descriptor, len(data))
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def stored_folders(root: str) -> Iterator[tuple[int, int]]:
    """(placement, token) of every folder in the journal."""
    for entry in sorted(Path(root).iterdir()):
        if match := FOLDER_NAME.fullmatch(entry.name):
            yield int(match[1]), int(match[2])
