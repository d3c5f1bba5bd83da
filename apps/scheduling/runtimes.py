"""How long jobs will run, from what finished ones took (engine.estimates): kept warm, never a scan of history.

What a job took is counted from its grant to its end, as that is how long it holds its room; only last attempts that
succeeded or failed count. Three levels are kept: the latest RUNS of the same tenant and name, read by index when
somebody first asks for them, the latest of the tenant, and the latest of all. After that only what has ended since
is read. Ends that are reported very late are missed, which an estimate can bear.
"""

import threading
import time
from collections.abc import Collection, Hashable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from django.db import connection

from engine.estimates import Estimate, History

RUNS = 50
# Ends read when a process starts, or has not looked for long.
LATEST = 2_000
# What has ended is looked for at most this often.
LOOK_SECONDS = 1.0
# Rows become visible later than the time that they carry: each look goes back so far.
OVERLAP = timedelta(seconds=5)
# Keys read at a time, and kept; who finds no place is estimated by the wider levels for now.
KEYS_AT_ONCE = 200
KEYS_MAX = 5_000
# An estimate follows new ends of its own job at once, and those of others after so long.
KEEP_SECONDS = 15.0

Key = tuple[int, str]
Float64 = npt.NDArray[np.float64]

ENDED = (
    "SELECT j.id, j.tenant_id, j.name, j.ended_at, extract(epoch FROM j.ended_at - a.created_at)::float8 "
    "FROM (SELECT * FROM jobs_job WHERE ended_at > %s ORDER BY ended_at DESC LIMIT %s) j "
    "JOIN jobs_attempt a ON a.job_id = j.id AND a.token = j.token "
    "WHERE j.state IN ('failed', 'succeeded') AND j.started_at IS NOT NULL ORDER BY j.ended_at"
)
RUNS_OF = (
    "SELECT k.tenant, k.name, extract(epoch FROM j.ended_at - a.created_at)::float8 "
    "FROM unnest(%s::bigint[], %s::text[]) AS k(tenant, name) CROSS JOIN LATERAL ("
    " SELECT id, token, ended_at FROM jobs_job WHERE tenant_id = k.tenant AND name = k.name"
    " AND state IN ('failed', 'succeeded') AND started_at IS NOT NULL AND ended_at <= %s"
    " ORDER BY ended_at DESC LIMIT %s) j "
    "JOIN jobs_attempt a ON a.job_id = j.id AND a.token = j.token ORDER BY j.ended_at"
)


@dataclass(frozen=True, slots=True)
class _Kept:
    at: float
    runs: int
    estimate: Estimate


def keys_of(tenant: int, name: str) -> tuple[Hashable, Hashable, Hashable]:
    """The levels of a job's history, from narrow to wide."""
    return (tenant, name), tenant, "all"


class RunTimes:
    """What this process knows of finished jobs. Safe for threads."""

    def __init__(self) -> None:
        self.history = History(window=RUNS)
        self._lock = threading.RLock()
        # Counts the ends seen of each known key, so that an estimate knows whether it is of today.
        self._runs: dict[Key, int] = {}
        self._until: datetime | None = None
        self._tail: set[int] = set()
        self._looked = -LOOK_SECONDS
        self._estimates: dict[tuple[int, str, float], _Kept] = {}

    def look(self, wanted: Iterable[Key], now: datetime) -> None:
        """Learn what has ended since the last look, and what is known of these keys."""
        with self._lock:
            clock = time.monotonic()
            if clock - self._looked >= LOOK_SECONDS or self._until is None:
                self._looked = clock
                self._follow(now)
            missing = [key for key in dict.fromkeys(wanted) if key not in self._runs][:KEYS_AT_ONCE]
            if missing:
                self._read(missing)

    def _follow(self, now: datetime) -> None:
        since = "-infinity" if self._until is None else self._until - OVERLAP
        with connection.cursor() as cursor:
            cursor.execute(ENDED, [since, LATEST])
            rows = cursor.fetchall()
        if len(rows) == LATEST and self._until is not None:
            # Some may lie between: what is known of single keys is read anew when it is asked for.
            self._forget()
        fresh = [row for row in rows if row[0] not in self._tail]
        for _, tenant, name, _, seconds in fresh:
            narrow, *wider = keys_of(tenant, name)
            known = (tenant, name) in self._runs
            self.history.add([narrow, *wider] if known else wider, seconds)
            if known:
                self._runs[tenant, name] += 1
        # A node's clock may be ahead.
        self._until = min(now, max((row[3] for row in rows), default=self._until or now))
        self._tail = {row[0] for row in rows if row[3] > self._until - OVERLAP}

    def _read(self, keys: Collection[Key]) -> None:
        if len(self._runs) + len(keys) > KEYS_MAX:
            self._forget()
        for key in keys:
            self._runs[key] = 0
        with connection.cursor() as cursor:
            tenants, names = ([key[place] for key in keys] for place in (0, 1))
            cursor.execute(RUNS_OF, [tenants, names, self._until, RUNS])
            for tenant, name, seconds in cursor.fetchall():
                self.history.add([keys_of(tenant, name)[0]], seconds)
                self._runs[tenant, name] += 1

    def _forget(self) -> None:
        for key in self._runs:
            self.history.forget(keys_of(*key)[0])
        self._runs.clear()
        self._estimates.clear()

    def estimate(self, tenant: int, name: str, limit: float) -> Estimate:
        """What a job of this tenant and name will take if it is stopped after `limit` seconds."""
        key, clock = (tenant, name, limit), time.monotonic()
        with self._lock:
            kept, runs = self._estimates.get(key), self._runs.get((tenant, name), 0)
            if kept is None or kept.runs != runs or clock - kept.at > KEEP_SECONDS:
                kept = _Kept(clock, runs, self.history.estimate(keys_of(tenant, name), limit))
                if len(self._estimates) > 4 * KEYS_MAX:
                    self._estimates.clear()
                self._estimates[key] = kept
            return kept.estimate

    def copy(self) -> History:
        """An independent copy of the history."""
        with self._lock:
            return self.history.copy()

    def quantiles(
        self, tenant: int, name: str, limit: float, probabilities: Float64, *, elapsed: float = 0.0
    ) -> Float64:
        """The seconds by which such a job has ended with each probability, given that it has run for `elapsed`."""
        with self._lock:
            return self.history.quantiles(keys_of(tenant, name), limit, probabilities, elapsed=elapsed)


@lru_cache(maxsize=1)
def run_times() -> RunTimes:
    """This process's."""
    return RunTimes()
