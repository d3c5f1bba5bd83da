"""Observe: who holds quota and could be evicted, for whom others stop already, and who yields to whom."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from django.conf import settings

from apps.jobs.commands.checkpoints import of_all
from apps.jobs.configuration import Configuration
from apps.jobs.models import Attempt, Placement, usage_of
from apps.jobs.states import ATTEMPT_LIVE, JOB_ACTIVE
from engine.company import Bonds
from engine.evictions import Places
from engine.fleet import Fleet, Request
from engine.preemption import yielding
from engine.queues import Holder, Policy, QueueRules

LIVE = sorted(ATTEMPT_LIVE)


@dataclass(frozen=True, slots=True)
class Held:
    """What a snapshot says of those that run."""

    holders: list[Holder] = field(default_factory=list)
    places: dict[Hashable, Places] = field(default_factory=dict)
    claims: frozenset[int] = frozenset()
    yields: dict[Hashable, frozenset[Hashable]] = field(default_factory=dict)


def evicts(rules: QueueRules) -> bool:
    """Whether a queue with these rules may evict anybody."""
    return not rules.within_queue == rules.reclaim == Policy.NEVER


def load_held(configured: Configuration, fleet: Fleet, now: datetime, bonds: Mapping[int, Bonds]) -> Held:
    """Read it; nothing is read while no queue may evict anybody. `bonds` are those of jobs that have some."""
    if not any(evicts(rules) for rules in configured.rules.values()):
        return Held()
    holders: list[Holder] = []
    claims: set[int] = set()
    rows = Attempt.objects.filter(state__in=LIVE, grant__released_at=None).values_list(
        "job_id",
        "job__priority",
        "job__submitted_at",
        "started_at",
        "stop_reason",
        "preempted_by_id",
        "grant__created_at",
        "grant__quota_node_id",
        "grant__flavor",
        "grant__amounts",
        "grant__shares",
    )
    # Read first: whoever is granted room between the two reads is no holder, rather than one without a place.
    found = list(rows)
    places, saved = _places(fleet, bonds)
    for job, priority, submitted, started, stopping, by, since, queue, flavor, amounts, shares in found:
        minimum = configured.minimum_run.get(queue, 0)
        began = started or since
        ran = (now - began).total_seconds()
        holders.append(
            Holder(
                uid=job,
                queue=queue,
                priority=configured.priority(queue, priority),
                submitted=submitted.timestamp(),
                since=since.timestamp(),
                usage=usage_of(flavor, amounts, shares),
                evicting=bool(stopping),
                lost=(now - (saved.get(job) or began)).total_seconds(),
                protected=ran < minimum,
            )
        )
        if by is not None:
            claims.add(by)
    return Held(holders, places, frozenset(claims), _yields(now))


def _places(
    fleet: Fleet, bonds: Mapping[int, Bonds]
) -> tuple[dict[Hashable, Places], dict[int, datetime | None]]:
    """Where the members of live attempts are, on the nodes of the snapshot, and from when on they can go on."""
    index = {int(node_id): row for row, node_id in enumerate(fleet.ids)}
    found: dict[Hashable, list[tuple[Request, int, tuple[int, ...]]]] = {}
    written: dict[int, list[datetime | None]] = {}
    # Members that have ended count as well: their room is given back with the whole attempt's.
    rows = Placement.objects.filter(attempt__state__in=LIVE).values_list(
        "attempt__job_id", "node_id", "cpu_millicores", "memory_bytes", "storage_bytes", "gpus", "checkpoint_at",
        "attempt__job__tenant__domain_id",
    )
    for job, node, cpu, memory, storage, gpus, checkpoint, domain in rows.order_by("attempt_id", "rank"):
        written.setdefault(job, []).append(checkpoint)
        if node in index:
            milli = gpus[0][1] if gpus else 1000
            request = Request(
                cpu=cpu, memory=memory, storage=storage, gpu_count=len(gpus), gpu_milli=milli, consumer=domain,
                bonds=bonds.get(job),
            )  # fmt: skip
            found.setdefault(job, []).append((request, index[node], tuple(card for card, _ in gpus)))
    return dict(found), {job: of_all(times) for job, times in written.items()}


def _yields(now: datetime) -> dict[Hashable, frozenset[Hashable]]:
    """From evictions of the last half-life between jobs that are both still active; older ones bind nobody."""
    active = sorted(JOB_ACTIVE)
    since = now - timedelta(seconds=settings.QUOTA_HALF_LIFE_SECONDS)
    return yielding(
        Attempt.objects.filter(
            preempted_at__gt=since, job__state__in=active, preempted_by__state__in=active
        ).values_list("job_id", "preempted_by_id")
    )
