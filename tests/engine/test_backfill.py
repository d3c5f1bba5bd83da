"""Backfill: nobody's reserved start moves later because of a job that was let ahead, and nobody starves."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.backfill import Mode, Plan, Running
from engine.cycle import decide
from engine.fleet import Fleet, Request
from engine.order import OrderPolicy, order_terms, points
from engine.placement import Placed, place_gang, take_members
from engine.profile import placed_at
from engine.quota import Limit, Node, QuotaTree
from engine.reasons import Reason
from engine.snapshot import Candidate, Snapshot, Verdict

from .worlds import GPU, RESOURCES, candidate, one_pool, row, totals, wide_tree

NOW = 1000.0
CARD = Request(cpu=100, gpu_count=1)


def world(
    candidates: list[Candidate],
    durations: dict[int, float],
    running: list[tuple[list[tuple[Request, int]], float]],
    *,
    cards: tuple[int, ...] = (4,),
    mode: Mode = Mode.EASY,
    tree: QuotaTree | None = None,
) -> Snapshot:
    """Nodes with so many whole cards; (groups, end) run on them, all in queue 1."""
    fleet = Fleet.build([row(number, gpu_free=[1000] * count) for number, count in enumerate(cards)])
    tree = tree or wide_tree(2)
    plans = []
    for number, (groups, end) in enumerate(running):
        placed = place_gang(fleet, groups)
        assert isinstance(placed, Placed)
        take_members(fleet, groups, placed.members)
        usage = {("default", name): amount for name, amount in totals(groups).items() if amount}
        tree.add(1, usage)
        plans.append(Running(f"r{number}", 1, end, usage, placed_at(groups, placed.members)))
    plan = Plan(mode=mode, running=plans, durations=durations)
    return Snapshot(fleet, one_pool(fleet), tree, candidates, plan=plan)


def outcomes(snapshot: Snapshot) -> dict[int, Verdict]:
    return {verdict.job: verdict for verdict in decide(snapshot, now=NOW)}


def cards(count: int) -> Request:
    return Request(cpu=100, gpu_count=count)


def test_easy_lets_ahead_who_has_ended_by_the_reserved_start() -> None:
    """Two of four cards run until 1100; the head needs all four, so the hole is 100 s long."""
    jobs = [candidate(1, 1, cards(4)), candidate(2, 1, cards(1)), candidate(3, 1, cards(2))]
    found = outcomes(world(jobs, {1: 50, 2: 101, 3: 100}, [([(cards(2), 1)], NOW + 100)]))
    assert found[1].reserved == NOW + 100
    assert (found[2].outcome, found[2].reason) == ("pend", Reason.BEHIND_IN_QUEUE)
    assert "job 1" in found[2].detail
    assert found[3].outcome == "grant"


def test_easy_lets_ahead_who_leaves_enough_beside_the_reserved_start() -> None:
    """The head needs three of four: one card is extra, and may be taken for as long as one likes, once."""
    jobs = [candidate(1, 1, cards(3)), candidate(2, 1, cards(1)), candidate(3, 1, cards(1))]
    found = outcomes(world(jobs, {1: 50, 2: 1e6, 3: 1e6}, [([(cards(2), 1)], NOW + 100)]))
    assert found[1].reserved == NOW + 100
    assert found[2].outcome == "grant"
    assert found[3].reason == Reason.BEHIND_IN_QUEUE


def test_a_reserved_start_gives_way_to_other_nodes_at_the_same_time() -> None:
    """Which of two equal nodes the head gets does not matter: a job may take the one it was first given."""
    jobs = [candidate(1, 1, cards(4)), candidate(2, 1, cards(2))]
    running = [([(cards(2), 1)], NOW + 100), ([(cards(4), 1)], NOW + 100)]
    found = outcomes(world(jobs, {1: 50, 2: 1e6}, running, cards=(4, 4)))
    assert found[1].reserved == NOW + 100
    assert found[2].outcome == "grant"


def test_without_a_plan_or_in_mode_none_nobody_waits_for_a_reservation() -> None:
    jobs = [candidate(1, 1, cards(4)), candidate(2, 1, cards(2))]
    snapshot = world(jobs, {1: 50, 2: 1e6}, [([(cards(2), 1)], NOW + 100)], mode=Mode.NONE)
    assert outcomes(snapshot)[2].outcome == "grant"
    assert outcomes(replace(snapshot, plan=None))[2].outcome == "grant"


def test_conservative_keeps_the_second_start_too() -> None:
    """A card is left beside the head, so EASY gives it away for long; job 2, which needs all four, has to wait."""
    jobs = [candidate(1, 1, cards(2)), candidate(2, 1, cards(4)), candidate(3, 1, cards(1))]
    running, durations = [([(cards(3), 1)], NOW + 100)], {1: 50.0, 2: 50.0, 3: 300.0}
    easy = outcomes(world(jobs, durations, running))
    assert (easy[1].reserved, easy[2].reserved, easy[3].outcome) == (NOW + 100, None, "grant")
    conservative = outcomes(world(jobs, durations, running, mode=Mode.CONSERVATIVE))
    assert [conservative[job].reserved for job in (1, 2, 3)] == [NOW + 100, NOW + 150, NOW + 200]
    assert "job 2" in conservative[3].detail


def test_a_gang_of_several_groups_gets_one_start_for_all_of_them() -> None:
    gang = [(cards(2), 2), (Request(cpu=7900), 1)]
    jobs = [candidate(1, 1, gang), candidate(2, 1, cards(2)), candidate(3, 1, Request(cpu=4000))]
    running = [([(cards(3), 1)], NOW + 60), ([(Request(cpu=7000), 1)], NOW + 90)]
    found = outcomes(world(jobs, {1: 10, 2: 500, 3: 80}, running, cards=(4, 0)))
    assert found[1].reserved == NOW + 90
    assert found[2].outcome == "pend"
    assert found[3].outcome == "grant"


def test_the_head_of_a_queue_that_lacks_quota_is_not_passed_by_in_quota_for_longer_than_it_has_to_wait() -> None:
    limits = {("default", name): Limit(10**15 if name != "gpu" else 4000) for name in RESOURCES}
    tree = QuotaTree([Node(1, None, "q1", limits)], {})
    jobs = [candidate(1, 1, cards(4)), candidate(2, 1, cards(1)), candidate(3, 1, cards(1))]
    found = outcomes(world(jobs, {1: 50, 2: 500, 3: 50}, [([(cards(2), 1)], NOW + 100)], cards=(8,), tree=tree))
    assert (found[1].reason, found[1].reserved) == (Reason.WAITING_FOR_QUOTA, NOW + 100)
    assert found[2].reason == Reason.BEHIND_IN_QUEUE
    assert found[3].outcome == "grant"


def test_any_number_of_heads_that_can_never_start_keeps_nobody_from_starting() -> None:
    """As in apache/airflow#45636, where a window of the first tasks was full of such that could not run."""
    never = [candidate(job, 1, Request(cpu=9000 + job)) for job in range(1, 3001)]
    waiting = [candidate(job, 1, cards(4)) for job in range(3001, 3501)]
    last = candidate(9999, 1, CARD)
    durations = {item.job: 10.0 for item in (*never, *waiting, last)}
    running = [([(cards(2), 1)], NOW + 100)]
    for mode in Mode:
        found = outcomes(world([*never, *waiting, last], durations, running, mode=mode))
        assert found[9999].outcome == "grant"
        assert all(found[item.job].reserved is None for item in never)


