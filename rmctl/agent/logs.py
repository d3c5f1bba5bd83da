"""Shipping the tasks' logs: read by offset from the file that the task writes, sent in windows, acknowledged.

The file is the buffer: only what is on its way is in memory, at most `TOTAL_WINDOW` for all tasks. After a new
connection (or a restart of the agent) one chunk goes out and its acknowledgement says how much the portal has.

A task that opens /dev/stdout or /dev/stderr with `>` empties the file, as the shell opens it anew and with O_TRUNC.
Only a pipe would make that harmless, and a pipe needs a process to drain it that outlives the agent. So the file
starts with a header that is not part of the log: without it, something was lost, and the log says so.
"""

import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from rmctl.agent.masks import NOTHING, Masks
from rmctl.agent.protocol import MAX_LOG_CHUNK_BYTES, Log

TASK_WINDOW = 4 * MAX_LOG_CHUNK_BYTES
TOTAL_WINDOW = 16 * MAX_LOG_CHUNK_BYTES

HEADER = b"rmportal task 1\n"
NOTICE = (
    b"\n[rmportal: the task emptied its own log here, as opening /dev/stdout or /dev/stderr with > does; what it wrote "
    b"shortly before is lost. Use >&2, >&1 or >>.]\n"
)

Key = tuple[int, int]


@dataclass(slots=True)
class Stream:
    """One task's log. Sizes and offsets are those of the portal's copy, which only grows; `base` is the offset
    there of the first byte of the file: below 0 by the header, above once the task has emptied it. `notice` is the
    offset of the text that says so, below 0 while there is none."""

    key: Key
    path: str
    finished: Callable[[], None]
    masks: Masks = NOTHING
    base: int = -len(HEADER)
    notice: int = -1
    size: int = 0
    sent: int = 0
    acknowledged: int = 0
    # The portal's size is known: on this connection it acknowledged something.
    known: bool = False
    ended: bool = False
    final_sent: bool = False
    # An acknowledgement that did not advance: the portal could not store the chunk.
    stalled: bool = False

    @property
    def complete(self) -> bool:
        return self.ended and self.acknowledged >= self.size


