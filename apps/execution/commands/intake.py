"""What agents tell: greetings, reports, silence."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from django.conf import settings
from django.db import connection as database
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from apps.core.actors import SYSTEM, Actor
from apps.core.durability import commit_without_waiting, flush
from apps.events.live import publish
from apps.fleet import commands as fleet
from apps.fleet.models import Cluster, Intake, Node
from apps.fleet.states import NodeState
from apps.jobs import commands as jobs
from apps.jobs.models import Placement
from apps.jobs.states import ATTEMPT_LIVE, AttemptState
from rmctl.agent.protocol import MAX_RESULT_BYTES, Checkpoint, Held, Hello, Report

LIVE = sorted(ATTEMPT_LIVE)
# The portal has not listened, or its clock was set, where it last noted that it hears agents so far from now.
GAP = timedelta(seconds=5)
# What is further ahead was written before the clock was set back; less passes by itself.
AHEAD = timedelta(minutes=10)
FORGOTTEN = "The node's agent no longer knows of it."
# Placements of one pass of the recovery loop.
AT_ONCE = 500
INT_MAX, BIGINT_MAX = 2**31 - 1, 2**63 - 1


def _time(at: float, now: datetime) -> datetime:
    """The agent's time, never later than ours and never absurdly early."""
    try:
        told = datetime.fromtimestamp(at, UTC)
    except (ValueError, OverflowError, OSError):
        return now
    return min(told, now) if told > now - timedelta(days=30) else now


def _checkpoint_time(at: float | None, now: datetime) -> datetime | None:
    """When a checkpoint was written, never later than now; None without one, or if it is no time at all."""
    try:
        return None if at is None else min(datetime.fromtimestamp(at, UTC), now)
    except (ValueError, OverflowError, OSError):
        return None


def hello(*, actor: Actor, node_id: int, connection: int, message: Hello) -> None:
    """A node's agent has (re)connected: its inventory is taken over, and what it no longer holds is lost.

    A member that the portal saw running but the agent does not hold any more is gone for good (its disk was
    lost); one that was only granted has not reached the agent yet and is sent again. Raises Replaced for another
    connection than the node's newest.
    """
    fleet.update_inventory(
        actor=actor,
        node_id=node_id,
        connection=connection,
        inventory=msgspec.to_builtins(message.inventory),
        version=str(message.version),
    )
    with transaction.atomic():
        fleet.require_newest(node_id, connection)
        held = {item.placement for item in message.held}
        gone = (
            Placement.objects.filter(node_id=node_id, state=AttemptState.RUNNING)
            .exclude(pk__in=held)
            .values_list("pk", flat=True)
        )
        jobs.end_lost(actor=actor, placement_ids=list(gone), detail=FORGOTTEN)
        fleet.mark_returned(actor=actor, node_id=node_id)


def take_reports(
    *, actor: Actor, node_id: int, reports: Sequence[Report], connection: int | None = None
) -> list[tuple[int, int]]:
    """Store a batch of reports in one transaction; returns the (placement, token) pairs that are refused.

    `connection` is the one that brought them, None for nodes without. Raises Replaced when it is not the newest. What
    they bring about begins before they are on disk; on return they are, so that they can be acknowledged.
    """
    now = timezone.now()
    started = [
        jobs.Started(
            report.placement,
            report.token,
            _time(report.at, now),
            report.pid if report.pid is not None and 0 < report.pid <= INT_MAX else None,
            _clean(report.enforced),
        )
        for report in reports
        if report.kind == "started"
    ]
    ended = [_ended(report, now) for report in reports if report.kind == "ended"]
    with transaction.atomic():
        if connection is not None:
            commit_without_waiting()
            fleet.require_newest(node_id, connection)
        ending = {item.placement for item in ended}
        starting = [item for item in started if item.placement not in ending]
        if starting and ending:
            jobs.lock_placements({*ending, *(item.placement for item in starting)}, node_id)
        refused = jobs.start_placements(actor=actor, node_id=node_id, items=starting)
        refused += jobs.end_placements(actor=actor, node_id=node_id, items=_with_starts(ended, started))
    if connection is not None:
        flush()
    return refused


def _ended(report: Report, now: datetime) -> jobs.Ended:
    """What an agent says about an end, in values that the rows can hold: one odd report must not block the rest."""
    code = _exit_code(report)
    reason, detail, result = report.reason or "exited", report.detail, None
    if code == 0 and reason == "exited":
        try:
            result = _clean(report.result)
            size = len(json.dumps(result, allow_nan=False))
        except (TypeError, ValueError, RecursionError) as error:
            reason, detail, result = "result_invalid", f"It is not JSON: {error}.", None
        else:
            if size > 2 * MAX_RESULT_BYTES:  # Agents count bytes of UTF-8; escaped text is longer.
                reason, detail, result = "result_invalid", f"It has {size} bytes.", None
    usage = msgspec.to_builtins(report.usage) if report.usage else {}
    return jobs.Ended(
        placement=report.placement,
        token=report.token,
        at=_time(report.at, now),
        reason=reason,
        exit_code=code,
        detail=detail.replace("\x00", "")[:2000],
        result=result,
        log_size=max(0, min(report.log_size, BIGINT_MAX)),
        usage={name: value for name, value in usage.items() if math.isfinite(value)},
        enforced=_clean(report.enforced),
        checkpoint_at=_checkpoint_time(report.checkpoint_at, now),
    )


