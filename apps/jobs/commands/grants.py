"""Giving capacity: the grant, its attempt and its placements appear, and node and quota are charged, together."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.db import connection, transaction

from apps.core.actors import SYSTEM
from apps.core.bulk import as_json, update_rows
from apps.core.pipeline import pipelined
from apps.events.record import Fact, Move, move_many, record_all
from apps.quotas import ledger

from ..budgets import settle
from ..models import Attempt, Grant, Job, Placement
from ..states import ATTEMPT_LIVE, JOB_EDGES, JobState


@dataclass(frozen=True, slots=True)
class Member:
    """One member of a gang on its node; `gpus` are (card index, thousandths)."""

    group: int
    rank: int
    node_id: int
    cpu_millicores: int
    memory_bytes: int
    storage_bytes: int
    gpus: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Given:
    """A decided grant for a job that the caller has locked and seen pending; `price` is of an hour.

    `shares` are (flavor, amounts) by group, where these have different flavors.
    """

    job: Job
    quota_node: int
    flavor: str
    amounts: Mapping[str, int]
    members: Sequence[Member]
    node_names: Sequence[str] = ()
    price: Decimal = Decimal(0)
    shares: Sequence[tuple[str, Mapping[str, int]]] | None = None


def give_grants(items: Sequence[Given], now: datetime) -> None:
    """Write decided grants in the caller's transaction, which holds the tree lock, the jobs and the nodes.

    The caller has re-checked each with the engine's own check; this only writes.
    """
    if not items:
        return
    with pipelined():
        _insert(items, now)
        move_many(
            Job,
            JOB_EDGES,
            [Move(item.job.pk, item.job.state, JobState.GRANTED, (item.job.token + 1, "", "", [])) for item in items],
            ("token", "reason", "detail", "tried"),
        )
        allocate((member for item in items for member in item.members), +1)
        ledger.charge(
            (item.quota_node, flavor, amounts)
            for item in items
            for flavor, amounts in item.shares or [(item.flavor, item.amounts)]
        )
        record_all(
            SYSTEM,
            (
                Fact(
                    "job.granted",
                    "job",
                    item.job.pk,
                    tenant_id=item.job.tenant_id,
                    facts={"flavor": item.flavor, "nodes": list(item.node_names), "token": item.job.token + 1},
                    topics=("queue", "fleet", "quota"),
                )
                for item in items
            ),
        )


# A grant, its attempt and its placements in one statement. What is not named has no more than an empty value.
INSERT = """
WITH given AS (
  SELECT * FROM jsonb_to_recordset(%s::jsonb) AS v(
    job bigint, quota_node bigint, flavor text, amounts jsonb, shares jsonb, price numeric, token integer)
), granted AS (
  INSERT INTO jobs_grant (job_id, quota_node_id, flavor, amounts, shares, price, created_at, lease_expires_at)
  SELECT job, quota_node, flavor, amounts, shares, price, %s, %s FROM given ORDER BY job
  RETURNING id, job_id
), attempt AS (
  INSERT INTO jobs_attempt
    (job_id, grant_id, token, created_at, state, end_reason, detail, stop_reason, preempted_cause)
  SELECT job, granted.id, token, %s, 'granted', '', '', '', '' FROM granted JOIN given ON job = job_id ORDER BY job
  RETURNING id, job_id
)
INSERT INTO jobs_placement (attempt_id, node_id, "group", rank, cpu_millicores, memory_bytes, storage_bytes, gpus,
  state, end_reason, detail, enforced, usage, log_size)
SELECT attempt.id, node, "group", rank, cpu, memory, storage, gpus, 'granted', '', '', '{}', '{}', 0
FROM jsonb_to_recordset(%s::jsonb) AS v(job bigint, node bigint, "group" smallint, rank integer, cpu bigint,
  memory bigint, storage bigint, gpus jsonb) JOIN attempt ON job = job_id ORDER BY job, "group", rank
