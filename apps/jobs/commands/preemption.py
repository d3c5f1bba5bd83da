"""Evicting jobs so that others may start: asked of their processes with notice, as a guarded step of each."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from apps.core.actors import SYSTEM
from apps.events.record import Fact, record_all
from engine.preemption import Cause

from ..models import Attempt, Job, Placement
from ..states import ATTEMPT_LIVE, JobState
from . import checkpoints
from .grants import node_topics

STOP_REASON = "preempted"


@dataclass(frozen=True, slots=True)
class Evicted:
    """A job that has to go, for which job, and by which rule (engine.preemption.Cause)."""

    job_id: int
    by: int
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
    written: dict[int, list[datetime | None]] = {}
    for attempt_id, at in Placement.objects.filter(attempt__in=attempts).values_list("attempt_id", "checkpoint_at"):
        written.setdefault(attempt_id, []).append(at)
    record_all(
        SYSTEM,
        (
            _fact(jobs[item.job_id], wanted[item.job_id], topics[item.pk], _at_stake(item, written[item.pk], now))
            for item in attempts
        ),
    )
    return [attempt.job_id for attempt in attempts]


def _at_stake(attempt: Attempt, written: list[datetime | None], now: datetime) -> tuple[float, str] | None:
    """The seconds of work that are lost if no other checkpoint is written, and since what; None before the start."""
    if attempt.started_at is None:
        return None
    return checkpoints.loss(attempt.started_at, checkpoints.of_all(written), now)


def whom(job_id: int | None, cause: str) -> str:
    """For whom a job was evicted, in words for its own tenant: it is not told of others' jobs."""
    return f"job {job_id}" if cause == Cause.IN_QUEUE else "a job of another tenant"


def notice_of(job: Job) -> float:
    """Seconds from SIGTERM to SIGKILL when the job is evicted; jobs stored before there was a notice have 10."""
    return float(job.spec.get("notice", 10))


def _fact(job: Job, item: Evicted, nodes: tuple[str, ...], at_stake: tuple[float, str] | None) -> Fact:
    words = {
        "in_queue": "which goes before it in the same queue",
        "reclaim": "which takes back quota that is its tenant's own",
        "reclaim_while_borrowing": "which has a higher priority",
        "fair_sharing": "whose tenant has the smaller share",
    }
    facts = {"cause": item.cause, "notice": notice_of(job)}
    if item.cause == Cause.IN_QUEUE:
        facts["by"] = item.by
    said = f"Evicted for {whom(item.by, item.cause)}, {words[item.cause]}."
    if at_stake is not None:
        seconds, since = at_stake
        facts |= {"lost_seconds": round(seconds, 1), "lost_since": since.removeprefix("its ")}
        said += f" It loses its work since {since}, {checkpoints.span(seconds)} ago"
        said += f", unless it writes a checkpoint within {facts['notice']:g} s." if facts["notice"] else "."
    return Fact(
        "job.preempted",
        "job",
        job.pk,
        tenant_id=job.tenant_id,
        facts=facts,
        reason=said,
        topics=("queue", *nodes),
    )
