"""Reads of the pages of workflows and runs: one statement each, aggregated where rows may be tens of thousands.

What a browser draws itself goes as arrays: a state is a letter, `a` the first of TaskState, times are whole
milliseconds from the run's start.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from django.db import connection
from django.db.models import Count, F, FloatField, Func, Max, Q, QuerySet
from django.db.models.functions import TruncDate

from apps.core.rows import fetch
from apps.workflows.models import Run, Task, Workflow, WorkflowVersion
from apps.workflows.slot_queries import may_wait, why_waiting
from apps.workflows.states import TaskState
from apps.workflows.unmade import with_missing

from .graphs import Kind, TaskView, edges, groups, kind_of, of_version

LETTERS = {state: chr(ord("a") + place) for place, state in enumerate(TaskState.values)}
# What one answer of the grid holds at most, in cells; of a workflow of many tasks there are fewer runs in it.
CELLS_MAX = 60_000
COLUMNS_MIN, COLUMNS_MAX = 8, 240

_LETTER = "chr(96 + array_position(%s::text[], state::text))"


def _ms(moment: str) -> str:
    """SQL of a moment in ms from the moment %(begin)s, -1 where it has not come: counted by the database, since moments
    with a time zone are slow to make by the thousand."""
    since = f"extract(epoch FROM {moment} - %(begin)s::timestamptz)"
    return f"coalesce(greatest(0, round({since} * 1000))::int8, -1)"


_TIMES = (
    "chr(96 + array_position(%(states)s::text[], state::text)), "
    f"{_ms('queued_at')}, {_ms('started_at')}, {_ms('ended_at')} FROM workflows_task WHERE run_id = %(run)s"
)
_TASK_TIMES = f"SELECT name, width, {_TIMES} AND index = -1 ORDER BY id"
_INSTANCE_TIMES = f"SELECT index, label, {_TIMES} AND name = %(task)s AND index >= 0 ORDER BY index"
_INSTANCES = (
    "FROM workflows_task i JOIN workflows_task g ON (g.run_id, g.name, g.index) = (i.run_id, i.name, -1) "
    "WHERE i.run_id = %(run)s AND i.name = ANY(%(mapped)s) AND i.index >= 0"
)
# Instances that stayed when others were cleared, after the mapped task had ended, do not count for its time.
_OF_THIS_TRY = "FILTER (WHERE (i.started_at < g.queued_at) IS NOT TRUE)"
_SPANS = (
    f"SELECT i.name, {_ms(f'min(i.queued_at) {_OF_THIS_TRY}')}, {_ms(f'min(i.started_at) {_OF_THIS_TRY}')} "
    f"{_INSTANCES} GROUP BY i.name"
)
_COUNTS = (
    f"SELECT i.name, i.state, count(*), extract(epoch FROM min(i.started_at) {_OF_THIS_TRY})::float8 "
    f"{_INSTANCES} GROUP BY i.name, i.state"
)


@dataclass(frozen=True)
class Topology:
    """What graphs and lists need of a version: its edges, what each of its groups is in, and the kind of each task."""

    edges: tuple[tuple[str, str], ...]
    groups: Mapping[str, str]
    kinds: Mapping[str, Kind]


@lru_cache(maxsize=32)
def topology(version_id: int) -> Topology:
    """The topology of a version, which never changes: a definition may be megabytes, and graphs are read often."""
    definition = WorkflowVersion.objects.values_list("definition", flat=True).get(pk=version_id)
    return Topology(
        edges=tuple((source, target) for source, target in edges(definition)),
        groups=groups(definition),
        kinds={task["id"]: kind_of(task) for task in definition["tasks"]},
    )


@lru_cache(maxsize=32)
def version_graph(version_id: int, opened: tuple[str, ...] | None) -> dict[str, Any]:
    """The graph of a version without states, with these groups open; it never changes either."""
    definition = WorkflowVersion.objects.values_list("definition", flat=True).get(pk=version_id)
    return of_version(definition, opened)


def task_views(run: Run, rows: QuerySet[Task]) -> list[TaskView]:
    """These tasks of a run (index -1) as pages show them, in their order; instances only as counts."""
    kinds = topology(run.version_id).kinds
    views: dict[str, TaskView] = {}
    columns = ("name", "state", "width", "detail", "pk", _epoch_of("started_at"), _epoch_of("ended_at"))
    found = list(rows.values_list(*columns))
    why = why_waiting([row[4] for row in found if may_wait(row[1], row[3])])
    for name, state, width, detail, pk, began, ended in found:
        detail = why.get(pk, detail)
        kind = kinds.get(name) or Kind("", mapped=width is not None)
        views[name] = TaskView(name, state, kind, width, detail, began, ended)
    expanded = [view.name for view in views.values() if view.width]
    if expanded:
        for name, state, count, began in fetch(_COUNTS, {"run": run.pk, "mapped": expanded}):
            view = views[name]
            view.counts[state] = count
            if began is not None and (view.began is None or began < view.began):
                view.began = began
        for name in expanded:
            with_missing(views[name].counts, views[name].state, views[name].width)
    return list(views.values())


def grid(workflow: Workflow, *, before: int | None = None, since: int | None = None) -> dict[str, Any]:
    """Runs × tasks as far as one answer goes: the newest, those before a run, or those since one.

    {"states": […], "run_states": […], "runs": [[id, state, started, seconds], …] newest first (seconds since the
    epoch, -1 where it has not begun, or goes on), "lists": [[task, …], …], "cells": [[list, letters], …], "older": id,
    "groups": [[group, the one that it is in], …], "inside": [[place of its group, …], …] as the lists}. Groups are
    those of the current version; what is in none has -1.
    """
    rows = Run.objects.filter(workflow=workflow).order_by("-pk")
    columns = columns_of(workflow)
    if before is not None:
        rows = rows.filter(pk__lt=before)
    if since is not None:
        rows = rows.filter(pk__gte=since)
    found = list(rows.values_list("pk", "state", "started_at", "ended_at")[: columns + 1])
    older = found[columns - 1][0] if len(found) > columns else None
    found = found[:columns]
    states = list(Run._meta.get_field("state").choices or ())
    places = {value: place for place, (value, _) in enumerate(states)}
    lists, cells = _cells([row[0] for row in found])
    return {
        "states": TaskState.values,
        "run_states": list(places),
        "runs": [[pk, places[state], _epoch(began), _seconds(began, ended)] for pk, state, began, ended in found],
        "lists": lists,
        "cells": [cells.get(row[0], [0, ""]) for row in found],
        "older": older,
        **_grouped(workflow.current_id, lists),
    }


def _grouped(version_id: int | None, lists: Sequence[Sequence[str]]) -> dict[str, Any]:
    """The groups of a version, and the place of each listed task's group among them, or -1."""
    known = topology(version_id) if version_id is not None else Topology((), {}, {})
    places = {name: place for place, name in enumerate(known.groups)}
    inside = {name: places.get(kind.group, -1) for name, kind in known.kinds.items()}
    return {
        "groups": list(known.groups.items()),
        "inside": [[inside.get(name, -1) for name in names] if places else [] for names in lists],
    }


