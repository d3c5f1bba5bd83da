"""What a cycle grants always fits, nobody feasible is left waiting, and every job gets a reason."""

import random
from dataclasses import replace
from itertools import product

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.cycle import decide
from engine.placement import Fleet, NodeFree, Placed, Request, fits_node, place_gang
from engine.quota import Limit, Node, QuotaTree
from engine.reasons import Reason
from engine.snapshot import PoolView, Snapshot, Verdict, charge_of

from .worlds import CPU, GIB, candidate, one_pool, row, snapshots, wide_tree

ONE = Request(cpu=1000, memory=GIB)


def replay(snapshot: Snapshot, verdicts: list[Verdict]) -> tuple[list[NodeFree], QuotaTree, Fleet]:
    """Apply the grants in order to fresh ledgers with the checks that are used under row locks."""
    fleet, tree = snapshot.fleet, snapshot.tree.copy()
    jobs = {item.job: item for item in snapshot.candidates}
    left = fleet.fork()
    free = [
        NodeFree(
            int(fleet.cpu[node]),
            int(fleet.memory[node]),
            int(fleet.storage[node]),
            {card: int(amount) for card, amount in enumerate(fleet.gpu_free[node]) if amount >= 0},
        )
        for node in range(len(fleet))
    ]
    for verdict in verdicts:
        if verdict.outcome != "grant":
            continue
        item = jobs[verdict.job]
        assert verdict.flavor is not None
        charge = charge_of(item, verdict.flavor, verdict.flavors)
        assert sum(charge.values()) == sum(item.amounts.values())
        assert tree.fits(item.queue, charge) is None
        tree.add(item.queue, charge)
        masks = dict(snapshot.pools[item.pool].flavors)
        names = verdict.flavors or (verdict.flavor,) * len(item.groups)
        counts = [0] * len(item.groups)
        for group, _, node, cards in verdict.members:
            request = item.groups[group][0]
            assert masks[names[group]][node] and fits_node(free[node], request, cards) is None
            left.take(request, node, cards)
            counts[group] += 1
            gpu = {card: free[node].gpu[card] - request.gpu_milli * (card in cards) for card in free[node].gpu}
            free[node] = NodeFree(
                free[node].cpu - request.cpu,
                free[node].memory - request.memory,
                free[node].storage - request.storage,
                gpu,
            )
        assert counts == [count for _, count in item.groups]
    return free, tree, left


@settings(max_examples=100)
@given(snapshots(), st.integers(0, 5))
def test_grants_replayed_on_fresh_ledgers_always_fit(snapshot: Snapshot, limit: int) -> None:
    fleet = snapshot.fleet
    before = (fleet.cpu.tolist(), fleet.memory.tolist(), fleet.gpu_free.tolist(), fleet.tasks.tolist())
    verdicts = decide(snapshot, now=10.0, limit=limit)
    assert before == (
        fleet.cpu.tolist(),
        fleet.memory.tolist(),
        fleet.gpu_free.tolist(),
        fleet.tasks.tolist(),
    )
    replay(snapshot, verdicts)
    assert sum(verdict.outcome == "grant" for verdict in verdicts) <= limit
    assert sorted(verdict.job for verdict in verdicts) == sorted(item.job for item in snapshot.candidates)
    for verdict in verdicts:
        if verdict.outcome == "grant":
            assert verdict.reason is None and verdict.position == 0 and verdict.members
            assert verdict.funnel is not None and verdict.funnel.remaining > 0
        else:
            assert verdict.reason in set(Reason) and verdict.detail.endswith(".") and verdict.position > 0
            assert not verdict.members


