"""Observe → decide → apply for services.

A pass looks at the services that are due and at those of which a replica's job is not as it was seen last; nothing is
read of the others. Each is looked at in a transaction of its own. Lock order: service → jobs.
"""

import logging
from dataclasses import dataclass
from datetime import UTC, datetime

from django.db import transaction

from apps.core import loops
from apps.core.actors import SYSTEM
from apps.core.bulk import insert
from apps.core.errors import DomainError
from apps.core.rows import fetch
from apps.events.live import publish
from apps.events.record import record, transition
from apps.jobs.commands import Submission, cancel_many, submit_many
from apps.jobs.states import JOB_TERMINAL, JobState
from engine import services as engine

from . import words
from .facts import rollout_fact, service_fact
from .models import Replica, Revision, Rollout, Service
from .states import ROLLOUT_EDGES, RolloutState, ServiceState
from .subscribers import rollout_ended

logger = logging.getLogger(__name__)

SERVICES_MAX = 200
# Replicas that have ended, by service: the newest so many are kept (their jobs stay).
ENDED_KEPT = 100

MOVED = (
    "SELECT id FROM services_service WHERE due_at <= %s UNION "
    "SELECT r.service_id FROM services_replica r JOIN jobs_job j ON j.id = r.job_id "
    "WHERE r.ended_at IS NULL AND (j.state <> r.seen OR j.token <> r.token) ORDER BY 1 LIMIT %s"
)
LIVE = (
    "SELECT r.id, r.revision_id, r.stopping, r.seen, r.token, j.id, j.state, j.token, a.started_at, j.ended_at, "
    "j.end_reason, j.exit_code, j.detail FROM services_replica r JOIN jobs_job j ON j.id = r.job_id "
    "LEFT JOIN jobs_attempt a ON a.job_id = j.id AND a.token = j.token "
    "WHERE r.service_id = %s AND r.ended_at IS NULL ORDER BY r.id"
)
DUE = "SELECT min(due_at) FROM services_service WHERE due_at > %s AND due_at <= %s"


@dataclass(frozen=True, slots=True)
class Live:
    """A replica that the loop has not seen end, with its job as it is now."""

    id: int
    revision: int
    stopping: bool
    seen: str
    seen_token: int
    job: int
    state: str
    token: int
    started_at: datetime | None
    ended_at: datetime | None
    end_reason: str
    exit_code: int | None
    detail: str

    @property
    def running_at(self) -> datetime | None:
        """Since when the process of the present attempt runs."""
        return self.started_at if self.state in (JobState.RUNNING, JobState.CANCELLING) else None

    @property
    def leaving(self) -> bool:
        """Whether somebody has stopped it, the loop or a person: its end says nothing about the revision."""
        return self.stopping or self.state in (JobState.CANCELLING, JobState.CANCELLED)


@dataclass(frozen=True, slots=True)
class Advanced:
    """What a pass did: whether there are more services to look at at once, and how many replicas had ended."""

    more: bool
    ended: int


def advance_services(now: datetime) -> Advanced:
    """One pass."""
    ended = 0
    found = [service_id for (service_id,) in fetch(MOVED, [now, SERVICES_MAX])]
    for service_id in found:
        try:
            ended += _advance(service_id, now)
        except DomainError:
            # One that cannot go on must not keep the others waiting; the next tick tries again.
            logger.exception("Service %s could not be carried on", service_id)
    return Advanced(len(found) == SERVICES_MAX, ended)


def next_due(now: datetime) -> datetime | None:
    """When the next service is due, if that is soon."""
    due: datetime | None = fetch(DUE, [now, now + loops.AHEAD])[0][0]
    return due


@transaction.atomic
def _advance(service_id: int, now: datetime) -> int:
    """Look at one service; returns how many of its replicas had ended."""
    locked = Service.objects.select_for_update(skip_locked=True, of=("self",))
    service = locked.select_related("rollout__revision", "stable").filter(pk=service_id).first()
    if service is None or service.rollout is None:
        return 0
    rows = [Live(*row) for row in fetch(LIVE, [service_id])]
    ended = [row for row in rows if row.state in JOB_TERMINAL]
    alive = [row for row in rows if row.state not in JOB_TERMINAL]
    named = {row.revision for row in rows} | {service.rollout.revision_id, service.stable_id}
    revisions = Revision.objects.in_bulk([pk for pk in named if pk is not None])
    policy = engine.Policy(**service.policy)
    _note(rows, ended)
    _count_ends(ended, revisions, policy)
    view = _view(service, service.rollout, alive, revisions, policy)
    plan = engine.decide(view, now.timestamp())
    for pk in plan.forgive:
        _set_backoff(revisions[pk], engine.Backoff())
    _start(service, [revisions[pk] for pk in plan.start], now)
    _stop(service, {row.id: row.job for row in alive}, plan.stop)
    if ended:
        old = service.members.filter(ended_at__isnull=False).order_by("-id")[ENDED_KEPT:]
        Replica.objects.filter(pk__in=list(old.values_list("pk", flat=True))).delete()
    _say(service, service.rollout, view, plan, revisions[view.target], alive, ended, now)
    return len(ended)


def _note(rows: list[Live], ended: list[Live]) -> None:
    """Keep what was seen of the replicas."""
    gone = {row.id for row in ended}
    for row in rows:
        if (row.state, row.token) != (row.seen, row.seen_token):
            Replica.objects.filter(pk=row.id).update(
                seen=row.state,
                token=row.token,
                running_at=row.running_at,
                ended_at=row.ended_at if row.id in gone else None,
            )