def columns_of(workflow: Workflow) -> int:
    """How many runs of the workflow one answer may hold."""
    newest = Run.objects.filter(workflow=workflow).order_by("-pk").values("pk")[:1]
    tasks = Task.objects.filter(run__in=newest, index=-1).count() or 1
    return max(COLUMNS_MIN, min(COLUMNS_MAX, CELLS_MAX // tasks))


def _cells(runs: Sequence[int]) -> tuple[list[list[str]], dict[int, list[Any]]]:
    """The states of each run's tasks as letters, and the lists of names that they go by: most runs share one."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT run_id, string_agg({_LETTER}, '' ORDER BY id), md5(string_agg(name, ' ' ORDER BY id)) "
            "FROM workflows_task WHERE run_id = ANY(%s) AND index = -1 GROUP BY run_id",
            [TaskState.values, list(runs)],
        )
        rows = cursor.fetchall()
        examples = {digest: run for run, _, digest in rows}
        cursor.execute(
            "SELECT run_id, array_agg(name ORDER BY id) FROM workflows_task "
            "WHERE run_id = ANY(%s) AND index = -1 GROUP BY run_id",
            [list(examples.values())],
        )
        names = dict(cursor.fetchall())
    place = {digest: number for number, digest in enumerate(examples)}
    lists = [names[run] for run in examples.values()]
    return lists, {run: [place[digest], letters] for run, letters, digest in rows}


def gantt(run: Run, now: datetime, task: str | None = None) -> dict[str, Any]:
    """When each task (or each instance of one) was queued, started and ended.

    {"states": […], "from": epoch seconds, "now": ms, "names": […], "letters": "…", "times": [queued, started, ended,
    …] in ms with -1 for what has not come, "widths": {name: instances}, and the "groups" of the version as in a grid,
    or the "labels" of instances that have some}. A mapped task spans its instances.
    """
    begin = run.started_at or run.created_at
    asked = {"states": TaskState.values, "begin": begin, "run": run.pk, "task": task}
    widths: dict[str, int] = {}
    with connection.cursor() as cursor:
        cursor.execute(_TASK_TIMES if task is None else _INSTANCE_TIMES, asked)
        found: list[Sequence[Any]] = cursor.fetchall()
        if task is None:
            widths = {row[0]: row[1] for row in found if row[1]}
            spans: dict[str, list[int]] = {}
            if widths:
                cursor.execute(_SPANS, {**asked, "mapped": list(widths)})
                spans = {name: times for name, *times in cursor.fetchall()}
            found = [_spanned(row, spans.get(row[0])) for row in found]
    labels: list[str | None] = []
    if task is not None:
        labels, found = [row[1] for row in found], [(row[0], *row[2:]) for row in found]
    names = [row[0] for row in found]
    return {
        "states": TaskState.values,
        "from": _epoch(begin),
        "now": _since(begin, run.ended_at or now),
        "names": names,
        "letters": "".join(row[1] for row in found),
        "times": [moment for row in found for moment in row[2:]],
        "widths": widths,
        **(_grouped(run.version_id, [names]) if task is None else {"labels": labels} if any(labels) else {}),
    }


def _spanned(row: Sequence[Any], times: Sequence[int] | None) -> tuple[Any, ...]:
    name, _, letter, queued, started, ended = row
    if times is None:
        return name, letter, queued, started, ended
    # While it goes on its last instance has not ended, whatever the others did.
    return name, letter, times[0], times[1], ended


def runs_of_days(workflow: Workflow, first: date, last: date) -> Q:
    """Runs whose logical time is in these days of the workflow's time zone, the last included."""
    zone = ZoneInfo(workflow.timezone)
    begin, end = (datetime(day.year, day.month, day.day, tzinfo=zone) for day in (first, last + timedelta(days=1)))
    return Q(workflow=workflow, logical_time__gte=begin, logical_time__lt=end)


def latest_day(workflow: Workflow) -> date | None:
    """The day of the latest logical time that has a run."""
    latest = Run.objects.filter(workflow=workflow).aggregate(at=Max("logical_time"))["at"]
    return None if latest is None else latest.astimezone(ZoneInfo(workflow.timezone)).date()


def days(workflow: Workflow, first: date, last: date) -> dict[date, dict[str, int]]:
    """How many runs of each state each day has by their logical time, from the first day up to the last."""
    rows = Run.objects.filter(runs_of_days(workflow, first, last)).order_by()
    of_day = TruncDate("logical_time", tzinfo=ZoneInfo(workflow.timezone))
    counted = rows.annotate(day=of_day).values_list("day", "state").annotate(count=Count("pk"))
    found: dict[date, dict[str, int]] = {}
    for day, state, count in counted:
        found.setdefault(day, {})[state] = count
    return found


def _epoch_of(column: str) -> Func:
    """A moment as seconds since the epoch."""
    return Func(F(column), template="extract(epoch FROM %(expressions)s)::float8", output_field=FloatField())


def _epoch(moment: datetime | None) -> int:
    return -1 if moment is None else int(moment.timestamp())


def _since(begin: datetime, moment: datetime | None) -> int:
    return -1 if moment is None else max(0, round((moment - begin).total_seconds() * 1000))


def _seconds(began: datetime | None, ended: datetime | None) -> float:
    return -1 if began is None or ended is None else round((ended - began).total_seconds(), 2)
