"""Lifecycles of runs, tasks, questions and backfills.

Run:  queued → running → succeeded | failed;  queued, running → cancelled
Task: waiting → queued → running → succeeded | failed | skipped
      waiting → deferred → succeeded | failed | skipped     (waits for a time, a run or a person)
      queued, running → deferred → queued                   (a sensor between two pokes)
      waiting → succeeded                                   (empty tasks, mapped groups)
      waiting → skipped | upstream_failed | failed
      waiting, deferred, queued, running → cancelled

Only people's own acts go against these arrows, each with an event of its own (RUN_REOPENS, TASK_CLEARS, TASK_MARKS):
a run that has ended is queued again, a task is cleared (→ waiting; while its former job still stops, queued or
running) or marked (→ succeeded | failed | skipped; what has succeeded is cleared, never marked).

Approval: open → answered | expired | closed
Backfill: running ⇄ paused;  running → succeeded | failed;  running, paused → cancelled;  ended → running
"""

from django.db import models


class RunState(models.TextChoices):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class TaskState(models.TextChoices):
    WAITING = "waiting"
    DEFERRED = "deferred"
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SKIPPED = "skipped"
    UPSTREAM_FAILED = "upstream_failed"
    CANCELLED = "cancelled"


class BackfillState(models.TextChoices):
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


RUN_ACTIVE = frozenset({RunState.QUEUED, RunState.RUNNING})
RUN_TERMINAL = frozenset(RunState) - RUN_ACTIVE
TASK_ACTIVE = frozenset({TaskState.WAITING, TaskState.DEFERRED, TaskState.QUEUED, TaskState.RUNNING})
TASK_IN_FLIGHT = frozenset({TaskState.QUEUED, TaskState.RUNNING})
TASK_TERMINAL = frozenset(TaskState) - TASK_ACTIVE
BACKFILL_ACTIVE = frozenset({BackfillState.RUNNING, BackfillState.PAUSED})
BACKFILL_TERMINAL = frozenset(BackfillState) - BACKFILL_ACTIVE
MARKS = (TaskState.SUCCEEDED, TaskState.FAILED, TaskState.SKIPPED)

RUN_EDGES: dict[tuple[str, str], str] = {
    ("queued", "running"): "run.started",
    ("running", "succeeded"): "run.succeeded",
    ("running", "failed"): "run.failed",
    ("queued", "cancelled"): "run.cancelled",
    ("running", "cancelled"): "run.cancelled",
}

TASK_EDGES: dict[tuple[str, str], str] = {
    ("waiting", "queued"): "task.queued",
    ("deferred", "queued"): "task.queued",
    ("queued", "running"): "task.started",
    **{(source, "deferred"): "task.deferred" for source in ("waiting", "queued", "running")},
    **{
        (source, target): f"task.{target}"
        for source in ("deferred", "queued", "running")
        for target in ("succeeded", "failed", "skipped", "cancelled")
    },
    **{
        ("waiting", target): f"task.{target}"
        for target in ("succeeded", "failed", "skipped", "upstream_failed", "cancelled")
    },
}

APPROVAL_EDGES: dict[tuple[str, str], str] = {
    ("open", "answered"): "approval.answered",
    ("open", "expired"): "approval.expired",
    ("open", "closed"): "approval.closed",
}

RUN_REOPENS: dict[tuple[str, str], str] = {(str(state), "queued"): "run.reopened" for state in RUN_TERMINAL}

TASK_CLEARS: dict[tuple[str, str], str] = {
    (str(source), target): "task.cleared"
    for source in frozenset(TaskState) - {TaskState.WAITING}
    for target in ("waiting", "queued", "running")
}

TASK_MARKS: dict[tuple[str, str], str] = {
    (str(source), str(target)): "task.marked"
    for source in frozenset(TaskState) - {TaskState.SUCCEEDED}
    for target in MARKS
    if source != target
}

BACKFILL_EDGES: dict[tuple[str, str], str] = {
    ("running", "paused"): "backfill.paused",
    ("paused", "running"): "backfill.resumed",
    ("running", "succeeded"): "backfill.succeeded",
    ("running", "failed"): "backfill.failed",
    ("running", "cancelled"): "backfill.cancelled",
    ("paused", "cancelled"): "backfill.cancelled",
    **{(str(state), "running"): "backfill.reopened" for state in BACKFILL_TERMINAL},
}
