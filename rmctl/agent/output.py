"""What a task leaves behind: its result, its artifacts, its use of the disk. Nothing of it is trusted."""

import os
import stat
from typing import Any

import msgspec

from rmctl.agent.protocol import MAX_RESULT_BYTES

MAX_ARTIFACTS = 10_000
MAX_NAME_BYTES = 1000


class ResultInvalid(Exception):
    """The task's result cannot be taken; the message says why."""


def read_result(path: str) -> tuple[Any, int]:
    """The JSON value that the task wrote and its size in bytes; (None, 0) when it wrote none.

    Raises ResultInvalid.
    """
    try:
        # A pipe or a link in its place must neither block the agent nor lead it elsewhere.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None, 0
    except OSError as error:
        raise ResultInvalid(f"RM_RESULT: it is not a plain file: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ResultInvalid("RM_RESULT: it is not a plain file")
    with open(descriptor, "rb") as file:
        data = file.read(MAX_RESULT_BYTES + 1)
    if len(data) > MAX_RESULT_BYTES:
        raise ResultInvalid(
            f"RM_RESULT: it is larger than {MAX_RESULT_BYTES} bytes; write large data as an artifact"
        )
    try:
        value = msgspec.json.decode(data)
        msgspec.msgpack.encode(value)
    except (msgspec.DecodeError, UnicodeError, OverflowError, RecursionError) as error:
        raise ResultInvalid(f"RM_RESULT: it is not valid JSON: {error}") from error
    if b"\\u0000" in data and _has_nul(value):
        raise ResultInvalid("RM_RESULT: it contains the character U+0000, which no database text can hold")
    return value, len(data)


def checkpoint_time(path: str) -> float | None:
    """When the task last said that it has written a checkpoint, in Unix seconds; None while it has not.

    It says so by the time of this file. What the file holds is not looked at, a link is not followed, and what is not
    a plain file says nothing. A task may set the time of the last change, but not that of the inode: who sets one in
    the future has said it when it did so.
    """
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return min(found.st_mtime, found.st_ctime) if stat.S_ISREG(found.st_mode) else None


def artifacts(folder: str) -> tuple[list[tuple[str, str]], list[str]]:
    """((name, path) of every plain file below `folder`, complaints about what is left out)."""
    found: list[tuple[str, str]] = []
    complaints: list[str] = []
    if os.path.islink(folder):
        return [], ["the artifact folder was replaced by a link, which is not followed"]
    waiting = [(folder, "")]
    while waiting:
        directory, prefix = waiting.pop()
        try:
            entries = sorted(os.scandir(directory), key=lambda entry: entry.name)
        except OSError as error:
            complaints.append(f"artifact folder {prefix!r} cannot be read: {error.strerror}")
            continue
        for entry in entries:
            name = prefix + entry.name
            if entry.is_dir(follow_symlinks=False):
                waiting.append((entry.path, name + "/"))
            elif not entry.is_file(follow_symlinks=False):
                complaints.append(f"artifact {name!r} is not a plain file")
            elif not _valid_name(name):
                complaints.append(f"artifact {name!r} has a name that cannot be stored")
            elif len(found) >= MAX_ARTIFACTS:
                complaints.append(f"more than {MAX_ARTIFACTS} artifacts; the rest is left out")
                return found, complaints
            else:
                found.append((name, entry.path))
    return found, complaints


def storage_used(folders: list[str]) -> int:
    """Bytes on the disk below the folders, links not followed; what vanishes meanwhile is not counted."""
    total = 0
    waiting = list(folders)
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    total += entry.stat(follow_symlinks=False).st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
        except OSError:
            continue
    return total


def _valid_name(name: str) -> bool:
    try:
        return name.isprintable() and len(name.encode()) <= MAX_NAME_BYTES and "\\" not in name
    except UnicodeEncodeError:
        return False


def _has_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any("\0" in key or _has_nul(item) for key, item in value.items())
    return isinstance(value, list) and any(_has_nul(item) for item in value)
