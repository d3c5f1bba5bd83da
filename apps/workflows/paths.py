"""The longest path of a run, as its pages, the API and `rmctl runs show` tell it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from graphlib import TopologicalSorter

from django.db import connection

from apps.core.rows import fetch
from engine import paths
from engine.weights import completed

from .models import Run
from .path_history import usual_seconds
from .states import TASK_ACTIVE

# Names that are told: of a longer path the first ones and the last.
FIRST, LAST = 2, 3

# Times as seconds, since ten thousand moments with a time zone take longer to make than all the rest.
_SPANS = """
SELECT name, state, extract(epoch FROM started_at)::float8,
       extract(epoch FROM coalesce(started_at, queued_at))::float8, extract(epoch FROM ended_at)::float8
FROM workflows_task WHERE run_id = %s AND index = -1
"""
_UPSTREAM = """
SELECT t ->> 'id', ARRAY(SELECT jsonb_array_elements_text(t -> 'upstream'))
FROM workflows_workflowversion v, jsonb_array_elements(v.definition -> 'tasks') t WHERE v.id = %s
"""


@dataclass(frozen=True, slots=True)
class Shape:
    """The edges of a version both ways, and its tasks in an order in which each stands behind what it waits for."""

    upstream: Mapping[str, Sequence[str]]
    downstream: Mapping[str, Sequence[str]]
    order: Sequence[str]


@lru_cache(maxsize=32)
def shape_of(version_id: int) -> Shape:
    """The shape of a version, which never changes; nothing else of its definition is read."""
    upstream: dict[str, list[str]] = dict(fetch(_UPSTREAM, [version_id]))
    downstream: dict[str, list[str]] = {name: [] for name in upstream}
    for name, before in upstream.items():
        for other in before:
            downstream[other].append(name)
    return Shape(upstream, downstream, tuple(TopologicalSorter(upstream).static_order()))


@dataclass(frozen=True, slots=True)
class LongestPath:
    """The chain of tasks that decided when a run ended or, by its latest runs, will; times in seconds.

    `chain` are its tasks, `names` those of them that take time of their own. `spent` is what these took so far, of the
    `total` that the run has; `left` is what they still take, None where the run has ended or no earlier run tells.
    """

    chain: tuple[str, ...]
    names: tuple[str, ...]
    spent: float
    total: float
    left: float | None = None
    ended: bool = True

    @property
    def share(self) -> int:
        """How much of the run's time its tasks took, in percent."""
        return round(100 * self.spent / self.total) if self.total > 0 else 0

    @property
    def first(self) -> tuple[str, ...]:
        """The names that are told, or the first of them."""
        return self.names if not self.between else self.names[:FIRST]

    @property
    def between(self) -> int:
        """How many are not told, between the first and the last."""
        more = len(self.names) - FIRST - LAST
        return more if more > 1 else 0

    @property
    def last(self) -> tuple[str, ...]:
        """The last names, where some before are not told."""
        return self.names[-LAST:] if self.between else ()


def longest_path(run: Run, now: datetime) -> LongestPath | None:
    """The longest path of a run; None where nothing of it has begun, or it has no tasks."""
    if run.started_at is None:
        return None
    with connection.cursor() as cursor:
        cursor.execute(_SPANS, [run.pk])
        rows = cursor.fetchall()
    spans = {name: paths.Span(begun, ended) for name, _, _, begun, ended in rows}
    shape = shape_of(run.version_id)
    until = run.ended_at or now
    total = (until - run.started_at).total_seconds()
    if run.ended_at is not None:
        chain = paths.finished(shape.upstream, spans)
        names = tuple(name for name in chain if spans[name].begun is not None)
        return LongestPath(tuple(chain), names, _spent(names, spans, run.started_at, until), total) if names else None
    history = usual_seconds(run.workflow_id, len(rows))
    usual = completed(spans, history)
    at = now.timestamp()
    left = {
        name: max(0.0, usual[name] - (at - started if started is not None else 0.0))
        for name, state, started, _, _ in rows
        if state in TASK_ACTIVE
    }
    chain = paths.running(shape.order, shape.upstream, shape.downstream, spans, left)
    names = tuple(name for name in chain if name in left or spans[name].begun is not None)
    if not names:
        return None
    to_come = sum(left.get(name, 0.0) for name in names) if history else None
    return LongestPath(tuple(chain), names, _spent(names, spans, run.started_at, until), total, to_come, ended=False)


def _spent(names: tuple[str, ...], spans: dict[str, paths.Span], since: datetime, until: datetime) -> float:
    """Seconds between these moments in which one of these tasks ran: each begins where its rule lets it, so that one
    may begin before the other has ended."""
    covered, now = since.timestamp(), until.timestamp()
    spent = 0.0
    for begun, ended in (spans[name] for name in names):
        if begun is not None:
            end = min(now, now if ended is None else ended)
            spent += max(0.0, end - max(begun, covered))
            covered = max(covered, end)
    return spent
