"""Groups of one job in different flavors: which, what it is charged, who goes for it, and what is said."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engine.backfill import Plan, Running
from engine.choices import CHOICES_MAX, combinations
from engine.cycle import decide
from engine.placement import Fleet, Request
from engine.queues import Holder, Policy, QueueRules
from engine.quota import Limit, Node, QuotaTree
from engine.reasons import Reason
from engine.simulate import Job, Simulation
from engine.simulate import QueuePolicy as Served
from engine.snapshot import PoolView, Snapshot, Verdict, charge_of
from engine.suggestions import suggestions

from .worlds import GIB, candidate, row

DRIVER = Request(cpu=1000, memory=GIB)
WORKER = Request(cpu=2000, memory=GIB, gpu_count=1)
SPOT, CARDS = "cpu-spot", "h100"
PLENTY = {"cpu": 64000, "memory": 512 * GIB, "gpu": 16000}


def fleet(*, cards: int = 2, spot: int = 1) -> Fleet:
    """Nodes without cards for `cpu-spot`, and one with cards for `h100`."""
    rows = [row(number, flavor=frozenset({SPOT})) for number in range(spot)]
    return Fleet.build([*rows, row(9, gpu_free=[1000] * cards, flavor=frozenset({CARDS}))])


def world(
    *items: object, spot: dict[str, int] | None = None, cards: dict[str, int] | None = None, **values: object
) -> Snapshot:
    """One queue with quota of processors in `cpu-spot` and of all in `h100`."""
    nodes = values.pop("fleet", None) or fleet()
    assert isinstance(nodes, Fleet)
    amounts = {SPOT: spot or {"cpu": 64000, "memory": 512 * GIB}, CARDS: cards or PLENTY}
    limits = {(flavor, name): Limit(value) for flavor, mine in amounts.items() for name, value in mine.items()}
    tree = QuotaTree([Node(1, None, "vision", limits)], values.pop("usage", {}))  # type: ignore[arg-type]
    pool = PoolView(np.ones(len(nodes), dtype=np.bool_), [(name, nodes.flavor_mask(name)) for name in (SPOT, CARDS)])
    return Snapshot(nodes, {"p": pool}, tree, list(items), **values)  # type: ignore[arg-type]


def only(snapshot: Snapshot) -> Verdict:
    (verdict,) = decide(snapshot, now=10.0)
    return verdict


TRAINER = candidate(1, 1, [(DRIVER, 1), (WORKER, 2)])


def test_each_group_gets_the_first_flavor_that_serves_it() -> None:
    verdict = only(world(TRAINER))
    assert (verdict.outcome, verdict.flavor, verdict.flavors) == ("grant", f"{SPOT} + {CARDS}", (SPOT, CARDS))
    assert [(group, node) for group, _, node, _ in verdict.members] == [(0, 0), (1, 1), (1, 1)]
    assert charge_of(TRAINER, str(verdict.flavor), verdict.flavors) == {
        (SPOT, "cpu"): 1000, (SPOT, "memory"): GIB,
        (CARDS, "cpu"): 4000, (CARDS, "memory"): 2 * GIB, (CARDS, "gpu"): 2000,
    }  # fmt: skip
    assert [entry["outcome"] for entry in verdict.tried] == ["granted"]


def test_groups_that_can_have_the_same_flavor_share_it() -> None:
    verdict = only(world(candidate(1, 1, [(DRIVER, 1), (DRIVER, 2)])))
    assert (verdict.flavor, verdict.flavors) == (SPOT, ())


def test_a_group_without_room_in_its_first_flavor_gets_the_next_one() -> None:
    busy = fleet()
    busy.take(Request(cpu=8000), 0, ())
    verdict = only(world(TRAINER, fleet=busy))
    assert (verdict.flavor, verdict.flavors, {member[2] for member in verdict.members}) == (CARDS, (), {1})


def test_quota_of_both_flavors_binds() -> None:
    verdict = only(world(TRAINER, spot={"cpu": 64000, "memory": 512 * GIB}, cards={**PLENTY, "cpu": 4000}))
    assert verdict.flavors == (SPOT, CARDS)  # In one flavor the four cores of quota would not do for all.
    verdict = only(world(TRAINER, cards={**PLENTY, "gpu": 1000}))
    assert (verdict.outcome, verdict.reason) == ("pend", Reason.EXCEEDS_MAX_QUOTA)
    told = {entry["flavor"]: entry for entry in verdict.tried}
    assert list(told) == [f"{SPOT} + {CARDS}", CARDS]
    assert told[f"{SPOT} + {CARDS}"]["quota"]["resource"] == "gpu"  # type: ignore[index]


def test_without_quota_in_one_of_them_it_is_named() -> None:
    limits = {(CARDS, name): Limit(value) for name, value in PLENTY.items()}
    short = {**limits, (CARDS, "cpu"): Limit(4000)}
    snapshot = world(TRAINER)
    tree = QuotaTree([Node(1, None, "vision", short)], {})
    verdict = only(Snapshot(snapshot.fleet, snapshot.pools, tree, [TRAINER]))
    assert verdict.reason == Reason.NO_FLAVOR
    details = {entry["flavor"]: entry["detail"] for entry in verdict.tried}
    assert details[f"{SPOT} + {CARDS}"] == f"the tenant has no quota in flavor {SPOT}."


def test_where_no_flavor_serves_a_group_each_says_why() -> None:
    job = candidate(1, 1, [(DRIVER, 1), (Request(cpu=1000, gpu_count=4), 1)])
    verdict = only(world(job))
    assert verdict.reason == Reason.NO_NODE_MATCHES or verdict.reason == Reason.EXCEEDS_EVERY_NODE
    assert [entry["flavor"] for entry in verdict.tried] == [SPOT, CARDS]


def test_victims_are_looked_for_in_both_flavors() -> None:
    nodes = fleet(cards=1)
    nodes.take(WORKER, 1, (0,))
    usage = {(CARDS, "cpu"): 2000, (CARDS, "memory"): GIB, (CARDS, "gpu"): 1000}
    snapshot = world(
        candidate(5, 1, [(DRIVER, 1), (WORKER, 1)], priority=10),
        fleet=nodes,
        usage={1: usage},
        rules={1: QueueRules(within_queue=Policy.LOWER_PRIORITY)},
        holders=[Holder(uid=2, queue=1, priority=0, submitted=0.0, since=0.0, usage=usage)],
        places={2: [(WORKER, 1, (0,))]},
    )
    verdict = only(snapshot)
    assert (verdict.outcome, verdict.flavor, verdict.flavors) == ("preempt", f"{SPOT} + {CARDS}", (SPOT, CARDS))
    assert [job for job, _ in verdict.victims] == [2]


def test_a_reserved_start_keeps_both_flavors() -> None:
    """The worker waits for the card until 100; meanwhile nobody takes the driver's cores beyond that."""
    nodes = fleet(cards=1)
    nodes.take(WORKER, 1, (0,))
    waits = candidate(5, 1, [(Request(cpu=8000, memory=GIB), 1), (WORKER, 1)])
    longer, shorter = candidate(6, 1, Request(cpu=7000, memory=GIB)), candidate(7, 1, Request(cpu=7000, memory=GIB))
    snapshot = world(
        waits, longer, shorter, fleet=nodes,
        usage={1: {(CARDS, "cpu"): 2000, (CARDS, "memory"): GIB, (CARDS, "gpu"): 1000}},
        plan=Plan(
            running=[Running(2, 1, 100.0, {(CARDS, "cpu"): 2000, (CARDS, "gpu"): 1000}, [(WORKER, 1, (0,))])],
            durations={5: 50.0, 6: 500.0, 7: 50.0},
        ),
    )  # fmt: skip
    verdicts = {verdict.job: verdict for verdict in decide(snapshot, now=10.0)}
    assert verdicts[5].reserved == 100.0
    assert (verdicts[6].outcome, verdicts[6].reason) == ("pend", Reason.BEHIND_IN_QUEUE)
    assert (verdicts[7].outcome, verdicts[7].flavor) == ("grant", SPOT)


