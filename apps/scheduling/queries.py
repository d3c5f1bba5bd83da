"""Why a job is where it is, from the scheduler's own records."""

from dataclasses import dataclass
from typing import Any

from django.db.models import Q, QuerySet

from apps.core.actors import Actor
from apps.jobs.models import Job
from apps.jobs.policies import jobs as job_policy
from apps.jobs.states import JobState
from engine.reasons import TITLES, Reason

from . import policies
from .models import Cycle, Decision


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


def why(actor: Actor, job_id: int) -> Why:
    """The explanation of a job that the actor may see; for a job that is not pending, how it was decided."""
    job = job_policy.get(actor, pk=job_id)
    decisions = list(policies.decisions.visible(actor).filter(job=job)[:20])
    if job.state != JobState.PENDING:
        last = next((decision for decision in decisions if decision.outcome == "grant"), None)
        nodes = ", ".join(dict.fromkeys(last.nodes)) if last else ""
        detail = f"Placed on {nodes} in flavor {last.flavor}." if last else job.detail
        tried = last.tried if last else []
        return Why(job, "", f"The job is {job.state}", detail, tried, None, decisions)
    ahead = Job.objects.filter(tenant_id=job.tenant_id, state=JobState.PENDING).filter(
        Q(priority__gt=job.priority) | Q(priority=job.priority, pk__lt=job.pk)
    )
    return Why(job, job.reason, TITLES[Reason(job.reason)], job.detail, job.tried, ahead.count() + 1, decisions)


def recent_cycles() -> QuerySet[Cycle]:
    """The scheduler's latest cycles, newest first."""
    return Cycle.objects.all()
