"""Evictions end, take no more than is needed, and shares go where the weights say."""

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.admission import admit
from engine.cycle import decide
from engine.evictions import Places
from engine.placement import Fleet, Request
from engine.preemption import Cause, Demand, find_victims, yielding
from engine.queues import (
    Flavor,
    Holder,
    Part,
    Policy,
    QueueRules,
    ResourceGroup,
    Strategy,
    Workload,
    World,
)
from engine.quota import Limit, Node, QuotaTree
from engine.reasons import Reason
from engine.snapshot import Allowance, Snapshot, Verdict

from .preemption_loops import Circle, main, random_world, run_tree
from .worlds import CPU, GIB, candidate, one_pool, row

EVICTS = QueueRules(
    groups=(ResourceGroup(frozenset({"cpu"}), ("default",)),),
    within_queue=Policy.LOWER_PRIORITY,
    reclaim=Policy.ANY,
)


@settings(max_examples=300)
@given(st.integers(0, 2**32), st.booleans())
def test_every_tree_comes_to_an_end(seed: int, across: bool) -> None:
    run_tree(Random(seed), across=across)


def test_without_the_rule_some_trees_go_round_for_ever() -> None:
    """What the test above looks for exists: here two workloads evict each other."""
    with pytest.raises(Circle, match="no end"):
        run_tree(Random(450), remember=False)
    assert run_tree(Random(450)).evictions < 20


def test_the_long_command_counts_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--trees", "5", "--seed", "448"]) == 0
    assert main(["--trees", "5", "--seed", "448", "--forget"]) == 1
    assert "2 failed" in capsys.readouterr().out


@settings(max_examples=200)
@given(st.integers(0, 2**32))
def test_victims_suffice_and_each_is_needed(seed: int) -> None:
    """And the search leaves the world as it was."""
    chance = Random(seed)
    world, workloads = random_world(chance)
    for uid, item in enumerate(workloads):
        usage = {("a", "cpu"): chance.randint(1, 4)}
        if world.tree.fits(item.queue, usage) is None:
            world.add(Holder(100 + uid, item.queue, chance.randint(0, 2), float(uid), float(uid), usage))
    item, amount = chance.choice(workloads), chance.randint(1, 6)
    demand = Demand(99, item.queue, 2, 0.0, {("a", "cpu"): amount}, frozenset({("a", "cpu")}))
    before = {node: world.tree.usage(node, ("a", "cpu")) for node in world.tree.nodes}
    victims = find_victims(world, demand)
    assert before == {node: world.tree.usage(node, ("a", "cpu")) for node in world.tree.nodes}

    def fits_without(gone: list[Holder]) -> bool:
        for holder in gone:
            world.remove(holder)
        fitting = amount <= world.tree.available(item.queue, ("a", "cpu"))
        for holder in gone:
            world.add(holder)
        return fitting

    holders = [victim.holder for victim in victims]
    if holders:
        assert fits_without(holders)
        if fits_without([]):
            assert len(holders) == 1
        own = [victim for victim in victims if victim.holder.queue == item.queue]
        assert all(victim.cause == Cause.IN_QUEUE for victim in own)
        assert all(
            victim.holder.priority < 2 or world.rules_of(item.queue).within_queue != Policy.LOWER_PRIORITY
            for victim in own
        )


def test_yielding_reaches_through_others() -> None:
    found = yielding([("c", "b"), ("b", "a"), ("d", "b")])
    assert found == {"c": {"a", "b"}, "b": {"a"}, "d": {"a", "b"}}


def two_queues(weights: tuple[float, float], nominal: int = 0) -> tuple[QuotaTree, list[Node]]:
    nodes = [Node(0, None, "all", {CPU: Limit(120)})]
    nodes += [Node(1 + index, 0, f"q{index}", {CPU: Limit(nominal)}, weight) for index, weight in enumerate(weights)]
    return QuotaTree(nodes, {}), nodes


