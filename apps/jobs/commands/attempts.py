"""How attempts go: their members start and end, and the job follows.

A member's report counts only if its token is the job's newest and the member is still live; everything else
is refused, and the agent ends such a process. An attempt ends when its last member has ended, so capacity is
given back only when nothing of it runs any more.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, TypeVar

from django.utils import timezone

from apps.core.actors import Actor
from apps.core.pipeline import pipelined
from apps.core.rows import Part, fetch
from apps.events.record import Fact, Move, move_many, record_all
from engine.reasons import Reason
from engine.retry import LOSS_LIMIT, classify_end, next_delay

from ..models import Attempt, Grant, Job, Placement
from ..states import (
    ATTEMPT_EDGES,
    ATTEMPT_LIVE,
    ATTEMPT_TERMINAL,
    JOB_EDGES,
    AttemptState,
    JobState,
)
from ..subscribers import jobs_moved
from . import checkpoints
from .grants import release_grants
from .preemption import STOP_REASON, whom


@dataclass(frozen=True, slots=True)
class Started:
    """A member's process runs."""

    placement: int
    token: int
    at: datetime
    pid: int | None = None
    enforced: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ended:
    """A member's process is gone; `reason` is one of the agent protocol's end reasons."""

    placement: int
    token: int
    at: datetime
    reason: str
    exit_code: int | None = None
    detail: str = ""
    result: Any = None
    log_size: int = 0
    usage: dict[str, Any] = field(default_factory=dict)
    enforced: dict[str, str] = field(default_factory=dict)
    # The time of the start, when its report came together with this one.
    started_at: datetime | None = None
    # When it last said that it has written a checkpoint.
    checkpoint_at: datetime | None = None


Reported = TypeVar("Reported", Started, Ended)
# Ends of members of which nothing need ever have run.
NEVER_RAN = frozenset({"lost", "refused", "stopped", "secret_missing"})


JOB = Part(Job, "j", "id", "tenant_id", "origin", "spec", "state", "token", "failures", "losses", "started_at")
GRANT = Part(Grant, "g", "id", "quota_node_id", "flavor", "amounts", "shares")
ATTEMPT = Part(
    Attempt, "a", "id", "job_id", "grant_id", "token", "state", "stop_reason", "preempted_by_id", "preempted_cause",
    "started_at",
)  # fmt: skip
PLACEMENT = Part(
    Placement, "p", "id", "attempt_id", "node_id", "group", "rank", "cpu_millicores", "memory_bytes", "storage_bytes",
    "gpus", "state", "exit_code", "end_reason", "detail", "enforced", "started_at", "checkpoint_at", "ended_at",
)  # fmt: skip
# Of each row the job is locked first: `cancel` holds the job when it asks for the attempt.
LOCKED = (
    f"SELECT {PLACEMENT.columns}, {ATTEMPT.columns}, {JOB.columns}, {GRANT.columns} FROM jobs_placement p "
    "JOIN jobs_attempt a ON a.id = p.attempt_id JOIN jobs_job j ON j.id = a.job_id "
    "JOIN jobs_grant g ON g.id = a.grant_id WHERE p.id = ANY(%s::bigint[]) AND (%s::bigint IS NULL OR p.node_id = %s) "
    "ORDER BY j.id, p.id FOR NO KEY UPDATE OF j, a, p"
)


def _locked(placement_ids: Iterable[int], node_id: int | None) -> dict[int, Placement]:
    """The placements with their attempts and jobs, locked in job order; others' nodes are left out."""
    ids = list(placement_ids)
    found: dict[int, Placement] = {}
    attempts: dict[int, Attempt] = {}
    for row in fetch(LOCKED, [ids, node_id, node_id]) if ids else ():
        placement = found[row[0]] = PLACEMENT.make(row[: PLACEMENT.width])
        if placement.attempt_id not in attempts:
            parts = iter(row[PLACEMENT.width :])
            attempt = attempts[placement.attempt_id] = ATTEMPT.make([*islice(parts, ATTEMPT.width)])
            attempt.job = JOB.make([*islice(parts, JOB.width)])
            attempt.grant = GRANT.make([*islice(parts, GRANT.width)])
        placement.attempt = attempts[placement.attempt_id]
    return found


