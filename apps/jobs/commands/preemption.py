"""Evicting jobs so that others may start: asked of their processes with notice, as a guarded step of each."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from apps.core.actors import SYSTEM
from apps.events.record import Fact, record_all

from ..models import Attempt, Job
from ..states import ATTEMPT_LIVE, JobState
from .grants import node_topics

STOP_REASON = "preempted"


@dataclass(frozen=True, slots=True)
class Evicted:
    """A job that has to go, for which job of which quota, and by which rule (engine.preemption.Cause)."""

    job_id: int
    by: int
    by_quota: str
    cause: str


def preempt(items: Sequence[Evicted], now: datetime) -> list[int]:
    """Ask the live attempts of these jobs to stop, in the caller's transaction; returns the jobs that were asked.

    A job that has ended, is being cancelled or was asked to stop already is left alone. Its quota and nodes stay
    charged until its processes have stopped; it is told by SIGTERM, and killed when its notice is over. Locks
    the jobs by id, then their attempts.
    """
    wanted = {item.job_id: item for item in items}
    jobs = {
        job.pk: job
        for job in Job.objects.select_for_update()
        .filter(pk__in=wanted, state__in=(JobState.GRANTED, JobState.RUNNING))
        .order_by("pk")
    }
    live = Attempt.objects.filter(job__in=jobs, state__in=sorted(ATTEMPT_LIVE), stop_reason="")
    attempts = list(live.order_by("job_id").select_for_update(no_key=True))
    for attempt in attempts:
        item = wanted[attempt.job_id]
        attempt.stop_reason, attempt.preempted_at = STOP_REASON, now
        attempt.preempted_by_id, attempt.preempted_cause = item.by, item.cause
    Attempt.objects.bulk_update(attempts, ["stop_reason", "preempted_by", "preempted_at", "preempted_cause"])
    topics = node_topics(attempt.pk for attempt in attempts)
    asked = {attempt.job_id: topics[attempt.pk] for attempt in attempts}
    record_all(SYSTEM, (_fact(jobs[job_id], wanted[job_id], nodes) for job_id, nodes in asked.items()))
    return list(asked)


def notice_of(job: Job) -> float:
    """Seconds from SIGTERM to SIGKILL when the job is evicted; jobs stored before there was a notice have 10."""
    return float(job.spec.get("notice", 10))


def _fact(job: Job, item: Evicted, nodes: tuple[str, ...]) -> Fact:
    words = {
        "in_queue": "which goes before it in the same queue",
        "reclaim": "which takes back quota that is its tenant's own",
        "reclaim_while_borrowing": "which has a higher priority",
        "fair_sharing": "whose tenant has the smaller share",
    }
    return Fact(
        "job.preempted",
        "job",
        job.pk,
        tenant_id=job.tenant_id,
        facts={"by": item.by, "by_quota": item.by_quota, "cause": item.cause, "notice": notice_of(job)},
        reason=f"Evicted for job {item.by} of {item.by_quota}, {words[item.cause]}.",
        topics=("queue", *nodes),
    )