requests = st.one_of(
    st.builds(cards, st.integers(1, 4)),
    st.builds(Request, cpu=st.integers(1, 8).map(lambda cores: cores * 1000)),
    st.builds(Request, cpu=st.just(100), gpu_count=st.just(1), gpu_milli=st.sampled_from([300, 500])),
)
gangs = st.lists(st.tuples(requests, st.integers(1, 2)), min_size=1, max_size=2)


@st.composite
def busy(draw: st.DrawFn, mode: Mode) -> Snapshot:
    """Two or three nodes, on which something runs, and up to eight jobs of two queues with some quota."""
    sizes = tuple(draw(st.lists(st.sampled_from([2, 4]), min_size=2, max_size=3)))
    gpu = draw(st.sampled_from([4000, 10**9]))
    limits = {("default", name): Limit(10**15 if name != "gpu" else gpu) for name in RESOURCES}
    tree = QuotaTree([Node(0, None, "all", {}), Node(1, 0, "q1", limits), Node(2, 0, "q2", limits)], {})
    probe = Fleet.build([row(number, gpu_free=[1000] * count) for number, count in enumerate(sizes)])
    running = []
    for _ in range(draw(st.integers(0, 4))):
        groups = draw(gangs)
        placed = place_gang(probe, groups)
        if isinstance(placed, Placed):
            take_members(probe, groups, placed.members)
            running.append((groups, NOW + draw(st.integers(1, 60))))
    jobs = [
        candidate(job, draw(st.integers(1, 2)), draw(gangs), priority=draw(st.integers(0, 2)))
        for job in range(1, draw(st.integers(2, 8)) + 1)
    ]
    durations = {item.job: float(draw(st.integers(1, 80))) for item in jobs}
    return world(jobs, durations, running, cards=sizes, mode=mode, tree=tree)