def _with_starts(ended: Sequence[jobs.Ended], started: Sequence[jobs.Started]) -> list[jobs.Ended]:
    """A start that came in the same batch as its end: its time and its limits go along with the end."""
    starts = {item.placement: item for item in started}
    return [
        replace(item, started_at=start.at, enforced=item.enforced or start.enforced)
        if (start := starts.get(item.placement)) is not None
        else item
        for item in ended
    ]


def _exit_code(report: Report) -> int | None:
    """The exit status; 128 + n for a process that signal n ended, as shells tell it."""
    code = report.exit_code
    if code is None and report.signal is not None:
        code = 128 + report.signal
    return None if code is None else max(-INT_MAX, min(code, INT_MAX))


def _clean(value: Any) -> Any:
    """JSON that PostgreSQL can hold: NUL characters are not text there."""
    if isinstance(value, str):
        return value.replace("\x00", "")
    if isinstance(value, list):
        return [_clean(item) for item in value]
    if isinstance(value, dict):
        return {str(key).replace("\x00", ""): _clean(item) for key, item in value.items()}
    return value


def renew(held: Iterable[tuple[int, Held]]) -> None:
    """Renew the leases of what agents (nodes by id) say they hold."""
    jobs.renew_leases(
        ((node_id, item.placement) for node_id, item in held if item.state != "ended"), timezone.now()
    )


def checkpoints(told: Iterable[tuple[int, Checkpoint]]) -> None:
    """Store the checkpoints that agents (nodes by id) tell of."""
    now = timezone.now()
    found = [(node_id, item, _checkpoint_time(item.at, now)) for node_id, item in told]
    jobs.store_checkpoints(
        jobs.Checkpoint(node_id, item.placement, item.token, at) for node_id, item, at in found if at is not None
    )


def listening(*, now: datetime) -> None:
    """Note that the portal hears agents; a GAP starts a new period of listening, and so does a clock that was set back:
    times from before it would be ahead for as long as it went back."""
    with database.cursor() as cursor:
        cursor.execute(
            "INSERT INTO fleet_intake AS i (name, up_since, seen_at) VALUES ('agents', %(now)s, %(now)s) "
            "ON CONFLICT (name) DO UPDATE SET seen_at = excluded.seen_at, up_since = CASE "
            "WHEN i.seen_at NOT BETWEEN %(since)s AND %(until)s THEN excluded.up_since ELSE i.up_since END",
            {"now": now, "since": now - GAP, "until": now + GAP},
        )


def expire(*, now: datetime) -> tuple[int, int]:
    """Declare silent nodes lost, and end what was on them when its lease is over; returns both counts.

    Silence counts only while the portal was listening: after its own outage every agent gets the full time to
    come back.
    """
    intake = Intake.objects.filter(name="agents").first()
    if intake is None or abs(now - intake.seen_at) > GAP:
        return 0, 0
    quiet, ahead = now - timedelta(seconds=settings.NODE_LOST_SECONDS), now + AHEAD
    lost: list[int] = []
    if intake.up_since < quiet:
        silent = Node.objects.filter(
            Q(last_seen_at__lt=quiet)
            | Q(last_seen_at__gt=ahead)
            | Q(last_seen_at__isnull=True, joined_at__lt=quiet),
            state__in=[NodeState.READY, NodeState.CORDONED, NodeState.DRAINING],
        ).exclude(cluster__kind=Cluster.Kind.FAKE)
        ids = list(silent.values_list("pk", flat=True))
        if ids:
            lost = fleet.mark_lost(
                actor=SYSTEM, node_ids=ids, reason=f"Silent for more than {settings.NODE_LOST_SECONDS:.0f} s."
            )
    lease = now - timedelta(seconds=settings.LEASE_SECONDS)
    live = Placement.objects.filter(state__in=LIVE).order_by()
    # Each by an index of its own: one condition for all would look at everything that runs.
    over = [live.filter(node__state=NodeState.REMOVED)]
    if intake.up_since < lease:
        leased = live.filter(attempt__grant__released_at=None).exclude(node__cluster__kind=Cluster.Kind.FAKE)
        over.append(leased.filter(attempt__grant__lease_expires_at__lt=now))
        over.append(leased.filter(attempt__grant__lease_expires_at__gt=ahead))
        # A gang's lease is renewed by any of its nodes; the member on a lost one is lost all the same.
        silent_since = Q(node__last_seen_at__lt=lease) | Q(node__last_seen_at__gt=ahead)
        over.append(live.filter(silent_since, node__state=NodeState.LOST))
    count = 0
    ids = sorted({pk for rows in over for pk in rows.values_list("pk", flat=True)[:AT_ONCE]})[:AT_ONCE]
    if ids:
        with transaction.atomic():
            count = jobs.end_lost(
                actor=SYSTEM, placement_ids=ids, detail="Its lease ran out: the node has not been heard of."
            )
    return len(lost), count


def drain_nodes() -> int:
    """Ask what runs on draining nodes to stop, so that it is placed elsewhere; a node that is empty is drained."""
    with transaction.atomic():
        rows = list(
            Placement.objects.filter(node__state=NodeState.DRAINING, state__in=LIVE, attempt__stop_reason="")
            .values_list("attempt_id", "node_id")
            .order_by("pk")[:AT_ONCE]
        )
        if rows:
            jobs.stop_placements({attempt for attempt, _ in rows}, "drained")
            publish({f"node:{node}" for _, node in rows})
    empty = (
        Node.objects.filter(state=NodeState.DRAINING)
        .exclude(placements__state__in=LIVE)
        .values_list("pk", flat=True)
    )
    for node_id in list(empty):
        fleet.finish_drain(actor=SYSTEM, node_id=node_id)
    return len(rows)
