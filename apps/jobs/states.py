"""Lifecycles of jobs, attempts and placements.

Job:

    pending → granted → running → succeeded | failed
    granted, running → pending      retry after a failure, or its node was lost
    pending → cancelled
    granted, running → cancelling → cancelled | succeeded | failed   (the end that really happened)

Attempt and placement (one member of an attempt on one node):

    granted → running → succeeded | failed | cancelled | lost
    granted → succeeded | failed | cancelled | lost     (the report of the start came with the end, or never)

A finished state is final: nothing leads out of it.
"""

from django.db import models


class JobState(models.TextChoices):
    PENDING = "pending"
    GRANTED = "granted"
    RUNNING = "running"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class AttemptState(models.TextChoices):
    GRANTED = "granted"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST = "lost"


JOB_ACTIVE = frozenset({JobState.PENDING, JobState.GRANTED, JobState.RUNNING, JobState.CANCELLING})
JOB_PLACED = frozenset({JobState.GRANTED, JobState.RUNNING, JobState.CANCELLING})
JOB_TERMINAL = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})
ATTEMPT_LIVE = frozenset({AttemptState.GRANTED, AttemptState.RUNNING})
ATTEMPT_TERMINAL = frozenset(AttemptState) - ATTEMPT_LIVE

JOB_EDGES: dict[tuple[str, str], str] = {
    ("pending", "granted"): "job.granted",
    ("granted", "running"): "job.started",
    ("granted", "pending"): "job.requeued",
    ("running", "pending"): "job.requeued",
    ("granted", "succeeded"): "job.succeeded",
    ("running", "succeeded"): "job.succeeded",
    ("cancelling", "succeeded"): "job.succeeded",
    ("granted", "failed"): "job.failed",
    ("running", "failed"): "job.failed",
    ("cancelling", "failed"): "job.failed",
    ("pending", "cancelled"): "job.cancelled",
    ("granted", "cancelling"): "job.cancelling",
    ("running", "cancelling"): "job.cancelling",
    ("cancelling", "cancelled"): "job.cancelled",
}

ATTEMPT_EDGES: dict[tuple[str, str], str] = {
    ("granted", "running"): "attempt.started",
    **{
        (source, target): f"attempt.{target}"
        for source in ("granted", "running")
        for target in ("succeeded", "failed", "cancelled", "lost")
    },
}