def lock_placements(placement_ids: Iterable[int], node_id: int | None) -> None:
    """Lock the rows of reports of both kinds at once: starts and then ends, each in order, are not in one order."""
    _locked(placement_ids, node_id)


def start_placements(*, actor: Actor, node_id: int | None, items: Sequence[Started]) -> list[tuple[int, int]]:
    """Take reports of starts in the caller's transaction; returns the refused (placement, token) pairs.

    A repeated report, also of a member that has ended since, is neither refused nor stored twice.
    """
    accepted, refused = _sorted_out(items, node_id)
    fresh = [(item, placement) for item, placement in accepted if placement.state == AttemptState.GRANTED]
    move_many(
        Placement,
        ATTEMPT_EDGES,
        [Move(p.pk, p.state, AttemptState.RUNNING, (item.at, item.pid, item.enforced)) for item, p in fresh],
        ("started_at", "pid", "enforced"),
    )
    first: dict[int, tuple[Started, Attempt]] = {}
    for item, placement in fresh:
        if placement.attempt.state == AttemptState.GRANTED:
            first.setdefault(placement.attempt_id, (item, placement.attempt))
    attempts = list(first.values())
    move_many(
        Attempt,
        ATTEMPT_EDGES,
        [Move(attempt.pk, attempt.state, AttemptState.RUNNING, (item.at,)) for item, attempt in attempts],
        ("started_at",),
    )
    jobs = [(item, attempt.job) for item, attempt in attempts if attempt.job.state == JobState.GRANTED]
    move_many(
        Job,
        JOB_EDGES,
        [Move(job.pk, job.state, JobState.RUNNING, (job.started_at or item.at,)) for item, job in jobs],
        ("started_at",),
    )
    record_all(actor, (_fact("job.started", job) for _, job in jobs))
    jobs_moved((job.pk, job.origin) for _, job in jobs)
    return refused


def _stale(placement: Placement, token: int) -> bool:
    attempt = placement.attempt
    return token != attempt.token or token != attempt.job.token or placement.state not in ATTEMPT_LIVE


def _repeated(placement: Placement, token: int) -> bool:
    """Whether the end of this very member is stored already, so that its agent only says again what it said."""
    ended = placement.state in ATTEMPT_TERMINAL and placement.state != AttemptState.LOST
    return ended and token == placement.attempt.token


def _sorted_out(
    items: Sequence[Reported], node_id: int | None
) -> tuple[list[tuple[Reported, Placement]], list[tuple[int, int]]]:
    """The reports that count, with their members locked, and the (placement, token) pairs that are refused.

    Of each member the first report counts: an agent that reconnects may say a thing twice in one batch.
    """
    placements = _locked([item.placement for item in items], node_id)
    first: dict[tuple[int, int], Reported] = {}
    for item in items:
        first.setdefault((item.placement, item.token), item)
    accepted: list[tuple[Reported, Placement]] = []
    refused: list[tuple[int, int]] = []
    for (placement_id, token), item in first.items():
        placement = placements.get(placement_id)
        if placement is not None and not _stale(placement, token):
            accepted.append((item, placement))
        elif placement is None or not _repeated(placement, token):
            refused.append((placement_id, token))
    return accepted, refused


def end_placements(*, actor: Actor, node_id: int | None, items: Sequence[Ended]) -> list[tuple[int, int]]:
    """Take reports of ends in the caller's transaction; returns the refused (placement, token) pairs.

    A repeated report of an end that is stored already is neither refused nor stored twice.
    """
    accepted, refused = _sorted_out(items, node_id)
    _end(actor, accepted, timezone.now())
    return refused


def _end(actor: Actor, accepted: Sequence[tuple[Ended, Placement]], now: datetime) -> None:
    """End these members, and what ends with them."""
    if accepted:
        with pipelined():
            _end_members(accepted, now)
            _end_attempts(actor, accepted, now)


