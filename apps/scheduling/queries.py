"""Why a job is where it is, from the scheduler's own records."""

from dataclasses import dataclass, field
from typing import Any

from django.db.models import Q, QuerySet
from django.utils import timezone

from apps.core.actors import Actor
from apps.jobs.models import Job
from apps.jobs.policies import jobs as job_policy
from apps.jobs.states import JobState
from engine.reasons import TITLES, Reason
from engine.suggestions import Suggestion, suggestions

from . import policies
from .models import Cycle, Decision
from .observe import GRANTS_MAX, observe


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
    title, position = TITLES[Reason(job.reason)], ahead.count() + 1
    return Why(job, job.reason, title, job.detail, job.tried, position, decisions, _suggestions(job))


def _suggestions(job: Job) -> list[Suggestion]:
    """Found by deciding on changed copies of what a cycle would see now; nothing is written."""
    now = timezone.now()
    observed = None if job.held else observe(now)
    if observed is None:
        return []
    return suggestions(observed.snapshot, job.pk, now=now.timestamp(), limit=GRANTS_MAX)


def recent_cycles() -> QuerySet[Cycle]:
    """The scheduler's latest cycles, newest first."""
    return Cycle.objects.all()