@given(st.floats(0.25, 4), st.floats(0.25, 4))
def test_shares_converge_to_the_weights(first: float, second: float) -> None:
    """Two queues with plenty of equal work end at amounts in proportion to their weights, to within one job."""
    tree, _ = two_queues((first, second))
    fleet = Fleet.build([row(0, cpu_capacity=500_000)])
    items = [candidate(job, 1 + job % 2, Request(cpu=1), amounts={"cpu": 1}) for job in range(240)]
    granted = [verdict.job for verdict in decide(Snapshot(fleet, one_pool(fleet), tree, items), now=1e3)][:120]
    assert len(granted) == 120
    assert sum(1 for job in granted if job % 2 == 0) == pytest.approx(120 * first / (first + second), abs=1)


@settings(max_examples=20)
@given(st.sampled_from([0.5, 1.0, 2.0, 3.0]), st.sampled_from([0.5, 1.0, 2.0, 3.0]))
def test_evictions_converge_to_the_weights(first: float, second: float) -> None:
    """One queue has it all; the other takes by eviction what is its share, and then there is peace."""
    tree, _ = two_queues((first, second))
    world = World(tree, {1: EVICTS, 2: EVICTS}, {"default": Flavor("default")})
    for uid in range(120):
        world.add(Holder(uid, 1, 0, float(uid), float(uid), {CPU: 1}))
    pending = [Workload(1000 + uid, 2, 0, float(uid), (Part("main", 1, {"cpu": 1}),)) for uid in range(120)]
    for item in pending:
        [outcome] = admit(world, [item])
        if outcome.state != "preempting":
            break
        for victim in outcome.victims:
            world.remove(victim.holder)
        world.add(Holder(item.uid, 2, 0, item.submitted, 1e6, outcome.assignment.usage))
    assert tree.usage(2, CPU) == pytest.approx(120 * second / (first + second), abs=1)
    back = Workload(9999, 1, 0, 0.0, (Part("main", 1, {"cpu": 1}),))
    assert admit(world, [back])[0].state == "waiting"


def test_past_use_counts_in_the_share() -> None:
    _, nodes = two_queues((1.0, 1.0))
    plain = QuotaTree(nodes, {1: {CPU: 10}, 2: {CPU: 10}})
    assert plain.share(1).key() == plain.share(2).key()
    past = QuotaTree(nodes, {1: {CPU: 10}, 2: {CPU: 10}}, past={1: {CPU: 40}}, past_weight=0.5)
    # 1000 * (0.5 * 10 + 0.5 * 40) / 120 against 1000 * (0.5 * 10) / 120
    assert past.share(1).weighted == pytest.approx(1000 * 25 / 120)
    assert past.share(2).weighted == pytest.approx(1000 * 5 / 120)


def holder(uid: int, queue: int, amount: int, **more: float | bool) -> Holder:
    priority, lost, protected = int(more.get("priority", 0)), float(more.get("lost", 0.0)), bool(more.get("protected"))
    return Holder(uid, queue, priority, float(uid), float(uid), {CPU: amount}, lost=lost, protected=protected)


def demand_of(queue: int, amount: int) -> Demand:
    return Demand(99, queue, 0, 0.0, {CPU: amount}, frozenset({CPU}))


def victims_of(holders: list[Holder], **more: object) -> list[int]:
    nodes = [Node(0, None, "all", {}), Node(1, 0, "mine", {CPU: Limit(60)}), Node(2, 0, "theirs", {CPU: Limit(60)})]
    tree = QuotaTree(nodes, {})
    world = World(tree, {1: EVICTS}, **more)  # type: ignore[arg-type]
    for item in holders:
        world.add(item)
    return [int(str(victim.holder.uid)) for victim in find_victims(world, demand_of(1, 10))]


def test_less_lost_work_goes_first_and_the_newest_among_equals() -> None:
    assert victims_of([holder(uid, 2, 40) for uid in (1, 2, 3)]) == [3]
    assert victims_of([holder(1, 2, 40, lost=5), holder(2, 2, 40, lost=60), holder(3, 2, 40, lost=60)]) == [1]
    assert victims_of([holder(1, 2, 40, priority=1), holder(2, 2, 40, lost=9), holder(3, 2, 40, lost=8)]) == [3]


