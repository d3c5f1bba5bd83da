"""What happens when a deadline or a time limit of a run passes."""

from datetime import datetime

from django.db import transaction

from apps.core.actors import SYSTEM
from apps.events.record import record

from ..deadline_models import Deadline
from ..facts import run_fact
from ..models import Run, Task
from ..states import RUN_ACTIVE, TASK_ACTIVE, RunState
from .runs import stop_run

DUE_MAX = 200


def pass_due(now: datetime) -> bool:
    """Look at what is due, each in a transaction of its own; returns whether there is more."""
    due = list(Deadline.objects.filter(due_at__lte=now).order_by("due_at").values_list("pk", "run")[:DUE_MAX])
    for pk, run_id in due:
        _pass(pk, run_id, now)
    return len(due) == DUE_MAX


@transaction.atomic
def _pass(pk: int, run_id: int, now: datetime) -> None:
    """Record that a deadline is missed, or end the run at its time limit; one that was kept goes. Lock order: run →
    deadline."""
    run = Run.objects.select_for_update().get(pk=run_id)
    deadline = Deadline.objects.select_for_update().filter(pk=pk, due_at__lte=now).first()
    if deadline is None:
        return
    if not _goes_on(run, deadline):
        deadline.delete()
        return
    deadline.missed_at, deadline.due_at, due = now, None, deadline.due_at
    deadline.save(update_fields=["missed_at", "due_at"])
    after = deadline.after
    if deadline.kind == Deadline.Kind.TIME_LIMIT:
        stop_run(SYSTEM, run, RunState.FAILED, f"The run went on for longer than its time limit of {after}.", now)
        return
    what = f"Task {deadline.task} of run {run.pk}" if deadline.task else f"Run {run.pk}"
    facts = {"due": due.isoformat() if due else "", "since": deadline.since.isoformat(), "after": after}
    facts |= {"task": deadline.task} if deadline.task else {}
    reason = f"{what} has not ended {after} after {deadline.since:%Y-%m-%d %H:%M:%S} UTC."
    record(SYSTEM, run_fact("run.deadline_missed", run, facts, reason=reason))


def _goes_on(run: Run, deadline: Deadline) -> bool:
    if deadline.kind == Deadline.Kind.TIME_LIMIT:
        return run.state == RunState.RUNNING
    if not deadline.task:
        return run.state in RUN_ACTIVE
    tasks = Task.objects.filter(run=run, name=deadline.task, index=-1, state__in=sorted(TASK_ACTIVE))
    return run.state in RUN_ACTIVE and tasks.exists()
