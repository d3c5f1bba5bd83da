"""Observe: what the advance loop has to look at. A pass reads the tasks of the jobs that have just moved; every
few seconds one reads all that is active, from partial indexes. So its cost never follows the history."""

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from apps.core.rows import fetch

from . import claims, moved, past, waits
from .plans import plan_of
from .states import TaskState
from .unmade import ACTIVE_OF, unfinished

# News and starting runs of one pass; the next pass follows at once when there are more.
NEWS_MAX = 2000
STARTS_MAX = 200
REVIEWS_MAX = 100
# Seconds between two searches of all tasks in flight, and for runs that wait for nothing.
SEARCH_SECONDS = 2.0
REVIEW_SECONDS = 5.0

COLUMNS = (
    "t.id, t.run_id, t.name, t.index, t.state, t.width, t.job_id, t.succeeded, t.failed, t.skipped, "
    "t.detail, t.queued_at, t.started_at, t.ended_at"
)
# A fence: the planner is to look the few up instead of reading all that is in flight.
MOVED_TASKS = "(SELECT * FROM workflows_task WHERE job_id = ANY(%s::bigint[]) OFFSET 0) t"


@dataclass(slots=True)
class TaskRow:
    """A row of `Task` in memory; `source` is the state that is stored, `changed` whether it must be written."""

    pk: int
    run: int
    name: str
    index: int
    state: str
    width: int | None
    job: int | None
    succeeded: int
    failed: int
    skipped: int
    detail: str
    queued_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    source: str = ""
    changed: bool = False
    result: Any = None
    # Whether its end came from the cache.
    cached: bool = False
    # What it is called, if it has come by that in this pass.
    label: str | None = None
    _stored: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        counts = (self.succeeded, self.failed, self.skipped)
        self.source = self.state
        self._stored = (*counts, self.job, self.detail, self.queued_at, self.started_at, self.ended_at)

    def __str__(self) -> str:
        return self.name if self.index < 0 else f"{self.name}[{self.index}]"

    def reset(self) -> None:
        """Take back what was done to a row whose transaction was rolled back."""
        self.state, self.changed, self.result, self.cached = self.source, False, None, False
        self.succeeded, self.failed, self.skipped, self.job, self.detail, *times = self._stored
        self.queued_at, self.started_at, self.ended_at = times

    def move(self, state: str, at: datetime, detail: str | None = None) -> None:
        """Take a new state; `at` is the time of that step."""
        self.state, self.changed = state, True
        if state == TaskState.QUEUED:
            self.queued_at = at
        elif state == TaskState.RUNNING:
            # The first poke of a sensor counts.
            self.started_at = self.started_at or at
        elif state == TaskState.DEFERRED:
            self.started_at = self.started_at or at
        else:
            self.ended_at = at
        if detail is not None:
            self.detail = detail


@dataclass(frozen=True, slots=True)
class News:
    """A task in flight whose job has started, ended or vanished (`job_state` None)."""

    row: TaskRow
    job_state: str | None
    exit_code: int | None
    detail: str
    started_at: datetime | None
    ended_at: datetime | None


@dataclass(slots=True)
class Work:
    """What one run needs in a pass."""

    news: list[News] = field(default_factory=list)
    due: list[tuple[TaskRow, waits.WaitRow]] = field(default_factory=list)
    # Tasks that were given the places that they waited for.
    granted: list[TaskRow] = field(default_factory=list)
    start: bool = False
    review: bool = False


@dataclass(slots=True)
class Observed:
    """Work by run; `more` when a limit cut it off, `blocked` when runs wait for others to end, `freed` when jobs have
    ended whose capacity is free."""

    work: dict[int, Work]
    # In which places of limits over runs may be free.
    tenants: set[int] = field(default_factory=set)
    more: bool = False
    blocked: bool = False
    freed: bool = False


_searched_at = _reviewed_at = float("-inf")


def observe(*, search: bool | None = None, review: bool | None = None) -> Observed:
    """What is to be done now; `search` and `review` ask for (or, if False, leave out) the periodic searches."""
    global _searched_at, _reviewed_at
    observed = Observed(work={})
    told = moved.take(NEWS_MAX)
    if search or (search is None and time.monotonic() - _searched_at > SEARCH_SECONDS):
        _searched_at = time.monotonic()
        news = _news("workflows_task t", [])
        observed.more = told.full or len(news) == NEWS_MAX
    else:
        news = _news(MOVED_TASKS, [told.jobs]) if told.jobs else []
        observed.more = told.full
    # Of those that were told, some may have ended without news of a task, as one that was cleared meanwhile.
    observed.freed = max(len(told.jobs), len(news)) > sum(item.job_state == "running" for item in news)
    if told.waits:
        add_due(observed, told.waits)
    for run_id in told.runs:
        observed.work.setdefault(run_id, Work()).review = True
    observed.tenants |= told.tenants
    for item in news:
        observed.work.setdefault(item.row.run, Work()).news.append(item)
    _starts(observed)
    if review or (review is None and time.monotonic() - _reviewed_at > REVIEW_SECONDS):
        _reviewed_at = time.monotonic()
        for run_id in (*_stuck(), *past.released(), *unfinished()):
            observed.work.setdefault(run_id, Work()).review = True
        tenants, late = claims.overdue()
        observed.tenants |= tenants
        add_granted(observed, late)
    return observed


