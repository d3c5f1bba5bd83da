"""What tasks save to go on from: packed when they say that it is complete, and unpacked for the next attempt.

A checkpoint is complete at the time of `RM_CHECKPOINT`. What is in the folder by then is packed into one file outside
of the task's reach, and sent to the portal; a packed file of a killed agent is made again. If anything in the folder
changes after that time, it is not the checkpoint that was told of: nothing is sent, and the portal keeps the one
before. The task may still run, so nothing that it has put there is followed, and nothing of it is trusted.
"""

import asyncio
import gzip
import hashlib
import logging
import os
import stat
import tarfile
import time
from collections.abc import Callable, Iterator

from rmctl.agent import bundles
from rmctl.agent.errors import PortalAway, PortalRefusal, Refused
from rmctl.agent.portal import Portal
from rmctl.agent.protocol import SavedFiles
from rmctl.agent.task import Task

MAX_FILES = bundles.MAX_MEMBERS
# The kernel's clock for files moves in steps of some milliseconds; what changes within one step looks the same.
SETTLE_SECONDS = 0.05
RETRY_SECONDS = 5.0
FAILURES = 60

logger = logging.getLogger("rmctl.agent")

Entry = tuple[str, bool, int, int]  # name below the folder, whether it is a folder, inode, size


class Changing(Exception):
    """The folder is not what it was when the task said that it is complete."""


class Unstorable(Exception):
    """What the task has put there cannot be stored; the message says why."""


class Checkpoints:
    """Packs and sends; `DATA/checkpoints` holds what is under way."""

    def __init__(self, folder: str, portal: Portal) -> None:
        self._folder = folder
        self._portal = portal
        self._locks: dict[tuple[int, int], asyncio.Lock] = {}
        os.makedirs(folder, mode=0o700, exist_ok=True)
        for name in os.listdir(folder):
            os.unlink(f"{folder}/{name}")  # the task's folder has it, or the portal

    @staticmethod
    def uses_folder(task: Task) -> bool:
        """Whether the task keeps its checkpoints in the folder that the portal stores."""
        return os.path.lexists(task.folder.saved)

    @staticmethod
    def is_due(task: Task, at: float | None) -> bool:
        """Whether the checkpoint of this time has neither been stored nor been found to be no good."""
        return at is not None and at > max(task.saved_at, task.saving_failed_at)

    async def save(self, task: Task, at: float, wanted: Callable[[], bool]) -> None:
        """Pack and store the checkpoint of a time; what stands in the way is left in `task.complaint`.

        One at a time of a task. Gives up as soon as it is not `wanted`, and while the portal is away tries again.
        """
        lock = self._locks.setdefault(task.key, asyncio.Lock())
        async with lock:
            if not self.is_due(task, at) or not wanted():
                return
            path = f"{self._folder}/{task.name}"
            try:
                await asyncio.to_thread(pack, task.folder.saved, task.folder.checkpoint, path)
                await self._send(task, path, at, wanted)
            except Changing:
                # It is looked at again: while the task writes the next one, there is nothing to be had.
                logger.info("task %s: its checkpoint folder changes; nothing is stored of it now", task.name)
            except (Unstorable, PortalRefusal) as error:
                task.saving_failed_at = at
                task.complaint = f"the checkpoint was not stored: {error}"
                logger.warning("task %s: %s", task.name, task.complaint)
            except OSError as error:
                task.complaint = f"the checkpoint was not stored: {error.strerror or error}"
                logger.warning("task %s: %s", task.name, task.complaint)
            finally:
                if os.path.exists(path):
                    os.unlink(path)

    async def _send(self, task: Task, path: str, at: float, wanted: Callable[[], bool]) -> None:
        delay, failures = 0.1, 0
        digest = await asyncio.to_thread(_digest, path)
        while wanted():
            try:
                await asyncio.to_thread(self._portal.put_checkpoint, *task.key, at, digest, path)
                task.saved_at, task.complaint = at, ""
                return
            except PortalAway as error:
                failures += error.answered
                if failures >= FAILURES:
                    raise Unstorable(str(error)) from error
                await asyncio.sleep(delay)
                delay = min(delay * 2, RETRY_SECONDS)

    def forget(self, task: Task) -> None:
        """The task is over."""
        self._locks.pop(task.key, None)

    async def restore(self, task: Task, saved: SavedFiles, owner: int | None, wanted: Callable[[], bool]) -> None:
        """Fetch what an earlier attempt has saved into the task's folder. Raises Refused and OSError."""
        path, delay = f"{self._folder}/{task.name}.restore", 0.1
        try:
            while wanted():
                try:
                    await asyncio.to_thread(self._fetch, task, path)
                    break
                except PortalAway:
                    await asyncio.sleep(delay)
                    delay = min(delay * 2, RETRY_SECONDS)
            else:
                return
            if await asyncio.to_thread(_digest, path) != saved.sha256:
                raise Refused("checkpoint: it arrived with another digest than the portal told; try the job again")
            await asyncio.to_thread(_unpack, path, task, owner)
        except PortalRefusal as error:
            raise Refused(f"checkpoint: the portal does not give it out: {error}") from error
        finally:
            if os.path.exists(path):
                os.unlink(path)

    def _fetch(self, task: Task, path: str) -> None:
        with open(path, "wb") as file:
            self._portal.get_checkpoint(*task.key, file)


