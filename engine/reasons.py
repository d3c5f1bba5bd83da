"""Why a job is pending: the closed list, with titles for people and an order of gravity."""

from collections.abc import Iterable
from enum import StrEnum


class Reason(StrEnum):
    """The primary reason of a pending job. Never empty, never anything else."""

    # That of enums is written in Python, and a cycle looks a reason up for every job.
    __hash__ = str.__hash__

    SUBMITTED = "submitted"
    HELD = "held"
    BACKOFF = "backoff"
    TENANT_SUSPENDED = "tenant_suspended"
    NO_POOL = "no_pool"
    NO_FLAVOR = "no_flavor"
    NO_NODE_MATCHES = "no_node_matches"
    EXCEEDS_EVERY_NODE = "exceeds_every_node"
    EXCEEDS_MAX_QUOTA = "exceeds_max_quota"
    WAITING_FOR_QUOTA = "waiting_for_quota"
    BUDGET_EXHAUSTED = "budget_exhausted"
    WAITING_FOR_CAPACITY = "waiting_for_capacity"
    BEHIND_IN_QUEUE = "behind_in_queue"
    WAITING_FOR_PREEMPTION = "waiting_for_preemption"


TITLES: dict[Reason, str] = {
    Reason.SUBMITTED: "Just submitted",
    Reason.HELD: "On hold",
    Reason.BACKOFF: "Waiting before the next try",
    Reason.TENANT_SUSPENDED: "The tenant is suspended",
    Reason.NO_POOL: "The pool does not exist",
    Reason.NO_FLAVOR: "No flavor of the pool serves this request",
    Reason.NO_NODE_MATCHES: "No node matches the intent",
    Reason.EXCEEDS_EVERY_NODE: "Larger than the nodes can hold",
    Reason.EXCEEDS_MAX_QUOTA: "Larger than the quota can ever give",
    Reason.WAITING_FOR_QUOTA: "Waiting for quota",
    Reason.BUDGET_EXHAUSTED: "A budget is used up",
    Reason.WAITING_FOR_CAPACITY: "Waiting for free capacity",
    Reason.BEHIND_IN_QUEUE: "Behind others in the queue",
    Reason.WAITING_FOR_PREEMPTION: "Waiting for evicted jobs to stop",
}

# From the mildest (passes by itself) to the gravest (somebody has to change something).
GRAVITY: tuple[Reason, ...] = (
    Reason.SUBMITTED,
    Reason.WAITING_FOR_PREEMPTION,
    Reason.BEHIND_IN_QUEUE,
    Reason.WAITING_FOR_CAPACITY,
    Reason.WAITING_FOR_QUOTA,
    Reason.BUDGET_EXHAUSTED,
    Reason.BACKOFF,
    Reason.HELD,
    Reason.EXCEEDS_MAX_QUOTA,
    Reason.EXCEEDS_EVERY_NODE,
    Reason.NO_NODE_MATCHES,
    Reason.NO_FLAVOR,
    Reason.NO_POOL,
    Reason.TENANT_SUSPENDED,
)
RANK = {reason: rank for rank, reason in enumerate(GRAVITY)}


def mildest(reasons: Iterable[Reason]) -> Reason:
    """The reason to report over alternatives: one flavor that is merely full means waiting."""
    return min(reasons, key=RANK.__getitem__)


def gravest(reasons: Iterable[Reason]) -> Reason:
    """The reason to report over needs that must all be met."""
    return max(reasons, key=RANK.__getitem__)
