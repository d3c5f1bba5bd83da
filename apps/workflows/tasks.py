"""The loops of workflows: runs advance as their jobs end, and the timetable makes scheduled runs."""

from django.utils import timezone

import apps.scheduling.tasks  # noqa: F401 - registers the loop that follows this one
from apps.core import loops

from . import caching, path_history
from . import deadlines as limits
from . import waits as waiting
from .commands import advance_backfills, create_dataset_runs, create_due_runs, next_due, pass_due
from .giving import apply
from .observe import observe


@loops.loop("advance")
def advance() -> bool:
    """Move every run on as far as its jobs have come; returns whether there is more to do at once."""
    now = timezone.now()
    observed = observe()
    applied = apply(observed, now)
    if applied.jobs or observed.freed:
        # In this thread, to save the new jobs a trip through the queue.
        loops.follow("schedule")
    return (observed.more and not applied.failed) or (observed.blocked and applied.ended > 0)


@loops.loop("timetable")
def timetable() -> bool:
    """Make the runs that are due, those that datasets trigger and the next ones of backfills, and come back when the
    next ones are due."""
    now = timezone.now()
    path_history.renew(now)
    caching.forget_sometimes(now)
    more = create_due_runs(now) | create_dataset_runs(now) | advance_backfills(now)
    due = next_due(now)
    if due is not None:
        loops.wake_at("timetable", due)
    return more


@loops.loop("waits")
def waits() -> bool:
    """Go on with the tasks whose wait is due, and come back when the next ones are."""
    now = timezone.now()
    noted = waiting.note_due(now)
    if noted:
        # In this thread, to save what is due a trip through the queue.
        loops.follow("advance")
    due = waiting.next_due(now)
    if due is not None:
        loops.wake_at("waits", due)
    return noted == waiting.DUE_MAX


@loops.loop("deadlines")
def deadlines() -> bool:
    """Look at the deadlines and time limits that are due, and come back when the next ones are."""
    now = timezone.now()
    more = pass_due(now)
    due = limits.next_due(now)
    if due is not None:
        loops.wake_at("deadlines", due)
    return more