class LogShipper:
    """All streams of the agent. `send` takes a frame; it is None while there is no connection."""

    def __init__(self) -> None:
        self.streams: dict[Key, Stream] = {}
        self.send: Callable[[Log], None] | None = None
        self._in_flight = 0
        self._waiting: deque[Key] = deque()

    def add(self, key: Key, path: str, finished: Callable[[], None], masks: Masks = NOTHING) -> None:
        """Follow a log; `finished` is called once when it ended and everything is acknowledged. What `masks` names is
        never sent."""
        self.streams[key] = Stream(key, path, finished, masks)

    def end(self, key: Key) -> int:
        """The task ended: its log grows no more. Sends what fits into the window and returns the size."""
        stream = self.streams[key]
        self._measure(stream, last=True)
        stream.ended = True
        self._pump(stream)
        return stream.size

    def settle(self, key: Key) -> None:
        """Call `finished` now if the log needs nothing more (an empty log needs no frame)."""
        stream = self.streams.get(key)
        if stream is not None and stream.complete:
            stream.finished()

    def forget(self, key: Key) -> None:
        stream = self.streams.pop(key, None)
        if stream is not None:
            self._in_flight -= stream.sent - stream.acknowledged

    def poll(self) -> None:
        """Look whether running tasks wrote something; to be called a few times a second."""
        for stream in list(self.streams.values()):
            if stream.stalled:
                stream.stalled = False
                self._rewind(stream, stream.acknowledged)
            if not stream.ended:
                self._measure(stream)
            self._pump(stream)

    def connected(self, send: Callable[[Log], None]) -> None:
        """A new connection: what was on its way may be lost."""
        self.send = send
        self._waiting.clear()
        for stream in self.streams.values():
            self._rewind(stream, stream.acknowledged)
            stream.known = False
            stream.final_sent = False
        self.poll()

    def disconnected(self) -> None:
        self.send = None

    def acknowledge(self, key: Key, size: int) -> None:
        """The portal has the first `size` bytes."""
        stream = self.streams.get(key)
        if stream is None:
            return
        first, stream.known = not stream.known, True
        if size > stream.size:
            self._measure(stream)
        if size > stream.size:
            # The agent before this one shipped what the task truncated afterwards.
            stream.base += size - stream.size
            stream.size = size
        advance = size - stream.acknowledged
        if advance > 0:
            self._in_flight -= min(size, stream.sent) - stream.acknowledged
            stream.acknowledged = size
            stream.sent = max(stream.sent, size)
        elif advance < 0 or first:
            self._rewind(stream, size)
        elif stream.sent > stream.acknowledged:
            stream.stalled = True
        if stream.complete:
            stream.finished()
        else:
            self._pump(stream)
        while self._waiting and self._in_flight < TOTAL_WINDOW:
            if (waiting := self.streams.get(self._waiting.popleft())) is not None:
                self._pump(waiting)

    def _rewind(self, stream: Stream, size: int) -> None:
        self._in_flight -= stream.sent - stream.acknowledged
        stream.sent = stream.acknowledged = size
        stream.final_sent = False

    def _measure(self, stream: Stream, last: bool = False) -> None:
        """Find the log's size; when it has changed, or for the last time, also whether the task has emptied it."""
        try:
            size = os.stat(stream.path).st_size
        except OSError:
            return
        if stream.base + size == stream.size and not last:
            return
        if stream.notice < 0 and self._file(stream, 0, len(HEADER)) != HEADER:
            stream.notice = stream.sent
            stream.base = stream.sent + len(NOTICE)
        elif stream.base + size < stream.size:
            # Again: what it writes from now on follows what was sent before.
            stream.base = stream.sent
        stream.size = stream.base + size
        if stream.masks and not last:
            # What could be the beginning of a secret waits for the rest of it.
            length = min(size, stream.masks.longest - 1)
            stream.size -= stream.masks.held(self._file(stream, size - length, length))

    def _pump(self, stream: Stream) -> None:
        if self.send is None or stream.final_sent:
            return
        while stream.sent < stream.size:
            if not stream.known and stream.sent > stream.acknowledged:
                return
            if stream.sent - stream.acknowledged >= TASK_WINDOW:
                return
            if self._in_flight >= TOTAL_WINDOW:
                self._waiting.append(stream.key)
                return
            data = self._read(stream)
            final = stream.ended and stream.sent + len(data) >= stream.size
            self.send(Log(*stream.key, stream.sent, data, final))
            stream.final_sent = final
            stream.sent += len(data)
            self._in_flight += len(data)
        if stream.ended and stream.size and not stream.final_sent:
            stream.final_sent = True
            self.send(Log(*stream.key, stream.sent, b"", True))

    def _read(self, stream: Stream) -> bytes:
        """What goes out next; zeros for what the portal asks for and the task has destroyed."""
        length = min(MAX_LOG_CHUNK_BYTES, stream.size - stream.sent)
        if stream.sent >= stream.base:
            data = self._masked(stream, stream.sent - stream.base, length)
            return data + bytes(length - len(data))
        place = stream.sent - stream.notice
        if 0 <= place < len(NOTICE):
            return NOTICE[place : place + length]
        return bytes(min(length, (stream.notice if place < 0 else stream.base) - stream.sent))

    def _masked(self, stream: Stream, offset: int, length: int) -> bytes:
        """Bytes of the file without its secrets, of which a part may lie outside of them."""
        if not stream.masks:
            return self._file(stream, offset, length)
        before = min(offset, stream.masks.longest - 1)
        whole = self._file(stream, offset - before, before + length + stream.masks.longest - 1)
        return stream.masks.hide(whole)[before : before + length]

    def _file(self, stream: Stream, offset: int, length: int) -> bytes:
        """Bytes of the file, fewer where it is shorter or cannot be read."""
        try:
            # The task owns this file: it must not be able to lead the agent to another one.
            descriptor = os.open(stream.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return b""
        try:
            return os.pread(descriptor, length, offset)
        finally:
            os.close(descriptor)