def _news(tasks: str, parameters: list[Any], condition: str = "") -> list[News]:
    rows = fetch(
        f"SELECT {COLUMNS}, j.state, j.exit_code, j.detail, j.started_at, j.ended_at "
        f"FROM {tasks} LEFT JOIN jobs_job j ON j.id = t.job_id "
        "WHERE t.state IN ('queued', 'running') AND t.width IS NULL "
        "AND (j.id IS NULL OR j.state IN ('succeeded', 'failed', 'cancelled') "
        f"OR (t.state = 'queued' AND j.state = 'running')) {condition} "
        f"ORDER BY t.id LIMIT {NEWS_MAX}",
        parameters,
    )
    return [News(TaskRow(*row[:14]), row[14], row[15], row[16] or "", row[17], row[18]) for row in rows]


def add_due(observed: Observed, tasks: list[int]) -> None:
    """Add the waits of these tasks, as far as they still wait."""
    rows = fetch(
        f"SELECT {COLUMNS}, {waits.COLUMNS} FROM workflows_wait w JOIN workflows_task t ON t.id = w.task_id "
        f"{waits.JOINED} WHERE w.task_id = ANY(%s::bigint[]) AND t.state = 'deferred' ORDER BY t.id",
        [tasks],
    )
    for row in rows:
        task = TaskRow(*row[:14])
        observed.work.setdefault(task.run, Work()).due.append((task, waits.read(row[14:])))


def add_granted(observed: Observed, tasks: list[int]) -> None:
    """Add tasks that have the places that they waited for."""
    if not tasks:
        return
    for row in fetch(f"SELECT {COLUMNS} FROM workflows_task t WHERE t.id = ANY(%s) ORDER BY t.id", [tasks]):
        task = TaskRow(*row)
        observed.work.setdefault(task.run, Work()).granted.append(task)


def news_of(run: int) -> list[News]:
    """The news of one run."""
    return _news("workflows_task t", [run], "AND t.run_id = %s")


def _starts(observed: Observed) -> None:
    """Queued runs, in the order of their logical times, as far as their version's limit of active runs allows.

    Scheduled runs of a paused workflow stay where they are, unless somebody cleared them. Runs of a backfill count
    for its own limit only, come in its order, and wait while it is paused. One that was cleared and that tasks of
    others wait for (`depends_on_past`) starts beside the limit: those that hold its places may be who waits for it.
    """
    if not fetch("SELECT 1 FROM workflows_run WHERE state = 'queued' LIMIT 1"):
        return
    rows = fetch(
        "WITH active AS MATERIALIZED ("
        " SELECT workflow_id, coalesce(backfill_id, 0) AS backfill, count(*) AS runs"
        " FROM workflows_run WHERE state = 'running' GROUP BY 1, 2"
        "), queued AS ("
        " SELECT r.id, r.version_id, r.workflow_id, r.logical_time, coalesce(b.id, 0) AS backfill,"
        "  b.max_active_runs AS own_limit, row_number() OVER ("
        "   PARTITION BY r.workflow_id, r.backfill_id"
        "   ORDER BY extract(epoch FROM r.logical_time) * (CASE b.order WHEN 'backward' THEN -1 ELSE 1 END), r.id"
        "  ) AS place, r.edits"
        " FROM workflows_run r JOIN workflows_workflow w ON w.id = r.workflow_id"
        " LEFT JOIN workflows_backfill b ON b.id = r.backfill_id"
        " WHERE r.state = 'queued' AND NOT (w.paused AND r.trigger = 'schedule' AND r.edits = 0)"
        "  AND b.state IS DISTINCT FROM 'paused'"
        ") SELECT q.id, q.version_id, q.own_limit, q.place + coalesce(a.runs, 0), q.edits "
        "FROM queued q LEFT JOIN active a ON a.workflow_id = q.workflow_id AND a.backfill = q.backfill "
        "WHERE q.place + coalesce(a.runs, 0) <= 1000 "
        f"ORDER BY q.place, q.logical_time, q.id LIMIT {STARTS_MAX + 1}"
    )
    cleared = []
    for run_id, version_id, own_limit, place, edits in rows[:STARTS_MAX]:
        try:
            limit = own_limit or plan_of(version_id).max_active_runs
        except ValueError:
            limit = 1  # Its start will say what is wrong with the definition.
        if place <= limit:
            observed.work.setdefault(run_id, Work()).start = True
        else:
            observed.blocked = True
            if edits:
                cleared.append(run_id)
    for run_id in past.awaited(cleared) if cleared else ():
        observed.work.setdefault(run_id, Work()).start = True
    observed.more |= len(rows) > STARTS_MAX and any(work.start for work in observed.work.values())