def test_who_is_protected_or_yielded_to_stays() -> None:
    holders = [holder(1, 2, 60), holder(2, 2, 60, protected=True)]
    assert victims_of(holders) == [1]
    assert victims_of([*holders[1:], replace(holders[0], protected=True)]) == []
    assert victims_of(holders, yields={99: frozenset({1})}) == []
    assert victims_of([holders[0], replace(holders[1], evicting=True)]) == [2]


# In the product's cycle


def snapshot(fleet: Fleet, rules: QueueRules, *items: object, **more: object) -> Snapshot:
    """Queues 1 and 2 with half of 8 cpu each; job 7 of queue 2 holds all on node 0."""
    cpu = {CPU: Limit(4000)}
    nodes = [Node(0, None, "all", {}), Node(1, 0, "q1", cpu), Node(2, 0, "q2", cpu)]
    usage = {CPU: 8000}
    held = Holder(7, 2, 0, 0.0, 0.0, usage)
    places: dict[object, Places] = {7: [(Request(cpu=8000), 0, ())]}
    return Snapshot(
        fleet,
        one_pool(fleet),
        QuotaTree(nodes, {2: usage}),
        list(items),  # type: ignore[arg-type]
        rules={1: rules},
        holders=[held],
        places=places,  # type: ignore[arg-type]
        **more,  # type: ignore[arg-type]
    )


def by_job(verdicts: list[Verdict]) -> dict[int, Verdict]:
    return {verdict.job: verdict for verdict in verdicts}


def test_the_cycle_names_victims_and_keeps_the_room() -> None:
    fleet = Fleet.build([row(0, cpu_free=0)])
    ask = Request(cpu=4000)
    wanting = [candidate(1, 1, ask, amounts={"cpu": 4000}), candidate(2, 1, ask, amounts={"cpu": 4000})]
    verdicts = by_job(decide(snapshot(fleet, EVICTS, *wanting), now=10.0))
    assert verdicts[1].outcome == "preempt" and verdicts[1].reason == Reason.WAITING_FOR_PREEMPTION
    assert verdicts[1].victims == ((7, Cause.RECLAIM),)
    assert verdicts[1].detail == "the room is kept for it; it waits for 1 job to stop."
    # The second would fit the rest of what the victim leaves, as the cohort has room then.
    assert verdicts[2].outcome == "preempt" and verdicts[2].victims == ()


def test_who_waits_for_victims_has_taken_the_start_that_the_budget_allows() -> None:
    fleet = Fleet.build([row(0, cpu_free=0)])
    ask = Request(cpu=4000)
    wanting = [candidate(job, 1, ask, amounts={"cpu": 4000}, budgets=(3,)) for job in (1, 2)]
    allowances = {3: Allowance(1, "one at once.")}
    verdicts = by_job(decide(snapshot(fleet, EVICTS, *wanting, allowances=allowances), now=10.0))
    assert verdicts[1].outcome == "preempt"
    assert (verdicts[2].reason, verdicts[2].detail) == (Reason.BUDGET_EXHAUSTED, "one at once.")


def test_by_default_nobody_is_evicted() -> None:
    fleet = Fleet.build([row(0, cpu_free=0)])
    item = candidate(1, 1, Request(cpu=4000), amounts={"cpu": 4000})
    verdicts = by_job(decide(snapshot(fleet, QueueRules(), item), now=10.0))
    assert verdicts[1].outcome == "pend" and verdicts[1].reason == Reason.WAITING_FOR_QUOTA


def test_a_victim_on_the_wrong_node_helps_nobody() -> None:
    """Quota alone would be won, but the node that the job needs stays full."""
    fleet = Fleet.build([row(0, cpu_free=0), row(1, cpu_free=0, labels={"zone": "b"})])
    ask = Request(cpu=4000, labels={"zone": ("b",)})
    verdicts = by_job(decide(snapshot(fleet, EVICTS, candidate(1, 1, ask, amounts={"cpu": 4000})), now=10.0))
    assert verdicts[1].outcome == "pend"