def _count_ends(ended: list[Live], revisions: dict[int, Revision], policy: engine.Policy) -> None:
    for row in sorted(ended, key=lambda row: (row.ended_at, row.id)):
        if row.leaving or row.ended_at is None:
            continue
        revision = revisions[row.revision]
        backoff = engine.after_end(
            _backoff(revision),
            lived=(row.ended_at - row.started_at).total_seconds() if row.started_at is not None else 0.0,
            at=row.ended_at.timestamp(),
            policy=policy,
            seed=row.id,
        )
        _set_backoff(revision, backoff)


def _backoff(revision: Revision) -> engine.Backoff:
    return engine.Backoff(revision.failures, revision.retry_at.timestamp() if revision.retry_at else 0.0)


def _set_backoff(revision: Revision, backoff: engine.Backoff) -> None:
    revision.failures = backoff.failures
    revision.retry_at = datetime.fromtimestamp(backoff.retry_at, UTC) if backoff.failures else None
    revision.save(update_fields=["failures", "retry_at"])


def _view(
    service: Service, rollout: Rollout, alive: list[Live], revisions: dict[int, Revision], policy: engine.Policy
) -> engine.View:
    return engine.View(
        wanted=service.replicas if service.state == ServiceState.ACTIVE else 0,
        current=rollout.revision_id,
        stable=service.stable_id,
        rolling=rollout.state == RolloutState.ROLLING,
        failed=rollout.state == RolloutState.FAILED,
        progressed=rollout.progressed_at.timestamp(),
        peak=rollout.peak,
        replicas=[
            engine.Replica(
                row.id, row.revision, row.running_at.timestamp() if row.running_at is not None else None, row.leaving
            )
            for row in alive
        ],
        backoffs={pk: _backoff(revision) for pk, revision in revisions.items()},
        policy=policy,
    )


def _start(service: Service, revisions: list[Revision], now: datetime) -> None:
    if not revisions:
        return
    items = [Submission(revision.spec, f"service:{service.pk}", service.name) for revision in revisions]
    jobs = submit_many(actor=SYSTEM, tenant=service.tenant, owner_id=service.owner_id, items=items)
    insert(
        Replica(service_id=service.pk, revision_id=revision.pk, job_id=job.pk, created_at=now)
        for revision, job in zip(revisions, jobs, strict=True)
    )


def _stop(service: Service, jobs: dict[int, int], replicas: tuple[int, ...]) -> None:
    if replicas:
        Replica.objects.filter(pk__in=replicas).update(stopping=True)
        reason = f"Service {service.name} needs it no longer."
        cancel_many(actor=SYSTEM, job_ids=[jobs[pk] for pk in replicas], reason=reason)


def _say(
    service: Service,
    rollout: Rollout,
    view: engine.View,
    plan: engine.Plan,
    target: Revision,
    alive: list[Live],
    ended: list[Live],
    now: datetime,
) -> None:
    """Keep how the service is, and end its rollout if that is due."""
    mine = [row for row in alive if row.revision == target.pk and not row.leaving]
    last = max((row for row in ended if not row.leaving), key=lambda row: row.id, default=None)
    latest = str(words.Ended(last.job, last.end_reason, last.exit_code, last.detail)) if last else _latest_end(service)
    detail = words.describe(
        plan.condition,
        wanted=view.wanted,
        ready=plan.ready,
        revision=target.number,
        others=len(alive) - len(mine),
        failures=target.failures,
        retry_at=target.retry_at if target.retry_at is not None and target.retry_at > now else None,
        waiting=[row.detail for row in mine if row.state == JobState.PENDING],
        latest=latest,
    )
    if plan.peak > rollout.peak:
        rollout.peak, rollout.progressed_at = plan.peak, now
        rollout.save(update_fields=["peak", "progressed_at"])
    if plan.outcome is not None:
        _end_rollout(service, rollout, view, plan, detail, now)
    looped = engine.Condition.CRASH_LOOP in (service.condition, plan.condition)
    if looped and service.condition != plan.condition:
        verb = "service.crash_loop" if plan.condition == engine.Condition.CRASH_LOOP else "service.crash_loop_ended"
        record(SYSTEM, service_fact(verb, service, reason=detail, revision=target.number))
    before = (service.condition, service.ready, service.detail)
    service.condition, service.ready, service.detail = plan.condition, plan.ready, detail
    if plan.outcome is not None:
        service.due_at = now  # The end of a rollout may change what is wanted.
    else:
        service.due_at = datetime.fromtimestamp(plan.look_at, UTC) if plan.look_at is not None else None
    service.save(update_fields=["condition", "ready", "detail", "due_at", "stable"])
    if plan.start or plan.stop or ended or before != (service.condition, service.ready, service.detail):
        publish([f"service:{service.pk}", f"tenant:{service.tenant_id}"])


def _latest_end(service: Service) -> str:
    ends = service.members.filter(ended_at__isnull=False, stopping=False).select_related("job").order_by("-id")
    last = ends.first()
    return str(words.Ended(last.job_id, last.job.end_reason, last.job.exit_code, last.job.detail)) if last else ""


def _end_rollout(
    service: Service, rollout: Rollout, view: engine.View, plan: engine.Plan, detail: str, now: datetime
) -> None:
    if plan.outcome == engine.Outcome.COMPLETE:
        service.stable = rollout.revision
        state, why = RolloutState.COMPLETE, detail
    else:
        before = service.stable if service.stable_id != rollout.revision_id else None
        state = RolloutState.FAILED
        why = words.failed(
            rollout.revision.number,
            view.policy.progress_deadline,
            peak=plan.peak,
            wanted=view.wanted,
            back_to=before.number if before is not None else None,
            why=detail,
        )
    fact = rollout_fact(service, rollout, reason=why)
    transition(SYSTEM, rollout, ROLLOUT_EDGES, state, fact, ended_at=now, detail=why)
    rollout_ended(rollout.pk)