"""


def _insert(items: Sequence[Given], now: datetime) -> None:
    given = [
        {
            "job": item.job.pk,
            "quota_node": item.quota_node,
            "flavor": item.flavor,
            "amounts": dict(item.amounts),
            "shares": [{"flavor": flavor, "amounts": dict(mine)} for flavor, mine in item.shares or ()] or None,
            "price": item.price,
            "token": item.job.token + 1,
        }
        for item in items
    ]
    members = [
        {
            "job": item.job.pk,
            "node": member.node_id,
            "group": member.group,
            "rank": member.rank,
            "cpu": member.cpu_millicores,
            "memory": member.memory_bytes,
            "storage": member.storage_bytes,
            "gpus": member.gpus,
        }
        for item in items
        for member in item.members
    ]
    lease = now + timedelta(seconds=settings.LEASE_SECONDS)
    with connection.cursor() as cursor:
        cursor.execute(INSERT, [as_json(given), now, lease, now, as_json(members)])


def allocate(members: Iterable[Any], sign: int) -> None:
    """Add (+1) or take back (-1) the members' amounts on their nodes and cards, in key order."""
    nodes: dict[int, list[int]] = {}
    cards: dict[tuple[int, int], int] = {}
    for member in members:
        amounts = nodes.setdefault(member.node_id, [0, 0, 0, 0])
        amounts[0] += sign * member.cpu_millicores
        amounts[1] += sign * member.memory_bytes
        amounts[2] += sign * member.storage_bytes
        amounts[3] += sign
        for index, milli in member.gpus:
            cards[member.node_id, index] = cards.get((member.node_id, index), 0) + sign * milli
    if not nodes:
        return
    rows = sorted((node_id, *amounts) for node_id, amounts in nodes.items())
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE fleet_node AS n SET allocated_cpu_millicores = n.allocated_cpu_millicores + v.cpu, "
            "allocated_memory_bytes = n.allocated_memory_bytes + v.memory, "
            "allocated_storage_bytes = n.allocated_storage_bytes + v.storage, running = n.running + v.members "
            "FROM (SELECT v.* FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::int[]) "
            "AS v(id, cpu, memory, storage, members) JOIN fleet_node l ON l.id = v.id ORDER BY l.id "
            "FOR UPDATE OF l) AS v WHERE n.id = v.id",
            [list(column) for column in zip(*rows, strict=True)],
        )
        if cards:
            shares = sorted((node_id, index, milli) for (node_id, index), milli in cards.items())
            cursor.execute(
                "UPDATE fleet_gpu AS g SET allocated_milli = g.allocated_milli + v.milli "
                "FROM unnest(%s::bigint[], %s::int[], %s::int[]) AS v(node, index, milli) "
                "WHERE g.node_id = v.node AND g.index = v.index",
                [list(column) for column in zip(*shares, strict=True)],
            )


def release_grants(grants: Sequence[Grant], members: Iterable[Any], now: datetime) -> None:
    """End grants whose processes have stopped: node, cards and quota get their amounts back."""
    update_rows(Grant, ("released_at",), [(grant.pk, now) for grant in grants])
    settle([grant.pk for grant in grants])
    allocate(members, -1)
    ledger.release((grant.quota_node_id, flavor, amounts) for grant in grants for flavor, amounts in grant.charges)


def pend(rows: Sequence[tuple[int, str, str, list[Any]]]) -> None:
    """Store why jobs are still pending: (job, reason, detail, tried); only where still pending."""
    update_rows(
        Job,
        ("reason", "detail", "tried"),
        [(*row, JobState.PENDING) for row in rows],
        guard="state",
    )


# Jobs of one call of `pend_alike`.
ALIKE_SLICE = 5000