@settings(max_examples=100)
@given(snapshots())
def test_no_job_is_left_waiting_that_would_still_fit(snapshot: Snapshot) -> None:
    """Feasibility before windowing: after the cycle no pending job fits what is left, in any flavor."""
    verdicts = decide(snapshot, now=10.0)
    _, tree, left = replay(snapshot, verdicts)
    jobs = {item.job: item for item in snapshot.candidates}
    for verdict in verdicts:
        item = jobs[verdict.job]
        if verdict.outcome == "grant":
            continue
        expected = {
            Reason.BACKOFF: item.not_before > 10.0,
            Reason.TENANT_SUSPENDED: item.queue in snapshot.suspended,
            Reason.NO_POOL: item.pool == "q",
        }.get(verdict.reason or Reason.SUBMITTED)
        if expected is not None:
            assert expected
            continue
        if item.queue == 99:
            assert verdict.reason == Reason.NO_FLAVOR
            continue
        assert item.not_before <= 10.0 and item.queue not in snapshot.suspended and item.pool == "p"
        fits_quota, fits_nodes, ever = [], [], []
        masks = dict(snapshot.pools["p"].flavors)
        for flavors in product(masks, repeat=len(item.groups)):
            charge = charge_of(item, "", flavors)
            fits_quota.append(tree.fits(item.queue, charge) is None)
            nodes = tuple(masks[flavor] for flavor in flavors)
            fits_nodes.append(isinstance(place_gang(left, item.groups, allowed=nodes), Placed))
            ever.append(tree.ever_fits(item.queue, charge) is None)
        assert not any(a and b for a, b in zip(fits_quota, fits_nodes, strict=True))
        if verdict.reason == Reason.WAITING_FOR_CAPACITY:
            assert any(ever) and not all(fits_nodes)
        elif verdict.reason == Reason.WAITING_FOR_QUOTA:
            assert any(a and not b for a, b in zip(ever, fits_quota, strict=True))
        elif verdict.reason == Reason.EXCEEDS_MAX_QUOTA:
            assert not all(ever)
        assert verdict.reason != Reason.BEHIND_IN_QUEUE
        assert 1 <= len(verdict.tried) <= 2 ** len(item.groups)


@given(snapshots(), st.integers(0, 3), st.integers(0, 99))
def test_the_same_world_in_any_order_gives_the_same_verdicts(snapshot: Snapshot, limit: int, seed: int) -> None:
    shuffled = list(snapshot.candidates)
    random.Random(seed).shuffle(shuffled)
    first = decide(snapshot, now=10.0, limit=limit)
    second = decide(replace(snapshot, candidates=shuffled), now=10.0, limit=limit)

    def grants(verdicts: list[Verdict]) -> list[Verdict]:
        return [verdict for verdict in verdicts if verdict.outcome == "grant"]

    assert grants(first) == grants(second)
    assert sorted(first, key=lambda v: v.job) == sorted(second, key=lambda v: v.job)


@given(snapshots())
def test_equivalence_saves_work_and_changes_nothing(snapshot: Snapshot) -> None:
    plain = [replace(item, equivalence=None) for item in snapshot.candidates]
    with_memory = decide(snapshot, now=10.0)
    without = decide(replace(snapshot, candidates=plain), now=10.0)
    told = [(v.job, v.outcome, v.reason, v.flavor, v.members, v.position) for v in with_memory]
    assert told == [(v.job, v.outcome, v.reason, v.flavor, v.members, v.position) for v in without]


def world(fleet: Fleet, tree: QuotaTree, *items: object, **values: object) -> Snapshot:
    return Snapshot(fleet, one_pool(fleet), tree, list(items), **values)  # type: ignore[arg-type]


def granted(verdicts: list[Verdict]) -> list[int]:
    return [verdict.job for verdict in verdicts if verdict.outcome == "grant"]


def test_inside_a_queue_priority_goes_before_age_before_id() -> None:
    fleet = Fleet.build([row(0)])
    items = [
        candidate(1, 1, ONE, submitted=3.0),
        candidate(2, 1, ONE, submitted=1.0),
        candidate(3, 1, ONE, submitted=9.0, priority=5),
        candidate(4, 1, ONE, submitted=1.0),
    ]
    assert granted(decide(world(fleet, wide_tree(1), *items), now=10.0)) == [3, 2, 4, 1]


def test_queues_take_turns_by_their_dominant_share() -> None:
    fleet = Fleet.build([row(0)])
    limits = {1: 4000, 2: 8000}
    nodes = [Node(queue, None, f"q{queue}", {CPU: Limit(nominal)}) for queue, nominal in limits.items()]
    items = [candidate(job, 1 + job % 2, Request(cpu=1000), amounts={"cpu": 1000}) for job in range(8)]
    verdicts = decide(world(fleet, QuotaTree(nodes, {2: {CPU: 2000}}), *items), now=10.0)
    # With the next job: 2/8 and 3/8 → q1; 4/8 and 3/8 → q2; both 4/8, the older job → q1; 6/8 and 4/8 → q2 …
    assert [1 + job % 2 for job in granted(verdicts)] == [1, 2, 1, 2, 2, 1, 2, 1]