def _stuck() -> list[int]:
    """Running runs of which no task has a job in flight or waits: what they wait for, nobody will bring.

    A deferred task is brought by its wait, one that waits for the run before by what it waits for, and one that waits
    for places at a limit by whoever leaves some.
    """
    rows = fetch(
        "SELECT r.id FROM workflows_run r WHERE r.state = 'running' AND r.id NOT IN ("
        " SELECT t.run_id FROM workflows_task t WHERE t.state IN ('queued', 'running') AND t.job_id IS NOT NULL) "
        "AND NOT EXISTS (SELECT 1 FROM workflows_task t WHERE t.run_id = r.id AND t.state = 'deferred') "
        "AND NOT EXISTS (SELECT 1 FROM workflows_pastwait w WHERE w.run_id = r.id) "
        "AND NOT EXISTS (SELECT 1 FROM workflows_slotclaim c WHERE c.run_id = r.id) "
        f"ORDER BY r.id LIMIT {REVIEWS_MAX}"
    )
    return [row[0] for row in rows]


def load_tasks(wanted: Mapping[int, Iterable[str]]) -> list[TaskRow]:
    """The tasks (not instances) with these names, by run."""
    pairs = [(run, name) for run, names in wanted.items() for name in names]
    if not pairs:
        return []
    rows = fetch(
        f"SELECT {COLUMNS} FROM unnest(%s::bigint[], %s::text[]) AS w(run_id, name) "
        "JOIN workflows_task t ON t.run_id = w.run_id AND t.name = w.name AND t.index = -1",
        [[run for run, _ in pairs], [name for _, name in pairs]],
    )
    return [TaskRow(*row) for row in rows]


def load_all(runs: Iterable[int]) -> list[TaskRow]:
    """Every task of the runs, and the instances that have no job yet."""
    rows = fetch(
        f"SELECT {COLUMNS} FROM workflows_task t WHERE t.run_id = ANY(%s) "
        "AND (t.index = -1 OR t.state = 'waiting') ORDER BY t.id",
        [list(runs)],
    )
    return [TaskRow(*row) for row in rows]


def load_waiting(wanted: Mapping[int, Mapping[str, int]]) -> list[TaskRow]:
    """So many instances that wait and are not in line for places, the first ones, of these mapped tasks, by run and
    name."""
    asked = [(run, name, count) for run, names in wanted.items() for name, count in names.items()]
    rows = fetch(
        f"SELECT {COLUMNS} FROM unnest(%s::bigint[], %s::text[], %s::int[]) AS w(run_id, name, count) "
        f"CROSS JOIN LATERAL (SELECT * FROM {ACTIVE_OF.format('w')} WHERE t.name = w.name "
        "AND t.index >= 0 AND t.state = 'waiting' "
        "AND NOT EXISTS (SELECT 1 FROM workflows_slotclaim c WHERE c.task_id = t.id) "
        "ORDER BY t.index LIMIT w.count) t ORDER BY t.id",
        [list(column) for column in zip(*asked, strict=True)],
    )
    return [TaskRow(*row) for row in rows]


def count_instances(run: int) -> dict[str, dict[str, int]]:
    """Ended instances of a run's mapped tasks: name → state → how many."""
    rows = fetch(
        "SELECT name, state, count(*) FROM workflows_task WHERE run_id = %s AND index >= 0 GROUP BY name, state",
        [run],
    )
    found: dict[str, dict[str, int]] = {}
    for name, state, count in rows:
        found.setdefault(name, {})[state] = count
    return found


def job_results(jobs: Iterable[int]) -> dict[int, Any]:
    """What these jobs returned."""
    rows = fetch("SELECT id, result FROM jobs_job WHERE id = ANY(%s)", [list(jobs)])
    return {job: None if raw is None else json.loads(raw) for job, raw in rows}


def count_in_flight(runs: Iterable[int]) -> dict[int, int]:
    """Tasks with a job in flight, by run."""
    rows = fetch(
        "SELECT run_id, count(*) FROM workflows_task WHERE run_id = ANY(%s) "
        "AND state IN ('queued', 'running') AND job_id IS NOT NULL GROUP BY run_id",
        [list(runs)],
    )
    return dict(rows)


def with_active_tasks(runs: Iterable[int]) -> set[int]:
    """Those of the runs that have a task which has not ended."""
    rows = fetch(
        "SELECT DISTINCT run_id FROM workflows_task WHERE run_id = ANY(%s) "
        "AND state IN ('waiting', 'deferred', 'queued', 'running')",
        [list(runs)],
    )
    return {row[0] for row in rows}


def task_states(run: int) -> dict[str, str]:
    """The state of every task of a run (mapped ones as a whole)."""
    return dict(fetch("SELECT name, state FROM workflows_task WHERE run_id = %s AND index = -1", [run]))
