"""What people do with a job after it was submitted."""

from collections.abc import Sequence

from django.db import transaction
from django.utils import timezone

from apps.core.actors import Actor
from apps.core.errors import Conflict
from apps.events.record import Fact, Move, move_many, record, record_all
from engine.reasons import Reason

from .. import policies
from ..models import Attempt, Job
from ..states import ATTEMPT_LIVE, JOB_ACTIVE, JOB_EDGES, JOB_TERMINAL, JobState
from ..subscribers import jobs_moved
from .grants import node_topics


@transaction.atomic
def cancel(*, actor: Actor, job_id: int, reason: str = "") -> Job:
    """End a job: at once when it waits, else its processes are stopped first.

    Cancelling a job that is being cancelled changes nothing; one that has ended raises Conflict.
    """
    job = policies.jobs.get(actor, "cancel", lock=True, pk=job_id)
    if job.state in JOB_TERMINAL:
        raise Conflict(f"Job {job.pk} has {job.state} already.", code="already_ended")
    _cancel_locked(actor, [job], reason)
    job.refresh_from_db()
    return job


@transaction.atomic
def cancel_many(*, actor: Actor, job_ids: Sequence[int], reason: str = "") -> int:
    """Cancel those of the jobs that are active; for the product's own loops. Returns how many."""
    jobs = list(
        Job.objects.select_for_update().filter(pk__in=job_ids, state__in=sorted(JOB_ACTIVE)).order_by("pk")
    )
    _cancel_locked(actor, jobs, reason)
    return len(jobs)


def _cancel_locked(actor: Actor, jobs: Sequence[Job], reason: str) -> None:
    now = timezone.now()
    waiting = [job for job in jobs if job.state == JobState.PENDING]
    placed = [job for job in jobs if job.state in (JobState.GRANTED, JobState.RUNNING)]
    move_many(
        Job,
        JOB_EDGES,
        [Move(job.pk, job.state, JobState.CANCELLED, (now, "cancelled", "")) for job in waiting],
        ("ended_at", "end_reason", "reason"),
    )
    move_many(Job, JOB_EDGES, [Move(job.pk, job.state, JobState.CANCELLING) for job in placed])
    topics: dict[int, tuple[str, ...]] = {}
    if placed:
        attempts = Attempt.objects.filter(job__in=placed, state__in=sorted(ATTEMPT_LIVE))
        attempts.update(stop_reason="cancelled")
        topics = node_topics(attempts.values_list("pk", flat=True))
    every_node = tuple(sorted({topic for names in topics.values() for topic in names}))
    record_all(
        actor,
        (
            Fact(
                JOB_EDGES[job.state, JobState.CANCELLED if job.state == JobState.PENDING else JobState.CANCELLING],
                "job",
                job.pk,
                tenant_id=job.tenant_id,
                reason=reason,
                topics=("queue", *every_node),
            )
            for job in (*waiting, *placed)
        ),
    )
    jobs_moved((job.pk, job.origin) for job in waiting)


@transaction.atomic
def hold(*, actor: Actor, job_id: int, reason: str = "") -> Job:
    """Keep a pending job from being placed until it is released."""
    return _set_held(actor, job_id, "hold", True, Reason.HELD, reason or "Held by a person.")


@transaction.atomic
def release(*, actor: Actor, job_id: int) -> Job:
    """Let a held job be placed again; its place in the queue is what it was."""
    detail = "Released; the scheduler looks at it in its next cycle."
    return _set_held(actor, job_id, "release", False, Reason.SUBMITTED, detail)


def _set_held(actor: Actor, job_id: int, action: str, held: bool, why: Reason, detail: str) -> Job:
    job = policies.jobs.get(actor, action, lock=True, pk=job_id)
    if job.state != JobState.PENDING:
        raise Conflict(f"Job {job.pk} is {job.state}: only a pending job can be held or released.")
    if job.held != held:
        job.held, job.reason, job.detail = held, why, detail
        job.save(update_fields=["held", "reason", "detail"])
        verb = "job.held" if held else "job.released"
        record(actor, Fact(verb, "job", job.pk, tenant_id=job.tenant_id, reason=detail, topics=("queue",)))
    return job