def _end_members(accepted: Sequence[tuple[Ended, Placement]], now: datetime) -> None:
    moves = []
    for item, placement in accepted:
        verdict = classify_end(item.reason, item.exit_code)
        target = {
            "success": AttemptState.SUCCEEDED,
            "failure": AttemptState.FAILED,
            "lost": AttemptState.LOST,
            "cancelled": AttemptState.CANCELLED,
        }[verdict]
        started = placement.started_at or item.started_at or (None if item.reason in NEVER_RAN else item.at)
        values = (
            started,
            checkpoints.latest(placement.checkpoint_at, item.checkpoint_at, started, item.at),
            item.at,
            item.exit_code,
            item.reason,
            item.detail,
            item.log_size,
            item.usage,
            item.enforced or placement.enforced,
        )
        moves.append(Move(placement.pk, placement.state, target, values))
    columns = (
        "started_at",
        "checkpoint_at",
        "ended_at",
        "exit_code",
        "end_reason",
        "detail",
        "log_expected",
        "usage",
        "enforced",
    )
    move_many(Placement, ATTEMPT_EDGES, moves, columns)
    for (item, placement), step in zip(accepted, moves, strict=True):
        placement.state, placement.end_reason, placement.exit_code = step.target, item.reason, item.exit_code
        placement.started_at, placement.checkpoint_at, placement.ended_at = step.values[:3]
        placement.detail = item.detail


def _end_attempts(actor: Actor, accepted: Sequence[tuple[Ended, Placement]], now: datetime) -> None:
    """End every attempt whose last member ended; ask the peers of a failed member to stop."""
    touched = {placement.attempt_id: placement.attempt for _, placement in accepted}
    members: dict[int, list[Placement]] = {attempt_id: [] for attempt_id in touched}
    for _, placement in accepted:
        members[placement.attempt_id].append(placement)
    gangs = [attempt_id for attempt_id, attempt in touched.items() if _size(attempt.job) > 1]
    for placement in Placement.objects.filter(attempt__in=gangs).exclude(pk__in=[p.pk for _, p in accepted]):
        members[placement.attempt_id].append(placement)
    done, failing = [], []
    for attempt_id, attempt in touched.items():
        if all(member.state in ATTEMPT_TERMINAL for member in members[attempt_id]):
            done.append(attempt)
        elif not attempt.stop_reason and any(
            member.state in ATTEMPT_TERMINAL and member.state != AttemptState.SUCCEEDED
            for member in members[attempt_id]
        ):
            failing.append(attempt)
    if failing:
        Attempt.objects.filter(pk__in=[attempt.pk for attempt in failing], stop_reason="").update(
            stop_reason="peer_failed"
        )
    results = {placement.attempt_id: item.result for item, placement in accepted if _is_first(placement)}
    _finish(actor, done, members, results, now)
    peers = {f"node:{member.node_id}" for attempt in failing for member in members[attempt.pk]}
    if peers:
        record_all(
            actor,
            (_fact("job.stopping_peers", attempt.job, topics=tuple(sorted(peers))) for attempt in failing),
        )


def _size(job: Job) -> int:
    return sum(group["count"] for group in job.spec["groups"])


def _is_first(placement: Placement) -> bool:
    return placement.group == 0 and placement.rank == 0


def _worst(members: Sequence[Placement]) -> Placement:
    """The member that tells how the attempt ended: a failure before a loss before a stop before success."""
    order = [AttemptState.FAILED, AttemptState.LOST, AttemptState.CANCELLED, AttemptState.SUCCEEDED]
    return min(members, key=lambda member: (order.index(AttemptState(member.state)), member.group, member.rank))