def test_room_of_stopping_victims_goes_first_to_whom_they_stop_for() -> None:
    fleet = Fleet.build([row(0)])
    ask = Request(cpu=8000, memory=GIB)
    items = [
        candidate(1, 1, ask, amounts={"cpu": 4000}),
        candidate(2, 2, ask, amounts={"cpu": 1000}, priority=9),
    ]
    empty = replace(snapshot(fleet, EVICTS, *items, claims=frozenset({1})), holders=(), places={})
    tree = QuotaTree(empty.tree.nodes.values(), {})
    verdicts = by_job(decide(replace(empty, tree=tree), now=10.0))
    assert verdicts[1].outcome == "grant" and verdicts[2].outcome == "pend"


def test_a_strict_queue_waits_for_its_head() -> None:
    fleet = Fleet.build([row(0, cpu_free=2000)])
    items = [
        candidate(1, 1, Request(cpu=4000), amounts={"cpu": 4000}),
        candidate(2, 1, Request(cpu=1000), amounts={"cpu": 1000}),
    ]
    world = replace(snapshot(fleet, replace(EVICTS, strategy=Strategy.STRICT_FIFO), *items), holders=(), places={})
    verdicts = by_job(decide(world, now=10.0))
    assert verdicts[1].reason == Reason.WAITING_FOR_QUOTA
    assert verdicts[2].reason == Reason.BEHIND_IN_QUEUE and "job 1 is ahead" in verdicts[2].detail


def test_room_for_one_member_is_made_on_one_node() -> None:
    """Four nodes are full of small jobs; who needs half a node takes it from one node, and as little as that needs."""
    fleet = Fleet.build([row(number, cpu_free=0) for number in range(4)])
    ids = [(10 * node + slot, node) for slot in range(8) for node in range(4)]
    held = [Holder(uid, 2, 0, 0.0, float(uid % 10), {CPU: 1000}) for uid, _ in ids]
    places: dict[object, Places] = {uid: [(Request(cpu=1000), node, ())] for uid, node in ids}
    cpu = {CPU: Limit(16000)}
    nodes = [Node(0, None, "all", {}), Node(1, 0, "q1", cpu), Node(2, 0, "q2", cpu)]
    item = candidate(1, 1, Request(cpu=4000), amounts={"cpu": 4000})
    world = Snapshot(
        fleet,
        one_pool(fleet),
        QuotaTree(nodes, {2: {CPU: 32000}}),
        [item],
        rules={1: EVICTS},
        holders=held,
        places=places,  # type: ignore[arg-type]
    )
    [verdict] = decide(world, now=10.0)
    assert verdict.outcome == "preempt"
    victims = [job for job, _ in verdict.victims]
    assert len(victims) == 4 and len({places[job][0][1] for job in victims}) == 1
    # The most recently granted of that node.
    assert sorted(job % 10 for job in victims) == [4, 5, 6, 7]
    assert {member[2] for member in verdict.members} == {places[victims[0]][0][1]}


@pytest.mark.parametrize(("reclaim", "lent"), [(Policy.NEVER, False), (Policy.ANY, True)])
def test_a_strict_queue_keeps_its_free_quota_for_its_head(reclaim: Policy, lent: bool) -> None:
    """Unless it may take it back at any time: then it is lent meanwhile."""
    fleet = Fleet.build([row(0, cpu_free=8000)])
    nodes = [
        Node(0, None, "all", {}),
        Node(1, 0, "q1", {CPU: Limit(4000)}),
        Node(2, 0, "q2", {CPU: Limit(0)}),
    ]
    items = [
        candidate(1, 1, Request(cpu=3000), amounts={"cpu": 3000}, priority=5),
        candidate(2, 2, Request(cpu=2000), amounts={"cpu": 2000}),
    ]
    # One that nobody may evict has 2000 of the queue's 4000.
    rules = {1: QueueRules(strategy=Strategy.STRICT_FIFO, reclaim=reclaim)}
    world = Snapshot(fleet, one_pool(fleet), QuotaTree(nodes, {1: {CPU: 2000}}), items, rules=rules)
    verdicts = by_job(decide(world, now=10.0))
    assert verdicts[1].reason == Reason.WAITING_FOR_QUOTA
    assert (verdicts[2].outcome == "grant") is lent