def test_the_simulator_charges_and_releases_both_flavors() -> None:
    snapshot = world()
    jobs = [Job(candidate(number, 1, [(DRIVER, 1), (WORKER, 2)]), 100.0, 1000.0) for number in (1, 2)]
    made = Simulation(
        fleet=snapshot.fleet, pools=snapshot.pools, tree=snapshot.tree, jobs=jobs, policy=Served(), start=0.0
    )
    made.run(50.0)
    assert {fr: made.tree.usage(1, fr) for fr in ((SPOT, "cpu"), (CARDS, "cpu"), (CARDS, "gpu"))} == {
        (SPOT, "cpu"): 1000, (CARDS, "cpu"): 4000, (CARDS, "gpu"): 2000,
    }  # fmt: skip
    records = made.run()
    assert [records[number].spans[0][:2] for number in (1, 2)] == [(1.0, 101.0), (101.0, 201.0)]
    assert not any(made.tree.usage(1, fr) for fr in made.tree.frs())


def test_more_quota_is_suggested_in_the_flavor_that_lacks_it() -> None:
    found = suggestions(world(TRAINER, cards={**PLENTY, "cpu": 4000, "gpu": 1000}), 1, now=10.0)
    quotas = [item for item in found if item.field == "quota"]
    assert [(item.after["flavor"], item.after["resource"], item.after["nominal"]) for item in quotas] == [  # type: ignore[index]
        (CARDS, "gpu", 2000)
    ]


@given(st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=5, unique=True).map(sorted), min_size=1, max_size=8))
def test_choices_are_few_distinct_open_to_each_group_and_begin_with_the_first_of_each(open_to: list[list[int]]) -> None:
    found = combinations(open_to)
    assert found[0] == tuple(group[0] for group in open_to)
    assert len(found) == len(set(found)) <= CHOICES_MAX + 5
    assert all(flavor in group for chosen in found for flavor, group in zip(chosen, open_to, strict=True))
    shared = set.intersection(*(set(group) for group in open_to))
    assert {(flavor,) * len(open_to) for flavor in shared} <= set(found)
