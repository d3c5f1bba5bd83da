"""Lifecycles of runs, tasks and questions.

Run:  queued → running → succeeded | failed;  queued, running → cancelled
Task: waiting → queued → running → succeeded | failed | skipped
      waiting → deferred → succeeded | failed | skipped     (waits for a time, a run or a person)
      queued, running → deferred → queued                   (a sensor between two pokes)
      waiting → succeeded                                   (empty tasks, mapped groups)
      waiting → skipped | upstream_failed | failed
      waiting, deferred, queued, running → cancelled
Approval: open → answered | expired | closed
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


RUN_ACTIVE = frozenset({RunState.QUEUED, RunState.RUNNING})
RUN_TERMINAL = frozenset(RunState) - RUN_ACTIVE
TASK_ACTIVE = frozenset({TaskState.WAITING, TaskState.DEFERRED, TaskState.QUEUED, TaskState.RUNNING})
TASK_IN_FLIGHT = frozenset({TaskState.QUEUED, TaskState.RUNNING})
TASK_TERMINAL = frozenset(TaskState) - TASK_ACTIVE

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
