"""The timetable's runs: created when their data interval has ended."""

import logging
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from django.db import IntegrityError, connection, transaction

from apps.core import loops
from apps.core.actors import SYSTEM
from apps.core.errors import DomainError
from rmctl.spec.schedule import CONTINUOUS

from ..models import Run, Workflow
from ..moved import tell_timetable
from ..states import RUN_ACTIVE, RunState
from ..timetable import Interval, due, end_of
from .runs import NewRun, checked_params, create_runs

logger = logging.getLogger(__name__)

# Workflows in one pass, and runs that one workflow gets in it while it catches up.
WORKFLOWS_MAX = 500
RUNS_MAX = 100
# Scheduled runs that may wait in one workflow's queue; catching up goes on as they start.
BACKLOG_MAX = 200
# How often a continuous workflow whose run has not succeeded is looked at. So one whose runs fail at once does not
# spin; after a success the next run follows at once.
CONTINUOUS_SECONDS = 10


def create_due_runs(now: datetime) -> bool:
    """One pass of the timetable; returns whether more is due at once."""
    due = Workflow.objects.filter(paused=False, next_run_at__lte=now).order_by("next_run_at", "pk")
    ids = list(due.values_list("pk", flat=True)[:WORKFLOWS_MAX])
    more = False
    for workflow_id in ids:
        try:
            more |= _create_of(workflow_id, now)
        except (DomainError, ValueError, IntegrityError):
            # One workflow that cannot be scheduled must not keep the others waiting.
            logger.exception("The timetable could not make the runs of workflow %s", workflow_id)
    return more


def next_due(now: datetime) -> datetime | None:
    """When the next run is due, if that is soon."""
    soon = Workflow.objects.filter(paused=False, next_run_at__gt=now, next_run_at__lte=now + loops.AHEAD)
    return soon.order_by("next_run_at").values_list("next_run_at", flat=True).first()


@transaction.atomic
def _create_of(workflow_id: int, now: datetime) -> bool:
    """The due runs of one workflow, and the time of its next; returns whether it has more that are due."""
    workflow = (
        Workflow.objects.select_for_update(of=("self",), skip_locked=True)
        .select_related("current")
        .filter(pk=workflow_id, paused=False, next_run_at__lte=now)
        .first()
    )
    if workflow is None or workflow.current is None:
        return False
    if workflow.schedule == CONTINUOUS:
        _continue(workflow, now)
        return False
    waiting = workflow.runs.filter(trigger=Run.Trigger.SCHEDULE, state=RunState.QUEUED).count()
    room = min(RUNS_MAX, BACKLOG_MAX - waiting)
    if room <= 0:
        return False
    intervals, following = _due(workflow, now, room)
    made = set(
        workflow.runs.filter(
            trigger__in=[Run.Trigger.SCHEDULE, Run.Trigger.BACKFILL],
            logical_time__in=[interval.start for interval in intervals],
        ).values_list("logical_time", flat=True)
    )
    _create(workflow, {found.start: found for found in intervals if found.start not in made}, now)
    _plan(workflow, following)
    return following is not None and following.end <= now and room == RUNS_MAX


def _create(workflow: Workflow, intervals: Mapping[datetime, Interval], now: datetime) -> None:
    """Make the runs of these intervals, by their logical times."""
    if workflow.current is None or not intervals:
        return
    version = workflow.current
    params = checked_params(version, {})
    new = [
        NewRun(logical_time, Run.Trigger.SCHEDULE, version.owner_id, params, interval=interval)
        for logical_time, interval in intervals.items()
    ]
    create_runs(SYSTEM, workflow, version, new, now)


def _plan(workflow: Workflow, following: Interval | None) -> None:
    workflow.next_logical_time = following.start if following else None
    workflow.next_run_at = following.end if following else None
    workflow.save(update_fields=["next_logical_time", "next_run_at"])


def _due(workflow: Workflow, now: datetime, room: int) -> tuple[list[Interval], Interval | None]:
    """The intervals to make runs of now, at most `room`, and the one after them (None after the end date)."""
    found: list[Interval] = []
    for interval in due(workflow, now):
        if interval.end > now or len(found) == room:
            return found, interval
        found.append(interval)
    return found, None


def _continue(workflow: Workflow, now: datetime) -> None:
    """The next run of a continuous workflow, once none of its scheduled runs is left.

    Its data interval goes from the end of the last one's to now, which is its logical time.
    """
    assert workflow.next_logical_time is not None
    begin, last = workflow.next_logical_time, end_of(workflow)
    if last is not None and begin > last:
        _plan(workflow, None)
        return
    if not workflow.runs.filter(trigger=Run.Trigger.SCHEDULE, state__in=sorted(RUN_ACTIVE)).exists():
        _create(workflow, {now: Interval(begin, now)}, now)
        begin = now
    _plan(workflow, Interval(begin, now + timedelta(seconds=CONTINUOUS_SECONDS)))


def hasten(workflows: Iterable[int], now: datetime) -> None:
    """Let the next runs of these continuous workflows come at once, as a run of each has succeeded.

    Called with a run locked, so it waits for no workflow: one that is held is due a few seconds later anyway.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE workflows_workflow SET next_run_at = %s WHERE id IN (SELECT id FROM workflows_workflow "
            "WHERE id = ANY(%s) AND schedule = %s AND next_run_at > %s FOR UPDATE SKIP LOCKED)",
            [now, list(workflows), CONTINUOUS, now],
        )
    tell_timetable()
