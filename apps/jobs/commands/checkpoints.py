"""Checkpoints: when running members last said that they have written one, and what is lost without a newer one."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from django.db import connection, transaction

from apps.events.live import publish


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A member of a node has written one, as its agent says; the agent repeats the latest with every beat."""

    node: int
    placement: int
    token: int
    at: datetime


@transaction.atomic
def store_checkpoints(items: Iterable[Checkpoint]) -> None:
    """Store those that are newer than what is known of members that run; one before the start counts from the start.

    Others are left out: a placement of another node, an old token, a member that has ended. So is, until it is said
    again, a member that somebody has locked: it is just ending, and its end tells the same.
    """
    rows = sorted((item.node, item.placement, item.token, item.at) for item in items)
    if not rows:
        return
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE jobs_placement AS p SET checkpoint_at = v.at FROM ("
            "SELECT p.id, a.job_id, greatest(v.at, p.started_at) AS at "
            "FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::timestamptz[]) AS v(node, placement, token, at) "
            "JOIN jobs_placement p ON p.id = v.placement AND p.node_id = v.node "
            "JOIN jobs_attempt a ON a.id = p.attempt_id AND a.token = v.token "
            "WHERE p.state = 'running' AND (p.checkpoint_at IS NULL OR p.checkpoint_at < greatest(v.at, p.started_at)) "
            "ORDER BY p.id FOR NO KEY UPDATE OF p SKIP LOCKED) AS v WHERE p.id = v.id RETURNING v.job_id",
            [list(column) for column in zip(*rows, strict=True)],
        )
        publish({f"job:{job_id}" for (job_id,) in cursor.fetchall()})


def latest(known: datetime | None, told: datetime | None, started: datetime | None, ended: datetime) -> datetime | None:
    """The last checkpoint of a member that has ended: the newer of both, within its time."""
    if started is None:
        return None
    found = [min(max(at, started), ended) for at in (known, told) if at is not None]
    return max(found, default=None)


def of_all(times: Iterable[datetime | None]) -> datetime | None:
    """From where all members of an attempt can go on: the oldest of their last checkpoints.

    Members that write none have no say, as often one of a gang saves for all; None when nobody wrote any.
    """
    return min((at for at in times if at is not None), default=None)


def loss(started: datetime, checkpoint: datetime | None, until: datetime) -> tuple[float, str]:
    """The seconds of work that are lost at `until`, and since what: `its last checkpoint` or `its start`."""
    since = started if checkpoint is None else checkpoint
    return max(0.0, (until - since).total_seconds()), "its start" if checkpoint is None else "its last checkpoint"


def span(seconds: float) -> str:
    """A duration as people say it: `0.4 s`, `50 s`, `12 min`, `5 h`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    unit, length = next((item for item in (("h", 3600), ("min", 60)) if seconds >= 2 * item[1]), ("s", 1))
    return f"{seconds / length:.0f} {unit}"