def _unpack(path: str, task: Task, owner: int | None) -> None:
    os.mkdir(task.folder.saved, 0o755)
    if owner is not None:
        os.chown(task.folder.saved, owner, owner)
    try:
        bundles.unpack(path, task.folder.saved, task.assignment.storage_bytes, owner)
    except Refused as error:
        raise Refused(f"checkpoint: {str(error).removeprefix('bundle: ')}") from error


def pack(folder: str, marker: str, target: str) -> None:
    """Pack the plain files and folders below `folder` as they were when `marker` was touched.

    The same content gives the same bytes. Raises Changing, Unstorable, OSError.
    """
    said = os.lstat(marker).st_ctime_ns
    # A change after this is one that can be seen.
    time.sleep(min(max(0.0, said / 1e9 + SETTLE_SECONDS - time.time()), SETTLE_SECONDS))
    with (
        open(target, "wb") as file,
        gzip.GzipFile("", "wb", compresslevel=1, fileobj=file, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w|", format=tarfile.PAX_FORMAT) as archive,
    ):
        packed = list(_entries(folder, said, archive))
    if list(_entries(folder, said)) != packed or os.lstat(marker).st_ctime_ns != said:
        raise Changing


def _entries(folder: str, said: int, archive: tarfile.TarFile | None = None) -> Iterator[Entry]:
    """Everything below a folder, in order, written to the archive if there is one."""
    top, count = os.lstat(folder), 0
    if not stat.S_ISDIR(top.st_mode):
        raise Unstorable("RM_CHECKPOINT_DIR is not a folder")
    # Goes down by descriptors, so that a folder that is replaced by a link meanwhile leads nowhere.
    for path, folders, files, descriptor in os.fwalk(folder, follow_symlinks=False, onerror=_raise):
        folders.sort()
        if os.fstat(descriptor).st_ctime_ns > said:
            raise Changing
        below = os.path.relpath(path, folder)
        for name in [*folders, *sorted(files)]:
            count += 1
            if count > MAX_FILES:
                raise Unstorable(f"it has more than {MAX_FILES} files and folders")
            yield _entry(name, os.path.normpath(f"{below}/{name}"), descriptor, said, top.st_uid, archive)


def _entry(name: str, path: str, parent: int, said: int, owner: int, archive: tarfile.TarFile | None) -> Entry:
    found = os.stat(name, dir_fd=parent, follow_symlinks=False)
    if found.st_ctime_ns > said:
        raise Changing
    member = tarfile.TarInfo(path)
    if stat.S_ISDIR(found.st_mode):
        member.type, member.mode = tarfile.DIRTYPE, 0o755
        if archive is not None:
            archive.addfile(member)
        return path, True, found.st_ino, 0
    # A hard link to a file of somebody else would be read with the agent's rights.
    if not stat.S_ISREG(found.st_mode) or found.st_uid != owner:
        raise Unstorable(f"{path!r} is no plain file of the task's own")
    if archive is not None:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=parent)
        with open(descriptor, "rb") as file:
            opened = os.fstat(descriptor)
            if (opened.st_ino, opened.st_ctime_ns) != (found.st_ino, found.st_ctime_ns):
                raise Changing
            member.size, member.mode = opened.st_size, 0o755 if opened.st_mode & 0o100 else 0o644
            try:
                archive.addfile(member, file)
            except OSError as error:
                if error.errno is None:  # It is shorter than it was.
                    raise Changing from error
                raise
    return path, False, found.st_ino, found.st_size


def _raise(error: OSError) -> None:
    # Gone since its folder was read.
    raise Changing from error


def _digest(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