def pend_alike(job_ids: Sequence[int], now: datetime) -> list[tuple[int, str, str, list[Any]]]:
    """Give jobs that wait for another reason the reason of the last of these that is like them: same tenant, pool and
    request. At most ALIKE_SLICE in the caller's transaction; returns them as `pend` takes them."""
    with connection.cursor() as cursor:
        cursor.execute(
            "WITH known AS ("
            " SELECT DISTINCT ON (tenant_id, pool, equivalence) tenant_id, pool, equivalence, reason, detail, tried"
            " FROM jobs_job WHERE id = ANY(%s) AND state = 'pending'"
            " ORDER BY tenant_id, pool, equivalence, priority, id DESC"
            "), alike AS ("
            " SELECT j.id, k.reason, k.detail, k.tried"
            " FROM jobs_job j JOIN known k USING (tenant_id, pool, equivalence)"
            " WHERE j.state = 'pending' AND NOT j.held AND (j.not_before IS NULL OR j.not_before <= %s)"
            " AND j.reason <> k.reason ORDER BY j.id LIMIT %s FOR NO KEY UPDATE OF j SKIP LOCKED"
            ") UPDATE jobs_job SET reason = a.reason, detail = a.detail, tried = a.tried FROM alike a"
            " WHERE jobs_job.id = a.id RETURNING jobs_job.id, a.reason, a.detail, a.tried",
            [list(job_ids), now, ALIKE_SLICE],
        )
        return [(pk, reason, detail, json.loads(tried)) for pk, reason, detail, tried in cursor.fetchall()]


def renew_leases(held: Iterable[tuple[int, int]], now: datetime) -> None:
    """Renew the leases of the grants of these (node, placement) pairs; agents' beats are the only caller.

    A placement of another node renews nothing. A grant that somebody has locked is just ending: it is passed by.
    """
    pairs = sorted(set(held))
    if pairs:
        columns = [list(column) for column in zip(*pairs, strict=True)]
        with connection.cursor() as cursor:
            cursor.execute(
                "UPDATE jobs_grant SET lease_expires_at = %s WHERE id IN ("
                "SELECT g.id FROM unnest(%s::bigint[], %s::bigint[]) AS v(node, placement) "
                "JOIN jobs_placement p ON p.id = v.placement AND p.node_id = v.node "
                "JOIN jobs_attempt a ON a.id = p.attempt_id JOIN jobs_grant g ON g.id = a.grant_id "
                "WHERE g.released_at IS NULL ORDER BY g.id FOR NO KEY UPDATE OF g SKIP LOCKED)",
                [now + timedelta(seconds=settings.LEASE_SECONDS), *columns],
            )


@transaction.atomic
def stop_placements(attempt_ids: Iterable[int], reason: str) -> None:
    """Ask for the processes of live attempts to be stopped; their end comes as a report."""
    live = Attempt.objects.filter(pk__in=list(attempt_ids), state__in=sorted(ATTEMPT_LIVE), stop_reason="")
    # Locked in the order in which reports lock them.
    locked = live.order_by("job_id").select_for_update(no_key=True).values("pk")
    Attempt.objects.filter(pk__in=locked).update(stop_reason=reason)


def node_topics(attempt_ids: Iterable[int]) -> dict[int, tuple[str, ...]]:
    """For each attempt the live topics of the nodes that it is on."""
    found: dict[int, list[str]] = {}
    for attempt_id, node_id in Placement.objects.filter(attempt__in=list(attempt_ids)).values_list(
        "attempt_id", "node_id"
    ):
        found.setdefault(attempt_id, []).append(f"node:{node_id}")
    return {attempt_id: tuple(sorted(set(topics))) for attempt_id, topics in found.items()}


# By leaf, flavor and resource: what is kept as used, and what live grants are charged.
_USED_AND_CHARGED = (
    "SELECT node, flavor, resource, coalesce(u.used, 0) AS used, coalesce(charged, 0) AS charged FROM ("
    "SELECT node_id AS node, flavor, resource, used FROM quotas_quotausage) u FULL JOIN ("
    "SELECT quota_node_id AS node, part.flavor, key AS resource, sum(value::bigint) AS charged FROM jobs_grant, "
    "LATERAL (SELECT jobs_grant.flavor, jobs_grant.amounts WHERE shares IS NULL UNION ALL "
    "SELECT share->>'flavor', share->'amounts' FROM jsonb_array_elements(shares) AS share) AS part, "
    "jsonb_each_text(part.amounts) WHERE released_at IS NULL GROUP BY 1, 2, 3) g USING (node, flavor, resource)"
)
# What the members of live grants hold of nodes and of their cards.
_MEMBERS = (
    "jobs_placement p JOIN jobs_attempt a ON a.id = p.attempt_id "
    "JOIN jobs_grant g ON g.id = a.grant_id AND g.released_at IS NULL"
)
_HELD = (
    "SELECT p.node_id, sum(p.cpu_millicores) AS cpu, sum(p.memory_bytes) AS memory, sum(p.storage_bytes) AS storage, "
    f"count(*) AS members FROM {_MEMBERS} GROUP BY 1"
)
_CARDS_HELD = (
    "SELECT p.node_id, (share->>0)::int AS index, sum((share->>1)::int) AS milli "
    f"FROM {_MEMBERS}, jsonb_array_elements(p.gpus) AS share GROUP BY 1, 2"
)