def test_a_queue_that_borrows_goes_after_one_that_does_not() -> None:
    nodes = [
        Node(0, None, "all", {}),
        Node(1, 0, "small", {CPU: Limit(1000)}),
        Node(2, 0, "large", {CPU: Limit(100000)}),
    ]
    tree = QuotaTree(nodes, {1: {CPU: 2000}, 2: {CPU: 90000}})
    items = [candidate(job, 1 + job % 2, Request(cpu=4000), amounts={"cpu": 4000}) for job in range(4)]
    verdicts = decide(world(Fleet.build([row(0)]), tree, *items), now=10.0)
    assert granted(verdicts) == [1, 3]


def test_a_job_that_cannot_start_does_not_block_the_queue() -> None:
    fleet = Fleet.build([row(0, gpu_free=[1000])])
    blocked = [candidate(job, 1, Request(gpu_count=1, gpu_milli=1000), priority=9) for job in range(50)]
    verdicts = decide(world(fleet, wide_tree(1), *blocked, candidate(99, 1, ONE)), now=10.0)
    assert granted(verdicts) == [0, 99]
    waiting = [verdict for verdict in verdicts if verdict.outcome == "pend"]
    assert {verdict.reason for verdict in waiting} == {Reason.WAITING_FOR_CAPACITY}
    assert [verdict.position for verdict in waiting] == list(range(1, 50))
    assert "needs 1 GPU on one node; the only matching node has 0 free." in waiting[0].detail


def test_a_full_pool_of_heads_does_not_hide_a_feasible_job() -> None:
    """Thousands of different infeasible jobs ahead must not keep the last one from starting."""
    fleet = Fleet.build([row(0, cpu_free=1000)])
    heads = [candidate(job, 1, Request(cpu=2000 + job), priority=1) for job in range(2000)]
    verdicts = decide(world(fleet, wide_tree(1), *heads, candidate(5000, 1, Request(cpu=500))), now=10.0, limit=10)
    assert granted(verdicts) == [5000]


def test_flavors_are_tried_in_order_and_all_are_recorded() -> None:
    rows = [
        row(0, flavor=frozenset({"x"}), cpu_free=0),
        row(1, flavor=frozenset({"y"})),
        row(2, flavor=frozenset({"z"})),
    ]
    fleet = Fleet.build(rows)
    tree = QuotaTree(
        [
            Node(
                1,
                None,
                "q1",
                {(flavor, "cpu"): Limit(quota) for flavor, quota in (("x", 9000), ("y", 500), ("z", 9000))},
            )
        ],
        {},
    )
    item = candidate(7, 1, Request(cpu=1000), amounts={"cpu": 1000})
    [verdict] = decide(Snapshot(fleet, one_pool(fleet, "w", "x", "y", "z"), tree, [item]), now=10.0)
    assert (verdict.outcome, verdict.flavor, verdict.members) == ("grant", "z", ((0, 0, 2, ()),))
    assert [(entry["flavor"], entry["outcome"]) for entry in verdict.tried] == [
        ("w", "no_flavor"), ("x", "waiting_for_capacity"), ("y", "exceeds_max_quota"), ("z", "granted"),
    ]  # fmt: skip
    assert verdict.scores["node"] == "n2"


def test_the_mildest_reason_over_the_flavors_is_reported() -> None:
    fleet = Fleet.build([row(0, flavor=frozenset({"x"})), row(1, flavor=frozenset({"y"}))])
    limits = {("x", "cpu"): Limit(500), ("y", "cpu"): Limit(4000)}
    tree = QuotaTree([Node(1, None, "q1", limits)], {1: {("y", "cpu"): 3500}})
    item = candidate(7, 1, Request(cpu=1000), amounts={"cpu": 1000})
    [verdict] = decide(Snapshot(fleet, one_pool(fleet, "x", "y"), tree, [item]), now=10.0)
    assert verdict.reason == Reason.WAITING_FOR_QUOTA
    assert verdict.detail == (
        "1 cpu of flavor y requested, 0.5 cpu available (at most 4 cpu): bounded by the nominal quota of q1."
    )


def test_what_can_never_run_is_said_even_while_quota_is_short() -> None:
    fleet = Fleet.build([row(0)])
    tree = QuotaTree([Node(1, None, "q1", {CPU: Limit(10000)})], {1: {CPU: 5000}})
    item = candidate(7, 1, Request(cpu=9000), amounts={"cpu": 9000})
    [verdict] = decide(world(fleet, tree, item), now=10.0)
    assert verdict.reason == Reason.EXCEEDS_EVERY_NODE


