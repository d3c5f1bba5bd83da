"""The timetable's runs: created when their data interval has ended."""

import logging
from datetime import datetime

from django.db import IntegrityError, transaction

from apps.core import loops
from apps.core.actors import SYSTEM
from apps.core.errors import DomainError

from ..models import Run, Workflow
from ..states import RunState
from ..timetable import Interval, Timetable
from .runs import NewRun, checked_params, create_runs

logger = logging.getLogger(__name__)

# Workflows in one pass, and runs that one workflow gets in it while it catches up.
WORKFLOWS_MAX = 500
RUNS_MAX = 100
# Scheduled runs that may wait in one workflow's queue; catching up goes on as they start.
BACKLOG_MAX = 200


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
    params = checked_params(workflow.current, {})
    new = [
        NewRun(interval.start, Run.Trigger.SCHEDULE, workflow.current.owner_id, params)
        for interval in intervals
        if interval.start not in made
    ]
    if new:
        create_runs(SYSTEM, workflow, workflow.current, new, now)
    workflow.next_logical_time, workflow.next_run_at = following.start, following.end
    workflow.save(update_fields=["next_logical_time", "next_run_at"])
    return following.end <= now and room == RUNS_MAX


def _due(workflow: Workflow, now: datetime, room: int) -> tuple[list[Interval], Interval]:
    """The intervals to make runs of now, at most `room`, and the one after them."""
    assert workflow.next_logical_time is not None and workflow.next_run_at is not None
    table = Timetable(workflow.schedule, workflow.timezone)
    interval = Interval(workflow.next_logical_time, workflow.next_run_at)
    if not workflow.catchup and table.following(interval).end <= now:
        interval = table.complete(now)
    found: list[Interval] = []
    while interval.end <= now and len(found) < room:
        found.append(interval)
        interval = table.following(interval)
    return found, interval