def drift() -> list[str]:
    """Where the sums kept on nodes, cards and quota leaves differ from the unreleased grants; empty when exact."""
    problems = []
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT n.name, 'allocated', ARRAY[n.allocated_cpu_millicores, n.allocated_memory_bytes, "
            "n.allocated_storage_bytes, n.running], ARRAY[coalesce(h.cpu, 0), coalesce(h.memory, 0), "
            "coalesce(h.storage, 0), coalesce(h.members, 0)] "
            f"FROM fleet_node n LEFT JOIN ({_HELD}) h ON h.node_id = n.id "
            "UNION ALL SELECT n.name, 'card ' || c.index, ARRAY[c.allocated_milli], ARRAY[coalesce(h.milli, 0)] "
            f"FROM fleet_gpu c JOIN fleet_node n ON n.id = c.node_id LEFT JOIN ({_CARDS_HELD}) h "
            "ON (h.node_id, h.index) = (c.node_id, c.index)"
        )
        problems += [
            f"node {name}: {what} {kept}, granted {[int(amount) for amount in granted]}"
            for name, what, kept, granted in cursor.fetchall()
            if kept != granted
        ]
        cursor.execute(
            f"SELECT node, flavor, resource, used, charged FROM ({_USED_AND_CHARGED}) u WHERE used <> charged"
        )
        problems += [
            f"quota {node} {flavor}/{resource}: used {used}, granted {charged}"
            for node, flavor, resource, used, charged in cursor.fetchall()
        ]
    return problems


def repair() -> list[str]:
    """Set the kept sums to those of the live grants, where they differ; returns what differed.

    Nothing in the product makes them differ; this is for a database that was restored or edited by hand. A sum is
    written with its grants in one transaction, so that one look without locks finds every difference; only to set it
    right the tree and all nodes are locked. The difference is recorded as an event.
    """
    return _set_right() if drift() else []


@transaction.atomic
def _set_right() -> list[str]:
    ledger.lock_trees()
    with connection.cursor() as cursor:
        cursor.execute("SELECT id FROM fleet_node ORDER BY id FOR UPDATE")
        problems = drift()
        if not problems:
            return []
        cursor.execute(
            "UPDATE fleet_node n SET allocated_cpu_millicores = coalesce(h.cpu, 0), "
            "allocated_memory_bytes = coalesce(h.memory, 0), allocated_storage_bytes = coalesce(h.storage, 0), "
            f"running = coalesce(h.members, 0) FROM fleet_node m LEFT JOIN ({_HELD}) h ON h.node_id = m.id "
            "WHERE n.id = m.id"
        )
        cursor.execute(
            "UPDATE fleet_gpu c SET allocated_milli = coalesce(h.milli, 0) "
            f"FROM fleet_gpu d LEFT JOIN ({_CARDS_HELD}) h ON (h.node_id, h.index) = (d.node_id, d.index) "
            "WHERE c.id = d.id"
        )
        cursor.execute(
            "INSERT INTO quotas_quotausage (node_id, flavor, resource, used) "
            f"SELECT node, flavor, resource, charged FROM ({_USED_AND_CHARGED}) u WHERE used <> charged "
            "ON CONFLICT (node_id, flavor, resource) DO UPDATE SET used = excluded.used"
        )
    record_all(SYSTEM, [Fact("ledger.repaired", "ledger", 0, facts={"differences": problems[:100]}, topics=("quota",))])
    return problems
