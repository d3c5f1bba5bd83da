"""Results that come from earlier ones: asked for together in a pass, and kept when a task has succeeded.

A pass costs one query for each step of the graph that has tasks with a cache; a pass without such tasks pays nothing.
Two starts with the same key at once both run, and the later result is the one that is found. Lock order: as the pass
that calls this, which holds the runs.
"""

import json
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from django.db import connection

from apps.core.bulk import insert
from apps.tenants.versions import stored_versions
from rmctl.spec import CompiledTask
from rmctl.spec.caching import CacheKey, key_of, references

from .models import CacheUse, Run
from .observe import TaskRow
from .results import RESULTS_BYTES
from .states import TaskState

if TYPE_CHECKING:
    from .progress import Progress

# Entries of one tenant; of more the oldest are let go.
ENTRIES_MAX = 100_000
FORGET_MAX = 10_000
FORGET_SECONDS = 600


@dataclass(frozen=True, slots=True)
class Found:
    """An entry: whose start it was, when it succeeded, and what it returned."""

    use: int
    run: int
    task: str
    at: datetime
    result: Any

    def __str__(self) -> str:
        return f"From the cache: run {self.run}'s result of {self.at:%Y-%m-%d %H:%M:%S} UTC."


@dataclass(slots=True)
class Ask:
    """A task or an instance that may be spared; `key` is known once all of them are looked up."""

    row: TaskRow
    task: CompiledTask
    inputs: Mapping[str, Any]
    key: CacheKey | None = None


@dataclass(slots=True)
class Caching:
    """The tasks of one run, in a pass, that have a cache."""

    asks: list[Ask] = field(default_factory=list)
    # Those that were answered, with what was found; None where the task runs.
    answered: list[tuple[Ask, Found | None]] = field(default_factory=list)


def answer(progress: Iterable["Progress"], now: datetime) -> None:
    """Let every task that asks for an earlier result end with it, or start."""
    asking = [one for one in progress if one.caching.asks]
    if not asking:
        return
    stored = _stored(asking)
    pairs: list[tuple[Progress, Ask]] = []
    for one in asking:
        asks, one.caching.asks = one.caching.asks, []
        for ask in asks:
            ask.key = key_of(ask.task, ask.inputs, one.circumstances(ask.row, stored.get(one.run.tenant_id, {})))
            pairs.append((one, ask))
    found = _entries([(one.run, ask) for one, ask in pairs if not one.run.no_cache], now)
    for one, ask in pairs:
        assert ask.key is not None
        one.answer(ask, None if one.run.no_cache else found.get((one.run.tenant_id, ask.key.digest)))


def _stored(asking: Iterable["Progress"]) -> dict[int, dict[str, str]]:
    """The versions of what the tasks get of their tenants', by tenant."""
    wanted: dict[int, set[str]] = {}
    for one in asking:
        for ask in one.caching.asks:
            wanted.setdefault(one.run.tenant_id, set()).update(references(ask.task))
    return {tenant: stored_versions(tenant, names) for tenant, names in wanted.items() if names}


