"""The door of a task to the state of its workflow and run: a socket in the task's own folder, which the agent answers.

A task that has asked for state finds `out/state.sock`, by the path in `RM_STATE`. Who has come in by it is known by
where it lies: only that task's folder is mounted into that task, so there is no credential that could be taken, and
the placement and the token that the portal is told are the agent's own knowledge. The portal decides what the attempt
may still do. A request is one JSON object in a line, its answer another.

Nothing of the task is trusted: lines are limited, its requests go one after another and so many a second, and what it
may have put in the socket's place is neither followed nor given other permissions.
"""

import asyncio
import contextlib
import errno
import json
import logging
import os
import socket
import stat
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from rmctl.agent.errors import PortalAway, PortalRefusal
from rmctl.agent.portal import Portal
from rmctl.agent.task import Key, Task
from rmctl.names import STATE_SOCKET, STATE_VARIABLE

# A value of 64 KiB, every character of which may be escaped as six, and what stands around it.
LINE_BYTES = 400 * 1024
CONNECTIONS = 8
# Requests of one task: so many a second, and so many at once before that counts.
PER_SECOND = 20.0
BURST = 40.0
# The same of all tasks of the node together, so that what else the node sends stays within the portal's rate.
NODE_PER_SECOND = 50.0
NODE_BURST = 100.0
# Requests of all tasks that are with the portal at the same time.
ROOM = 4
# How often a portal that answers may fail before the task is told.
FAILURES = 20
PAUSE_MAX_SECONDS = 2.0

logger = logging.getLogger("rmctl.agent")


class Request(msgspec.Struct, forbid_unknown_fields=True):
    """What a task may ask; fields that are not named here reach nobody."""

    scope: Literal["workflow", "run"]
    operation: Literal["get", "list", "set", "delete"]
    key: str = ""
    value: Any = None
    expected: int | None = None
    request: str = ""


class Rate:
    """So many a second, and so many at once before that counts."""

    def __init__(self, per_second: float, burst: float) -> None:
        self._per_second, self._burst = per_second, burst
        self._left, self._counted_at = burst, 0.0

    async def wait(self) -> None:
        """Until the next one may come."""
        now = asyncio.get_running_loop().time()
        self._left = min(self._burst, self._left + (now - self._counted_at) * self._per_second) - 1
        self._counted_at = now
        if self._left < 0:
            await asyncio.sleep(-self._left / self._per_second)


@dataclass(slots=True, eq=False)
class Door:
    """An open door."""

    task: Task
    listening: socket.socket
    server: asyncio.Server | None = None
    writers: set[asyncio.StreamWriter] = field(default_factory=set)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    rate: Rate = field(default_factory=lambda: Rate(PER_SECOND, BURST))
    closed: bool = False


class Doors:
    """The doors of all tasks of this node that asked for one."""

    def __init__(self, portal: Portal) -> None:
        self._portal = portal
        self._doors: dict[Key, Door] = {}
        self._room = asyncio.Semaphore(ROOM)
        self._rate = Rate(NODE_PER_SECOND, NODE_BURST)
        self._serving: set[asyncio.Task[None]] = set()

    def open(self, task: Task) -> None:
        """Open the door of a task that has asked for one, also of one that ran on without the agent."""
        if STATE_VARIABLE not in task.assignment.env:
            return
        try:
            door = Door(task, listen(task.folder.out))
        except OSError as error:
            # The task is told when it wants to go in; whatever else it does, it can do.
            logger.warning("task %s: it has no way to its state: %s", task.name, error)
            return
        self._doors[task.key] = door
        serving = asyncio.get_running_loop().create_task(self._serve(door))
        self._serving.add(serving)
        serving.add_done_callback(self._serving.discard)

    def close(self, task: Task) -> None:
        """The task is over: nobody comes in any more."""
        door = self._doors.pop(task.key, None)
        if door is None:
            return
        door.closed = True
        if door.server is not None:
            door.server.close()
        else:
            door.listening.close()
        for writer in door.writers:
            writer.close()
        with contextlib.suppress(OSError):
            _unlink(task.folder.out)

    async def _serve(self, door: Door) -> None:
        async def enter(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._talk(door, reader, writer)

        server = await asyncio.start_unix_server(enter, sock=door.listening, limit=LINE_BYTES)
        if door.closed:
            server.close()
        door.server = server

    async def _talk(self, door: Door, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection until the task closes it."""
        try:
            if len(door.writers) >= CONNECTIONS or door.closed:
                writer.write(_refusal("busy", f"a task has at most {CONNECTIONS} connections to its state at once"))
                return
            door.writers.add(writer)
            while line := await reader.readline():
                writer.write(await self._answer(door, line))
                await writer.drain()
        except ValueError:
            writer.write(_refusal("too_large", f"a request has at most {LINE_BYTES} bytes"))
        except ConnectionError:
            pass
        finally:
            door.writers.discard(writer)
            writer.close()

    async def _answer(self, door: Door, line: bytes) -> bytes:
        try:
            asked = msgspec.json.decode(line, type=Request)
            body = msgspec.json.encode(asked)
        except (msgspec.DecodeError, UnicodeError, RecursionError, OverflowError) as error:
            return _refusal("invalid", f"the request cannot be read: {error}")
        async with door.turn:
            await door.rate.wait()
            await self._rate.wait()
            return await self._forward(door, body)

    async def _forward(self, door: Door, body: bytes) -> bytes:
        """The portal's answer; one that is away is waited for as long as the task runs."""
        pause, failures = 0.1, 0
        while not door.closed:
            try:
                async with self._room:
                    answer = await asyncio.to_thread(self._portal.ask_state, *door.task.key, body)
                return json.dumps({"answer": json.loads(answer)}, ensure_ascii=False).encode() + b"\n"
            except PortalRefusal as error:
                return _refusal("refused", str(error))
            except ValueError:
                return _refusal("refused", "the portal's answer cannot be read")
            except PortalAway as error:
                failures += error.answered
                if failures >= FAILURES:
                    return _refusal("refused", str(error))
                await asyncio.sleep(pause)
                pause = min(2 * pause, PAUSE_MAX_SECONDS)
        return _refusal("refused", "the task is over")


def listen(folder: str) -> socket.socket:
    """A socket in the folder that the task may connect to. Raises OSError.

    The folder belongs to the task, which may run already: so no link in it is followed, and the permissions are set on
    what was bound and nothing else.
    """
    parent = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listening.setblocking(False)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(STATE_SOCKET, dir_fd=parent)
        # By the descriptor: a path may be longer than an address of a socket can be.
        listening.bind(f"/proc/self/fd/{parent}/{STATE_SOCKET}")
        made = os.open(STATE_SOCKET, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            found = os.fstat(made)
            if not stat.S_ISSOCK(found.st_mode) or found.st_uid != os.geteuid() or found.st_nlink != 1:
                raise OSError(errno.EPERM, "something else was put in its place")
            os.chmod(f"/proc/self/fd/{made}", 0o666)
        finally:
            os.close(made)
        listening.listen(CONNECTIONS)
    except BaseException:
        listening.close()
        raise
    finally:
        os.close(parent)
    return listening


def _unlink(folder: str) -> None:
    parent = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.unlink(STATE_SOCKET, dir_fd=parent)
    finally:
        os.close(parent)


def _refusal(code: str, message: str) -> bytes:
    return json.dumps({"code": code, "error": message}, ensure_ascii=False).encode() + b"\n"