def _finish(
    actor: Actor,
    attempts: Sequence[Attempt],
    members: dict[int, list[Placement]],
    results: dict[int, Any],
    now: datetime,
) -> None:
    if not attempts:
        return
    worst = {attempt.pk: _worst(members[attempt.pk]) for attempt in attempts}
    move_many(
        Attempt,
        ATTEMPT_EDGES,
        [
            Move(
                attempt.pk,
                attempt.state,
                worst[attempt.pk].state,
                (
                    attempt.started_at or worst[attempt.pk].started_at,
                    max(member.ended_at or now for member in members[attempt.pk]),
                    worst[attempt.pk].exit_code,
                    worst[attempt.pk].end_reason,
                    worst[attempt.pk].detail,
                ),
            )
            for attempt in attempts
        ],
        ("started_at", "ended_at", "exit_code", "end_reason", "detail"),
    )
    release_grants([attempt.grant for attempt in attempts], _members_of(attempts, members), now)
    steps = [_next_step(attempt, worst[attempt.pk], members[attempt.pk], now) for attempt in attempts]
    columns = ("reason", "detail", "not_before", "failures", "losses", "exit_code", "end_reason", "ended_at")
    moves = []
    for attempt, step in zip(attempts, steps, strict=True):
        end = (
            None if step.target == JobState.PENDING else max(m.ended_at or now for m in members[attempt.pk]),
            results.get(attempt.pk) if step.target == JobState.SUCCEEDED else None,
            attempt.job.started_at or worst[attempt.pk].started_at,
        )
        moves.append(Move(attempt.job_id, attempt.job.state, step.target, (*step.values, *end)))
    move_many(Job, JOB_EDGES, moves, (*columns, "result", "started_at"))
    # Told before the facts: the loop that goes on with their runs is to be woken before the scheduler.
    jobs_moved((attempt.job_id, attempt.job.origin) for attempt in attempts)
    record_all(
        actor,
        (
            _fact(
                JOB_EDGES[attempt.job.state, step.target],
                attempt.job,
                facts={
                    "token": attempt.token,
                    "end_reason": worst[attempt.pk].end_reason,
                    "exit_code": worst[attempt.pk].exit_code,
                    **step.facts,
                },
                reason=step.detail,
                topics=("queue", "fleet", "quota"),
                wakes=not attempt.job.origin or step.target == JobState.PENDING,
            )
            for attempt, step in zip(attempts, steps, strict=True)
        ),
    )


@dataclass(frozen=True, slots=True)
class _Step:
    target: str
    values: tuple[Any, ...]
    detail: str
    # What its event says besides: which retry it is.
    facts: dict[str, int] = field(default_factory=dict)


def _next_step(attempt: Attempt, worst: Placement, members: Sequence[Placement], now: datetime) -> _Step:
    """Where the job goes after its attempt ended as `worst` did: final, or back to the queue."""
    job = attempt.job

    def step(target: str, why: str, detail: str, not_before: datetime | None, failures: int, losses: int) -> _Step:
        return _Step(target, (why, detail, not_before, failures, losses, worst.exit_code, worst.end_reason), detail)

    if worst.state == AttemptState.SUCCEEDED:
        return step(JobState.SUCCEEDED, "", "", None, job.failures, job.losses)
    if job.state == JobState.CANCELLING:
        return step(JobState.CANCELLED, "", "", None, job.failures, job.losses)
    text = _explain_end(worst)
    if attempt.stop_reason == STOP_REASON and worst.state == AttemptState.CANCELLED:
        text = f"Evicted for {whom(attempt.preempted_by_id, attempt.preempted_cause)}."
        text += _explain_loss(attempt, members, now)
        if job.spec.get("on_preempt") == "fail":
            return step(JobState.FAILED, "", text, None, job.failures, job.losses)
        detail = f"{text} It waits again with its old place in the queue; this does not count as a retry."
        return step(JobState.PENDING, Reason.SUBMITTED, detail, None, job.failures, job.losses)
    if worst.state in (AttemptState.LOST, AttemptState.CANCELLED):
        losses = job.losses + 1
        if losses > LOSS_LIMIT:
            detail = f"Given up after {losses} lost attempts. {text}"
            return step(JobState.FAILED, "", detail, None, job.failures, losses)
        detail = f"{text} It is placed again; this does not count as a retry."
        return step(JobState.PENDING, Reason.SUBMITTED, detail, None, job.failures, losses)
    failures = job.failures + 1
    policy = job.spec["retries"]
    if failures > policy["limit"] or worst.exit_code in policy.get("final", ()):
        return step(JobState.FAILED, "", text, None, failures, job.losses)
    delay = next_delay(policy, failures, seed=job.pk)
    detail = f"{text} Retry {failures} of {policy['limit']} in {delay:.1f} s."
    again = step(JobState.PENDING, Reason.BACKOFF, detail, now + timedelta(seconds=delay), failures, job.losses)
    return replace(again, facts={"retry": failures})