def after(snapshot: Snapshot, granted: list[Verdict]) -> Snapshot:
    """The world once these have started; they run for exactly as long as was planned."""
    assert snapshot.plan is not None
    fleet, tree = snapshot.fleet.fork(), snapshot.tree.copy()
    by_job, running = {item.job: item for item in snapshot.candidates}, list(snapshot.plan.running)
    for verdict in granted:
        item = by_job.pop(verdict.job)
        take_members(fleet, item.groups, verdict.members)
        usage = {("default", name): amount for name, amount in item.amounts.items() if amount}
        tree.add(item.queue, usage)
        end = NOW + snapshot.plan.durations[item.job]
        running.append(Running(item.job, item.queue, end, usage, placed_at(item.groups, verdict.members)))
    plan = replace(snapshot.plan, running=running)
    return replace(snapshot, fleet=fleet, tree=tree, candidates=list(by_job.values()), plan=plan)


def keeping(snapshot: Snapshot, verdicts: list[Verdict]) -> Snapshot:
    """The snapshot with the places that these verdicts want kept."""
    assert snapshot.plan is not None
    kept = {verdict.job: verdict.kept for verdict in verdicts if verdict.kept is not None}
    return replace(snapshot, plan=replace(snapshot.plan, kept=kept))


def nobody_moves_the_first(snapshot: Snapshot) -> None:
    """What is granted beside it leaves the first job that has a reservation its start, or an earlier one."""
    verdicts = decide(snapshot, now=NOW)
    first = next((index for index, verdict in enumerate(verdicts) if verdict.reserved is not None), None)
    if first is None:
        return
    head = verdicts[first]
    before = [verdict for verdict in verdicts[:first] if verdict.outcome == "grant"]
    everybody = [verdict for verdict in verdicts if verdict.outcome == "grant"]
    alone = [item for item in snapshot.candidates if item.job == head.job]
    for granted in (before, everybody):
        left = keeping(after(snapshot, granted), verdicts)
        again = outcomes(replace(left, candidates=alone))[head.job]
        assert again.outcome == "grant" or (again.reserved is not None and again.reserved <= (head.reserved or 0.0))


@pytest.mark.parametrize("mode", [Mode.EASY, Mode.CONSERVATIVE])
@given(data=st.data())
def test_a_reserved_start_never_moves_later_because_of_a_backfilled_job(mode: Mode, data: st.DataObject) -> None:
    """Whatever was let ahead of it, the first job with a reservation could still start then, by itself at once."""
    nobody_moves_the_first(data.draw(busy(mode)))


@given(busy(Mode.CONSERVATIVE))
def test_conservative_starts_hold_for_everybody(snapshot: Snapshot) -> None:
    """All reserved starts are possible together, beside those that were granted, if all goes as planned."""
    plan, found = snapshot.plan, decide(snapshot, now=NOW)
    assert plan is not None
    by_job = {item.job: item for item in snapshot.candidates}
    spans = [(NOW, item.end, item.usage.get(GPU, 0)) for item in plan.running]
    for verdict in found:
        start = NOW if verdict.outcome == "grant" else verdict.reserved
        assert verdict.reserved is None or (verdict.outcome == "pend" and verdict.reserved > NOW)
        if start is not None:
            spans.append((start, start + plan.duration(verdict.job), by_job[verdict.job].amounts["gpu"]))
    for time, _, _ in spans:
        used = sum(gpu for start, end, gpu in spans if start <= time < end)
        assert used <= np.count_nonzero(snapshot.fleet.gpu_free > -1) * 1000


def test_the_terms_of_the_order_add_up_and_more_wait_never_sends_a_job_back() -> None:
    policy = OrderPolicy()
    terms = order_terms(policy, priority=50, waited=3600, expected=600, share=0.5, priority_class="high")
    assert terms.as_dict() == {"class": 100.0, "priority": 50.0, "ageing": 28.07, "fair_share": -5.0, "total": 173.07}
    later = order_terms(policy, priority=50, waited=7200, expected=600, share=0.5, priority_class="high")
    assert later.total > terms.total
    with pytest.raises(ValueError, match="known are: high, low"):
        order_terms(policy, priority=0, waited=0, expected=1, priority_class="urgent")
    tree = wide_tree(1, nominal=1000)
    tree.add(1, {GPU: 500})
    item = candidate(7, 1, CARD, submitted=NOW - 3600, priority=50)
    many = points(policy, [item], tree, now=NOW, expected={7: 600.0})
    assert many[7] == pytest.approx(terms.total - 100)


def test_points_order_a_queue_instead_of_the_priority() -> None:
    jobs = [candidate(1, 1, cards(4), priority=5), candidate(2, 1, cards(4))]
    snapshot = world(jobs, {1: 10, 2: 10}, [])
    assert snapshot.plan is not None
    assert outcomes(snapshot)[1].outcome == "grant"
    aged = replace(snapshot, plan=replace(snapshot.plan, points={1: 5.0, 2: 6.0}))
    assert outcomes(aged)[2].outcome == "grant"