def test_past_the_limit_a_feasible_job_is_behind_and_others_keep_their_reason() -> None:
    fleet = Fleet.build([row(0)])
    items = [*(candidate(job, 1, ONE) for job in range(4)), candidate(9, 1, Request(cpu=99000))]
    verdicts = {verdict.job: verdict for verdict in decide(world(fleet, wide_tree(1), *items), now=10.0, limit=2)}
    assert [verdicts[job].outcome for job in range(4)] == ["grant", "grant", "pend", "pend"]
    assert verdicts[3].reason == Reason.BEHIND_IN_QUEUE and verdicts[3].position == 2
    assert verdicts[3].detail == "it fits, but 2 jobs were granted before it in this cycle."
    assert verdicts[9].reason == Reason.EXCEEDS_EVERY_NODE


def test_reasons_that_need_no_look_at_nodes() -> None:
    fleet = Fleet.build([row(0)])
    items = [
        candidate(1, 1, ONE, not_before=12.5, attempts=2),
        candidate(2, 2, ONE),
        candidate(3, 1, ONE, pool="other"),
        candidate(4, 77, ONE),
        candidate(5, 1, ONE, pool="bare"),
    ]
    pools = {**one_pool(fleet), "bare": PoolView(np.ones(1, dtype=np.bool_), [])}
    snapshot = Snapshot(fleet, pools, wide_tree(2), items, suspended=frozenset({2}))
    found = {verdict.job: (verdict.reason, verdict.detail) for verdict in decide(snapshot, now=10.0)}
    assert found == {
        1: (Reason.BACKOFF, "tried 2 times; the next try is in 2.5 s."),
        2: (Reason.TENANT_SUSPENDED, "the tenant is suspended."),
        3: (Reason.NO_POOL, "the pool that the job names does not exist."),
        4: (Reason.NO_FLAVOR, "the tenant has no quota in any flavor."),
        5: (Reason.NO_FLAVOR, "the pool that the job names has no flavor."),
    }
    assert decide(replace(snapshot, candidates=[]), now=10.0) == []


def test_equal_jobs_share_what_is_there_and_no_more() -> None:
    fleet = Fleet.build([row(0, cpu_capacity=2500)])
    verdicts = decide(world(fleet, wide_tree(2), *(candidate(n, 1 + n % 2, ONE) for n in range(6))), now=10.0)
    assert granted(verdicts) == [0, 1]
    assert {verdict.reason for verdict in verdicts[2:]} == {Reason.WAITING_FOR_CAPACITY}


def test_what_one_queue_borrows_another_can_no_longer_use() -> None:
    limits = {CPU: Limit(2000)}
    nodes = [
        Node(0, None, "all", {}),
        Node(1, 0, "q1", limits),
        Node(2, 0, "q2", limits),
        Node(3, 0, "q3", {}),
    ]
    request = Request(cpu=1500)
    items = [candidate(job, 1 + job % 2, request, amounts={"cpu": 1500}) for job in range(4)]
    snapshot = world(Fleet.build([row(0), row(1)]), QuotaTree(nodes, {}), *items, candidate(9, 3, request))
    verdicts = {verdict.job: verdict for verdict in decide(snapshot, now=10.0)}
    assert [job for job, verdict in verdicts.items() if verdict.outcome == "grant"] == [0, 1]
    assert verdicts[2].reason == verdicts[3].reason == Reason.WAITING_FOR_QUOTA
    assert "what cohort all has left" in verdicts[2].detail
    assert (verdicts[9].reason, verdicts[9].detail) == (
        Reason.NO_FLAVOR,
        "the tenant has no quota in flavor default.",
    )


def test_a_flavor_reaches_no_node_outside_its_pool() -> None:
    fleet = Fleet.build([row(0), row(1)])
    inside, everywhere = np.array([False, True]), np.array([True, True])
    pools = {"p": PoolView(inside, [("default", everywhere)])}
    [verdict] = decide(Snapshot(fleet, pools, wide_tree(1), [candidate(1, 1, ONE)]), now=10.0)
    assert verdict.members == ((0, 0, 1, ()),)


def test_a_fleet_without_any_node_refuses_everything_in_words() -> None:
    fleet = Fleet.build([])
    jobs = [candidate(1, 1, ONE), candidate(2, 1, replace(ONE, gpu_count=1)), candidate(3, 1, [(ONE, 3)])]
    verdicts = decide(Snapshot(fleet, one_pool(fleet), wide_tree(1), jobs), now=10.0)
    assert {verdict.job: verdict.reason for verdict in verdicts} == dict.fromkeys((1, 2, 3), Reason.NO_NODE_MATCHES)