def _explain_loss(attempt: Attempt, members: Sequence[Placement], now: datetime) -> str:
    """What an attempt that has ended leaves to be done again; nothing is said of one that never ran."""
    started = min((member.started_at for member in members if member.started_at), default=attempt.started_at)
    if started is None:
        return ""
    ended = max(member.ended_at or now for member in members)
    seconds, since = checkpoints.loss(started, checkpoints.of_all(m.checkpoint_at for m in members), ended)
    return f" Lost: the work of {checkpoints.span(seconds)} since {since}."


def _explain_end(placement: Placement) -> str:
    said = {
        "exited": f"Exited with status {placement.exit_code}.",
        "time_limit": "Stopped at its time limit.",
        "memory_limit": "Stopped: it used more memory than its limit.",
        "storage_limit": "Stopped: it wrote more than its storage limit.",
        "pids_limit": "Stopped: it started more processes than its limit.",
        "stopped": "Stopped on request.",
        "lost": "Its process was lost with its node or agent.",
        "refused": "The node could not start it.",
        "secret_missing": "It could not be started.",
        "result_invalid": "Its result is not valid JSON of at most 256 KiB.",
    }.get(placement.end_reason, f"Ended: {placement.end_reason}.")
    return f"{said} {placement.detail}".strip()


def _members_of(attempts: Sequence[Attempt], members: dict[int, list[Placement]]) -> list[Placement]:
    return [member for attempt in attempts for member in members[attempt.pk]]


def end_lost(*, actor: Actor, placement_ids: Sequence[int], detail: str) -> int:
    """Declare members lost whose lease ran out or whose node is gone; returns how many were still live."""
    now = timezone.now()
    placements = _locked(placement_ids, None)
    accepted = [
        (Ended(placement.pk, placement.attempt.token, now, "lost", detail=detail), placement)
        for placement in placements.values()
        if placement.state in ATTEMPT_LIVE
    ]
    _end(actor, accepted, now)
    return len(accepted)


def end_unborn(*, actor: Actor, placement_ids: Sequence[int]) -> None:
    """End members that were to stop before any agent took them: nothing of them ever ran."""
    now = timezone.now()
    accepted = [
        (Ended(placement.pk, placement.attempt.token, now, "stopped", detail="It had not started."), placement)
        for placement in _locked(placement_ids, None).values()
        if placement.state == AttemptState.GRANTED and placement.attempt.stop_reason
    ]
    _end(actor, accepted, now)


def end_unstartable(*, actor: Actor, details: Mapping[int, str]) -> None:
    """Fail members that can't be handed to their agent, each with what is wrong; nothing of them ever ran."""
    now = timezone.now()
    accepted = [
        (Ended(placement.pk, placement.attempt.token, now, "secret_missing", detail=details[placement.pk]), placement)
        for placement in _locked(details, None).values()
        if placement.state == AttemptState.GRANTED
    ]
    _end(actor, accepted, now)


def _fact(
    verb: str, job: Job, *, facts: dict[str, Any] | None = None, reason: str = "", topics: tuple[str, ...] = (),
    wakes: bool = True,
) -> Fact:
    return Fact(
        verb, "job", job.pk, tenant_id=job.tenant_id, facts=facts or {}, reason=reason, topics=topics, wakes=wakes
    )

