"""Deadlines and time limits of runs: rows with a due time, as waits are (docs/decisions/0008).

Those that count from the time of the schedule are there from the making of the run, the others from its start. Nothing
is written when a run ends in time: what is due is compared with how things stand then (`commands.pass_due`). So only
workflows that have deadlines pay for them.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from functools import partial

from django.db import transaction

from apps.core import loops

from .deadline_models import Deadline
from .models import Run
from .plans import Plan, Timing


def scheduled(runs: Iterable[Run], plan: Plan) -> None:
    """Keep the deadlines that count from when new runs were due. In the caller's transaction."""
    _keep((run, timing, _due_since(run)) for run in runs for timing in plan.deadlines if timing.scheduled)


def started(runs: Iterable[tuple[Run, Plan]], now: datetime) -> None:
    """Keep the deadlines that count from the start of these runs. One that people let run again, maybe on another
    version, begins anew with those that lie ahead of it. In the caller's transaction."""
    found = list(runs)
    again = [run.pk for run, _ in found if run.edits]
    if again:
        Deadline.objects.filter(run__in=again).delete()
    _keep(
        (run, timing, since)
        for run, plan in found
        for timing in plan.deadlines
        if not timing.scheduled or run.edits
        for since in [_due_since(run) if timing.scheduled else now]
        if since + timedelta(seconds=timing.seconds) > now
    )


def _due_since(run: Run) -> datetime:
    """When a run was due: the end of its data interval if its schedule made it, else its making."""
    return (run.data_interval_end if run.trigger == Run.Trigger.SCHEDULE else None) or run.created_at


def _keep(found: Iterable[tuple[Run, Timing, datetime]]) -> None:
    rows = [
        Deadline(
            run=run,
            task=timing.task,
            kind=Deadline.Kind.TIME_LIMIT if timing.limit else Deadline.Kind.DEADLINE,
            after_seconds=timing.seconds,
            since=since,
            due_at=since + timedelta(seconds=timing.seconds),
        )
        for run, timing, since in found
    ]
    if not rows:
        return
    Deadline.objects.bulk_create(
        rows,
        update_conflicts=True,
        unique_fields=["run", "task", "kind"],
        update_fields=["after_seconds", "since", "due_at", "missed_at"],
    )
    first = min(row.due_at for row in rows if row.due_at is not None)
    if first - max(row.since for row in rows) <= loops.AHEAD:
        transaction.on_commit(partial(loops.wake_at, "deadlines", first))


def next_due(now: datetime) -> datetime | None:
    """When the next one is due, if that is soon."""
    soon = Deadline.objects.filter(due_at__gt=now, due_at__lte=now + loops.AHEAD)
    return soon.order_by("due_at").values_list("due_at", flat=True).first()
