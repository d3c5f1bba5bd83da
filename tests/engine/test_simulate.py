"""The simulator: virtual time, the product's decider, and what really happens when nothing surprising does."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from engine.backfill import Mode, Plan
from engine.cycle import decide
from engine.estimates import Estimate, History
from engine.fleet import Fleet, Request
from engine.forecast import estimate_starts
from engine.order import OrderPolicy, next_change, points
from engine.placement import take_members
from engine.queues import Policy, QueueRules
from engine.quota import Limit, Node
from engine.simulate import Change, Job, QueuePolicy, Simulation
from engine.snapshot import Snapshot

from .worlds import GIB, RESOURCES, candidate, one_pool, row, wide_tree

EASY = QueuePolicy(order=None)


def cards(count: int) -> Request:
    return Request(cpu=100, gpu_count=count)


def fleet_of(*counts: int) -> Fleet:
    return Fleet.build([row(number, gpu_free=[1000] * count) for number, count in enumerate(counts)])


def job(number: int, at: float, seconds: float, request: Request, *, queue: int = 1, priority: int = 0) -> Job:
    """A job whose run time is known beforehand."""
    item = candidate(number, queue, request, submitted=at, priority=priority)
    return Job(item, seconds, 1e6, estimate=Estimate(seconds, seconds, "job", 1))


def simulation(fleet: Fleet, jobs: list[Job], policy: QueuePolicy = EASY, **more: object) -> Simulation:
    settings = {"tree": wide_tree(2), "start": 0.0, **more}
    return Simulation(fleet=fleet, pools=one_pool(fleet), jobs=jobs, policy=policy, **settings)  # type: ignore[arg-type]


def spans(made: Simulation) -> dict[int, list[tuple[float, float, str]]]:
    return {number: record.spans for number, record in made.run().items()}


def test_jobs_start_when_there_is_room_and_fill_the_hole_before_a_reserved_start() -> None:
    jobs = [job(1, 0, 100, cards(3)), job(2, 1, 50, cards(4)), job(3, 2, 98, cards(1)), job(4, 3, 98, cards(1))]
    assert spans(simulation(fleet_of(4), jobs)) == {
        1: [(0.0, 100.0, "done")],
        2: [(100.0, 150.0, "done")],
        3: [(2.0, 100.0, "done")],
        4: [(150.0, 248.0, "done")],
    }


def test_a_run_is_stopped_at_its_limit() -> None:
    late = replace(job(1, 0, 100, cards(1)), limit=60.0)
    assert spans(simulation(fleet_of(1), [late]))[1] == [(0.0, 60.0, "limit")]


def test_a_lost_node_starts_its_jobs_over_and_a_node_that_joins_takes_them() -> None:
    fleet = fleet_of(2, 2)
    fleet.ready = np.array([True, False])
    changes = [Change(10.0, lost=frozenset({0})), Change(20.0, ready=frozenset({1}))]
    made = simulation(fleet, [job(1, 0, 100, cards(2))], changes=changes)
    assert spans(made)[1] == [(0.0, 10.0, "lost"), (20.0, 120.0, "done")]
    assert made.records[1].nodes == (1,)


def test_a_change_of_quota_and_one_of_policy_count_from_their_time_on() -> None:
    limits = {("default", name): Limit(10**15 if name != "gpu" else 1000) for name in RESOURCES}
    jobs = [job(number, 0, 100, cards(1)) for number in (1, 2)]
    small, large = Node(1, None, "q1", limits), Node(1, None, "q1", {**limits, ("default", "gpu"): Limit(2000)})
    changes = [Change(0.0, quotas=[small]), Change(30.0, quotas=[large])]
    assert spans(simulation(fleet_of(4), jobs, changes=changes))[2] == [(30.0, 130.0, "done")]
    jobs = [job(1, 0, 100, cards(3)), job(2, 1, 50, cards(4)), job(3, 2, 500, cards(1))]
    relaxed = Change(40.0, policy=QueuePolicy(Mode.NONE, order=None))
    assert spans(simulation(fleet_of(4), jobs, changes=[relaxed]))[3] == [(40.0, 540.0, "done")]


def test_whoever_is_evicted_starts_over_and_its_work_is_lost() -> None:
    rules = {1: QueueRules(within_queue=Policy.LOWER_PRIORITY)}
    jobs = [job(1, 0, 100, cards(4)), job(2, 70, 50, cards(4), priority=10)]
    found = spans(simulation(fleet_of(4), jobs, QueuePolicy(order=None, rules=rules)))
    assert found == {1: [(0.0, 70.0, "preempted"), (120.0, 220.0, "done")], 2: [(70.0, 120.0, "done")]}
    protected = QueuePolicy(order=None, rules=rules, minimum_run=80.0)
    assert spans(simulation(fleet_of(4), jobs, protected))[1] == [(0.0, 100.0, "done")]


def test_a_cancelled_job_never_starts_or_leaves_its_room() -> None:
    jobs = [job(1, 0, 100, cards(4)), job(2, 0, 100, cards(4)), job(3, 0, 100, cards(4))]
    made = simulation(fleet_of(4), jobs, changes=[Change(5.0, cancelled=frozenset({1, 2}))])
    found = spans(made)
    assert found[1] == [(0.0, 5.0, "cancelled")]
    assert found[2] == [(5.0, 5.0, "cancelled")]
    assert found[3] == [(5.0, 105.0, "done")]
    late = simulation(fleet_of(4), [job(1, 9, 100, cards(4))], changes=[Change(5.0, cancelled=frozenset({1}))])
    assert spans(late)[1] == [(9.0, 9.0, "cancelled")]
    assert (late.waiting, late.running) == ({}, {})


requests = st.one_of(
    st.builds(cards, st.integers(1, 4)),
    st.builds(
        Request, cpu=st.integers(1, 8).map(lambda cores: cores * 1000), memory=st.integers(0, 16).map(GIB.__mul__)
    ),
    st.builds(Request, cpu=st.just(100), gpu_count=st.just(1), gpu_milli=st.sampled_from([300, 500])),
)
arrivals = st.lists(
    st.tuples(st.integers(0, 60), st.integers(1, 80), requests, st.integers(1, 2), st.integers(0, 2)),
    min_size=1,
    max_size=12,
)


@pytest.mark.parametrize("mode", list(Mode))
@given(asked=arrivals)
def test_it_agrees_with_what_happens_when_the_loop_itself_decides(
    mode: Mode, asked: list[tuple[int, int, Request, int, int]]
) -> None:
    """A frozen fleet, driven second by second with nothing but `decide`: every start and node is the same."""
    fleet = fleet_of(4, 2)
    jobs = [
        job(number, at, seconds, request, queue=queue, priority=priority)
        for number, (at, seconds, request, queue, priority) in enumerate(asked, 1)
    ]
    made = simulation(fleet, jobs, QueuePolicy(mode, order=None))
    found = {number: (record.first_start, record.nodes) for number, record in made.run().items() if record.spans}

    real, tree, happened = fleet.fork(), wide_tree(2), dict[int, tuple[float, tuple[int, ...]]]()
    waiting: dict[int, Job] = {}
    running: list[tuple[float, Job, tuple[object, ...]]] = []
    plans = []
    for second in range(0, 1200):
        now, stirred = float(second), False
        for end, item, members in [entry for entry in running if entry[0] == now]:
            running.remove((end, item, members))
            plans = [plan for plan in plans if plan.job != item.candidate.job]
            for group, _, node, taken in members:  # type: ignore[misc]
                real.give(item.candidate.groups[group][0], node, taken)
            charge = {("default", name): amount for name, amount in item.candidate.amounts.items()}
            tree.remove(item.candidate.queue, charge)
            stirred = True
        for item in jobs:
            if item.candidate.submitted == now:
                waiting[item.candidate.job] = item
                stirred = True
        while stirred and waiting:
            stirred = False
            plan = Plan(mode, plans, {number: item.seconds for number, item in waiting.items()})
            snapshot = Snapshot(real, one_pool(real), tree, [item.candidate for item in waiting.values()], plan=plan)
            for verdict in decide(snapshot, now=now):
                if verdict.outcome == "grant":
                    item, stirred = waiting.pop(verdict.job), True
                    take_members(real, item.candidate.groups, verdict.members)
                    charge = {("default", name): amount for name, amount in item.candidate.amounts.items()}
                    tree.add(item.candidate.queue, charge)
                    end = now + item.seconds
                    running.append((end, item, verdict.members))
                    plans.append(running_plan(item, end, charge, verdict.members))
                    happened[verdict.job] = (now, tuple(member[2] for member in verdict.members))
    assert found == happened


def running_plan(item: Job, end: float, charge: dict[tuple[str, str], int], members: tuple[object, ...]) -> object:
    from engine.backfill import Running
    from engine.profile import placed_at

    usage = {fr: amount for fr, amount in charge.items() if amount}
    return Running(item.candidate.job, item.candidate.queue, end, usage, placed_at(item.candidate.groups, members))  # type: ignore[arg-type]


@given(arrivals)
def test_with_times_that_come_true_the_head_starts_no_later_than_was_first_reserved(
    asked: list[tuple[int, int, Request, int, int]],
) -> None:
    """All jobs come at once and in order of priority, so only those let ahead could be in its way."""
    fleet = fleet_of(4, 2)
    jobs = [
        job(number, 0.0, seconds, request, priority=100 - number)
        for number, (_, seconds, request, _, _) in enumerate(asked, 1)
    ]
    reserved: dict[int, float] = {}

    def watch(made: Simulation, verdicts: object) -> None:
        for verdict in verdicts:  # type: ignore[attr-defined]
            if verdict.reserved is not None:
                reserved.setdefault(verdict.job, verdict.reserved)

    records = simulation(fleet, jobs, watch=watch, told=True).run()
    for number, start in reserved.items():
        assert records[number].first_start is not None
        assert records[number].first_start <= start


def test_estimated_starts_are_exact_when_run_times_are_and_spread_when_they_are_not() -> None:
    history = History(prior=0.0)
    for seconds in (100.0,) * 5 + (500.0,) * 5:
        history.add(("t", "t", "all"), seconds)
    jobs = [replace(job(number, 0, 100, cards(4)), estimate=None, keys=("t", "t", "all")) for number in (1, 2, 3)]
    made = simulation(fleet_of(4), jobs, history=history)
    made.run(until=0.0)
    running = made.running

    def starts(exact: bool) -> dict[int, tuple[float, float]]:
        def quantiles(number: int, parts: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
            return np.full(len(parts), 100.0) if exact else history.quantiles(("t", "t", "all"), 1e6, parts)

        since = {number: since for number, (_, since) in running.items()}
        found = estimate_starts(made.snapshot(), now=0.0, quantiles=quantiles, since=since)
        return {number: (start.p50, start.p90) for number, start in found.items()}

    assert starts(exact=True) == {2: (100.0, 100.0), 3: (200.0, 200.0)}
    spread = starts(exact=False)
    assert spread[2] == (100.0, 500.0)
    assert spread[3][0] == 600.0
    assert spread[3][1] == 1000.0
    assert starts(exact=False) == spread
    records = made.run()
    assert [records[number].first_start for number in (2, 3)] == [100.0, 200.0]


def test_who_overtakes_by_age_alone_starts_then() -> None:
    """Half the cards are free, but kept for job 2 until 1 has ended; job 3 is shorter and passes it meanwhile.

    With 5 points more for 2 the points are equal when (1 + w / 10800) = 2^0.5 (1 + w / 86400): after 5434 s.
    """
    jobs = [
        job(1, 0, 7200, cards(2), priority=50),
        job(2, 0, 86_400, cards(4), priority=5),
        job(3, 0, 10_800, cards(2)),
    ]
    policy = QueuePolicy()
    assert spans(simulation(fleet_of(4), jobs, policy))[3][0][0] > 7000
    passed = 0.4142136 / (1 / 10_800 - 1.4142136 / 86_400)
    assert spans(simulation(fleet_of(4), jobs, policy, reorder=1.0))[3][0][0] == pytest.approx(passed, abs=1.0)
    rare = spans(simulation(fleet_of(4), jobs, policy, reorder=6000.0))[3][0][0]
    assert rare == pytest.approx(6000.0)


@given(
    st.lists(
        st.tuples(st.integers(0, 500), st.integers(1, 5000), st.integers(0, 30)), min_size=2, max_size=6, unique=True
    )
)
def test_the_order_stays_until_the_next_change_and_is_another_after_it(asked: list[tuple[int, int, int]]) -> None:
    policy, tree = OrderPolicy(), wide_tree(1)
    items = [
        candidate(number, 1, cards(1), submitted=float(at), priority=priority)
        for number, (at, _, priority) in enumerate(asked, 1)
    ]
    expected = {number: float(length) for number, (_, length, _) in enumerate(asked, 1)}

    def order(now: float) -> list[int]:
        found = points(policy, items, tree, now=now, expected=expected)
        return sorted(found, key=lambda number: -found[number])

    def apart(now: float) -> bool:
        found = sorted(points(policy, items, tree, now=now, expected=expected).values())
        return all(high - low > 1e-9 for low, high in pairwise(found))

    now = 1000.0
    at = next_change(policy, items, tree, now=now, expected=expected)
    assume(apart(now))
    if at is None:
        assert order(now) == order(1e9) or not apart(1e9)
    else:
        before, after = now + 0.99 * (at - now), at + 0.01 * (at - now) + 1e-3
        assert order(now) == order(before) or not apart(before)
        assert order(now) != order(after) or not apart(after)
