"""Reports on their way to the portal, kept until acknowledged.

The end of a task is sent at once; its start waits a moment, whatever else is sent meanwhile, so that a short
task is one report of both. One frame is under way at a time: what comes while the portal stores it goes together
in the next one, and the portal gets a rest half as long as its last answer took, so a busy agent's frames grow by
themselves.

The journal is the durable copy: a restarted agent makes the same reports again from its task folders. Results
stay on disk and are read when their frame is built, so an outage with many ended tasks costs no memory.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from rmctl.agent.output import ResultInvalid, read_result
from rmctl.agent.protocol import Report, ReportKind, Reports

REST_SECONDS_MAX = 0.2
START_SECONDS = 0.2
FRAMES_IN_FLIGHT = 1
ITEMS_PER_FRAME = 500
RESULT_BYTES_PER_FRAME = 1024 * 1024

Key = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Entry:
    report: Report
    result_path: str = ""
    result_size: int = 0

    def complete(self) -> Report:
        """The report with its result read from disk."""
        if not self.result_path:
            return self.report
        try:
            return msgspec.structs.replace(self.report, result=read_result(self.result_path)[0])
        except ResultInvalid as error:
            return msgspec.structs.replace(self.report, reason="result_invalid", detail=str(error))


class Outbox:
    """`acknowledged(key, kind)` is called once for each report that the portal has stored."""

    def __init__(self, acknowledged: Callable[[Key, ReportKind], None]) -> None:
        self._acknowledged = acknowledged
        self._pending: dict[tuple[Key, ReportKind], Entry] = {}
        self._queue: deque[tuple[Key, ReportKind]] = deque()
        # Starts that still wait for their end, with the time at which they go without it; oldest first.
        self._young: dict[Key, float] = {}
        self._in_flight: dict[int, list[tuple[Key, ReportKind]]] = {}
        self._send: Callable[[Reports], None] | None = None
        self._sequence = 0
        self._timer: asyncio.TimerHandle | None = None
        self._flush_at = 0.0
        self._flushed_at = self._rest_until = 0.0

    def add(self, report: Report, result_path: str = "", result_size: int = 0) -> None:
        name = ((report.placement, report.token), report.kind)
        if name not in self._pending:
            key, kind = name
            self._pending[name] = Entry(report, result_path, result_size)
            if kind == "started":
                self._young[key] = asyncio.get_running_loop().time() + START_SECONDS
            else:
                if self._young.pop(key, None) is not None:
                    self._queue.append((key, "started"))
                self._queue.append(name)
            self._schedule()

    def forget(self, key: Key) -> None:
        """Drop the reports of a placement that the portal no longer wants to hear of."""
        self._young.pop(key, None)
        self._pending.pop((key, "started"), None)
        self._pending.pop((key, "ended"), None)

    def connected(self, send: Callable[[Reports], None]) -> None:
        """A new connection: everything that is not acknowledged goes again, in order."""
        self._send = send
        self._in_flight.clear()
        self._young.clear()
        self._queue = deque(self._pending)
        self._schedule()

    def disconnected(self) -> None:
        self._send = None

    def acknowledge(self, sequence: int) -> None:
        now = asyncio.get_running_loop().time()
        self._rest_until = now + min((now - self._flushed_at) / 2, REST_SECONDS_MAX)
        for name in self._in_flight.pop(sequence, []):
            if self._pending.pop(name, None) is not None:
                self._acknowledged(*name)
        self._schedule()

    def _schedule(self) -> None:
        """Flush when something is due and the portal has rested."""
        if self._send is None or len(self._in_flight) >= FRAMES_IN_FLIGHT or not (self._queue or self._young):
            return
        loop = asyncio.get_running_loop()
        due = loop.time() if self._queue else next(iter(self._young.values()))
        at = max(due, self._rest_until)
        if self._timer is not None:
            if self._flush_at <= at:
                return
            self._timer.cancel()
        self._flush_at = at
        self._timer = loop.call_at(at, self._flush)

    def _flush(self) -> None:
        self._timer = None
        now = self._flushed_at = asyncio.get_running_loop().time()
        for key in [key for key, due in self._young.items() if due <= now]:
            del self._young[key]
            self._queue.append((key, "started"))
        while self._send is not None and self._queue and len(self._in_flight) < FRAMES_IN_FLIGHT:
            names: list[tuple[Key, ReportKind]] = []
            items: list[Report] = []
            room = RESULT_BYTES_PER_FRAME
            while self._queue and len(items) < ITEMS_PER_FRAME and room > 0:
                name = self._queue.popleft()
                entry = self._pending.get(name)
                if entry is not None:
                    names.append(name)
                    items.append(entry.complete())
                    room -= entry.result_size
            if items:
                self._sequence += 1
                self._in_flight[self._sequence] = names
                self._send(Reports(self._sequence, items))
        self._schedule()
