"""Why a job is where it is, from the scheduler's own records."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from django.db.models import QuerySet
from django.utils import timezone

from apps.core.actors import Actor
from apps.jobs.models import Job
from apps.jobs.policies import jobs as job_policy
from apps.jobs.states import JobState
from engine.choices import SEVERAL
from engine.reasons import TITLES, Reason
from engine.suggestions import Suggestion, suggestions

from . import policies
from .models import Cycle, Decision, Reservation
from .observe import GRANTS_MAX, observe
from .outlook import Forecast, Outlook, forecast, outlook, positions

# What a job that is not pending does, or did.
STATE_WORDS = {
    JobState.GRANTED: "is about to start",
    JobState.RUNNING: "runs",
    JobState.CANCELLING: "is being cancelled",
    JobState.SUCCEEDED: "has succeeded",
    JobState.FAILED: "has failed",
    JobState.CANCELLED: "was cancelled",
}


@dataclass(frozen=True, slots=True)
class Why:
    """The primary reason of a pending job, what was tried, its place in the queue, and the latest decisions."""

    job: Job
    reason: str
    title: str
    detail: str
    tried: list[dict[str, Any]]
    # Its place in its tenant's queue, 1 is next; None when it is not pending.
    position: int | None
    decisions: list[Decision]
    # For a pending job: single changes after which it would start now, the cheapest first.
    suggestions: list[Suggestion] = field(default_factory=list)
    # What a pending job can expect, and the start that is kept for it.
    outlook: Outlook = field(default_factory=Outlook)
    reserved_at: datetime | None = None


def why(actor: Actor, job_id: int) -> Why:
    """The explanation of a job that the actor may see; for a job that is not pending, how it was decided."""
    job = job_policy.get(actor, pk=job_id)
    decisions = list(policies.decisions.visible(actor).filter(job=job)[:20])
    if job.state != JobState.PENDING:
        last = next((decision for decision in decisions if decision.outcome == "grant"), None)
        nodes = ", ".join(dict.fromkeys(last.nodes)) if last else ""
        flavor = f"flavor{'s' * (SEVERAL in last.flavor)} {last.flavor}" if last else ""
        detail = f"Placed on {nodes} in {flavor}." if last else job.detail
        tried = last.tried if last else []
        return Why(job, "", f"The job {STATE_WORDS[JobState(job.state)]}", detail, tried, None, decisions)
    title, now = TITLES[Reason(job.reason)], timezone.now()
    told = Why(job, job.reason, title, job.detail, job.tried, None, decisions)
    if job.held:
        return replace(told, outlook=Outlook(unknown="it is on hold; it can start once it is released."))
    if job.not_before is not None and job.not_before > now:
        return replace(told, outlook=Outlook(unknown=f"it is not tried before {job.not_before:%F %T} UTC."))
    # Found by deciding on what a cycle would see now, and on changed copies of it; nothing is written.
    observed = observe(now)
    if observed is None:
        return told
    found = outlook(observed, job.pk, job.reason, now)
    kept = Reservation.objects.filter(job=job).first()
    return replace(
        told,
        position=found.position,
        outlook=found,
        reserved_at=kept.starts_at if kept is not None else None,
        suggestions=suggestions(observed.snapshot, job.pk, now=now.timestamp(), limit=GRANTS_MAX),
    )


@dataclass(frozen=True, slots=True)
class Queued:
    """The order of all waiting jobs as the scheduler sees it now, for lists: places, reserved and estimated starts."""

    positions: Mapping[int, int] = field(default_factory=dict)
    order: Sequence[int] = ()
    forecast: Forecast | None = None
    reserved: Mapping[int, datetime] = field(default_factory=dict)


# The latest answer of this process, and until when it serves.
_queued: tuple[float, Queued] = (0.0, Queued())
QUEUED_SECONDS = 1.0


def queued_now() -> Queued:
    """See `Queued`. It is of everybody's jobs: show of it only what the reader may see.

    Lists ask often: an answer serves for as long as QUEUED_SECONDS, or twenty times as long as it took.
    """
    global _queued
    began = time.monotonic()
    if began < _queued[0]:
        return _queued[1]
    now, made = timezone.now(), Queued()
    observed = observe(now)
    if observed is not None:
        seen = forecast(observed, now)
        reserved = dict(Reservation.objects.values_list("job_id", "starts_at"))
        made = Queued(positions(observed), seen.order if seen is not None else (), seen, reserved)
    took = time.monotonic() - began
    _queued = began + max(QUEUED_SECONDS, 20 * took), made
    return made


def forget_queued() -> None:
    """Answer anew next time."""
    global _queued
    _queued = (0.0, Queued())


def recent_cycles() -> QuerySet[Cycle]:
    """The scheduler's latest cycles, newest first."""
    return Cycle.objects.all()