def _entries(asks: Sequence[tuple[Run, Ask]], now: datetime) -> dict[tuple[int, str], Found]:
    """The newest live entry for each that asks, as far as their results are not too large to be read together."""
    if not asks:
        return {}
    since: dict[tuple[int, str], datetime] = {}
    for run, ask in asks:
        assert ask.key is not None and ask.task.cache is not None
        name = (run.tenant_id, ask.key.digest)
        # A version that grants less time does not take what another one has kept for longer.
        youngest = now - timedelta(seconds=ask.task.cache.ttl)
        since[name] = max(since.get(name, youngest), youngest)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT * FROM (SELECT f.*, sum(octet_length(f.result::text)) OVER (ORDER BY f.id) AS together FROM ("
            " SELECT DISTINCT ON (e.tenant_id, e.key)"
            "  e.tenant_id, e.key, e.id, e.run_id, e.name, e.index, e.stored_at, j.result"
            " FROM unnest(%s::bigint[], %s::text[], %s::timestamptz[]) AS w(tenant_id, key, since)"
            " JOIN workflows_cacheuse e ON e.tenant_id = w.tenant_id AND e.key = w.key AND e.stored_at > w.since"
            "  AND e.expires_at > %s"
            " JOIN jobs_job j ON j.id = e.job_id AND j.state = 'succeeded'"
            " ORDER BY e.tenant_id, e.key, e.stored_at DESC, e.id DESC) f) g"
            " WHERE together IS NULL OR together <= %s",
            [
                [tenant for tenant, _ in since],
                [key for _, key in since],
                list(since.values()),
                now,
                RESULTS_BYTES,
            ],
        )
        rows = cursor.fetchall()
    found = {}
    for tenant, key, use, run, name, index, at, result, _ in rows:
        task = name if index < 0 else f"{name}[{index}]"
        found[tenant, key] = Found(use, run, task, at, None if result is None else json.loads(result))
    return found


def write(progress: Iterable["Progress"], now: datetime) -> None:
    """Store what the tasks of a pass did with their cache, once their jobs are made, and keep what has succeeded."""
    uses = []
    done: list[tuple[int, str, int, int]] = []
    for one in progress:
        if not one.plan.cached:
            continue
        uses += [_use(one.run, ask, found, now) for ask, found in one.caching.answered]
        done += [
            (one.run.pk, row.name, row.index, row.job)
            for row in one.touched
            if row.name in one.plan.cached and row.job is not None and row.state == TaskState.SUCCEEDED != row.source
        ]
    insert(uses)
    if not done:
        return
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE workflows_cacheuse u SET stored_at = %s, expires_at = %s + u.ttl * interval '1 second' "
            "FROM unnest(%s::bigint[], %s::text[], %s::integer[], %s::bigint[]) AS w(run_id, name, index, job_id) "
            "WHERE u.run_id = w.run_id AND u.name = w.name AND u.index = w.index AND u.job_id = w.job_id",
            [now, now, *(list(column) for column in zip(*done, strict=True))],
        )


def _use(run: Run, ask: Ask, found: Found | None, now: datetime) -> CacheUse:
    assert ask.key is not None and ask.task.cache is not None
    outcome = CacheUse.Outcome.HIT if found else CacheUse.Outcome.BYPASS if run.no_cache else CacheUse.Outcome.MISS
    return CacheUse(
        tenant_id=run.tenant_id,
        workflow_id=run.workflow_id,
        run=run,
        name=ask.row.name,
        index=ask.row.index,
        outcome=str(outcome),
        key=ask.key.digest,
        parts=ask.key.parts,
        ttl=ask.task.cache.ttl,
        at=now,
        source_id=found.use if found else None,
        job_id=ask.row.job,
    )


def drop(run_id: int, names: Collection[str], instances: Mapping[str, Collection[int]]) -> int:
    """Let go of the entries that tasks of a run made or came from, so that they run when they start again.

    Also those of other runs with the same keys: whoever clears a task wants its result made anew. Returns how many.
    """
    pairs = [(name, index) for name, some in instances.items() for index in some]
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE workflows_cacheuse e SET expires_at = NULL FROM ("
            " SELECT DISTINCT u.tenant_id, u.key FROM workflows_cacheuse u WHERE u.run_id = %s AND (u.name = ANY(%s)"
            "  OR (u.name, u.index) IN (SELECT * FROM unnest(%s::text[], %s::integer[])))) w "
            "WHERE e.tenant_id = w.tenant_id AND e.key = w.key AND e.expires_at IS NOT NULL",
            [run_id, list(names), [name for name, _ in pairs], [index for _, index in pairs]],
        )
        return int(cursor.rowcount)


def forget(now: datetime) -> int:
    """Let go of entries whose time is over, and of the oldest where a tenant has too many. What tasks did with their
    cache stays with their run. Returns how many."""
    expired = CacheUse.objects.filter(expires_at__lte=now).values_list("pk", flat=True)[:FORGET_MAX]
    gone = CacheUse.objects.filter(pk__in=list(expired)).update(expires_at=None)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT tenant_id FROM workflows_cacheuse WHERE expires_at IS NOT NULL "
            "GROUP BY tenant_id HAVING count(*) > %s",
            [ENTRIES_MAX],
        )
        for (tenant_id,) in cursor.fetchall():
            live = CacheUse.objects.filter(tenant_id=tenant_id, expires_at__isnull=False)
            keep = live.order_by("-stored_at", "-pk").values_list("pk", flat=True)[:ENTRIES_MAX]
            gone += live.exclude(pk__in=list(keep)).update(expires_at=None)
    return gone


_forgotten_at = float("-inf")


def forget_sometimes(now: datetime) -> None:
    """`forget`, at most every few minutes: what is over is not found anyway, this only keeps the indexes small."""
    global _forgotten_at
    if time.monotonic() - _forgotten_at > FORGET_SECONDS:
        _forgotten_at = time.monotonic()
        forget(now)
