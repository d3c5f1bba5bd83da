"""How far priority reaches: among the jobs of a tenant, or among those of all, where a pool says so."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.backfill import Mode, Plan, Running
from engine.cycle import decide
from engine.fleet import Fleet, Request
from engine.order import OrderPolicy, next_change
from engine.quota import Limit, Node, QuotaTree
from engine.simulate import Job, QueuePolicy, Simulation
from engine.snapshot import Candidate, Snapshot, Verdict, queue_order

from .worlds import CPU, candidate, one_pool, row, snapshots, wide_tree

CORE = Request(cpu=1000)
EVERYWHERE = frozenset({"p"})


def job(number: int, queue: int, priority: int, request: Request = CORE, **more: object) -> Candidate:
    """One that is charged its cpu only."""
    return candidate(number, queue, request, priority=priority, amounts={"cpu": request.cpu}, **more)


def borrower_and_owner() -> QuotaTree:
    """Queue 1 has quota for one core and uses it; queue 2 has all of the rest."""
    nodes = [Node(0, None, "all", {}), Node(1, 0, "small", {CPU: Limit(1000)}), Node(2, 0, "large", {CPU: Limit(7000)})]
    return QuotaTree(nodes, {1: {CPU: 1000}})


def granted(verdicts: list[Verdict]) -> list[int]:
    return [verdict.job for verdict in verdicts if verdict.outcome == "grant"]


def test_across_tenants_priority_goes_before_borrowing_and_shares() -> None:
    """The high one borrows: within tenants it comes after whoever does not, across them it is first."""
    fleet = Fleet.build([row(0, cpu_free=3000)])
    items = [job(1, 2, 0), job(2, 2, 0), job(3, 1, 50), job(4, 1, -1)]
    present = Snapshot(fleet, one_pool(fleet), borrower_and_owner(), items)
    assert granted(decide(present, now=10.0)) == [1, 2, 3]
    assert granted(decide(replace(present, across=EVERYWHERE), now=10.0)) == [3, 1, 2]


def test_nobody_ages_past_a_higher_priority_across_tenants() -> None:
    """Its own queue lets the old job go first; then the high one would wait behind it for the others' jobs too."""
    items = [job(1, 1, 0), job(2, 1, 50), job(3, 2, 20)]
    points = {1: 90.0, 2: 50.0, 3: 20.0}
    fleet = Fleet.build([row(0)])
    present = Snapshot(fleet, one_pool(fleet), wide_tree(2), items, plan=Plan(points=points, mode=Mode.NONE))
    assert granted(decide(present, now=10.0)) == [1, 3, 2]
    assert granted(decide(replace(present, across=EVERYWHERE), now=10.0)) == [2, 3, 1]
    assert [item.job for item in queue_order(items, points, EVERYWHERE)[1]] == [2, 1]


def test_where_pools_differ_the_other_pool_counts_as_priority_zero() -> None:
    fleet = Fleet.build([row(0, cpu_free=3000)])
    pools = {**one_pool(fleet), "q": one_pool(fleet)["p"]}
    items = [job(1, 1, 900, pool="q"), job(2, 2, 5), job(3, 2, -5)]
    present = Snapshot(fleet, pools, wide_tree(2), items, across=EVERYWHERE)
    assert granted(decide(present, now=10.0)) == [2, 1, 3]


@settings(max_examples=30)
@given(snapshots())
def test_with_equal_priorities_both_rules_decide_the_same(snapshot: Snapshot) -> None:
    """Only in which order those are told that cannot start may be another."""
    items = [replace(item, priority=0) for item in snapshot.candidates]
    within, across = (
        decide(replace(snapshot, candidates=items, across=pools), now=10.0) for pools in (frozenset(), EVERYWHERE)
    )
    assert granted(within) == granted(across)
    assert sorted(within, key=lambda verdict: verdict.job) == sorted(across, key=lambda verdict: verdict.job)


asked = st.lists(
    st.tuples(st.integers(1, 3), st.integers(0, 3), st.sampled_from([True, True, False])), min_size=6, max_size=14
)


def shared_tree(used: int) -> QuotaTree:
    """Nine cores of quota for queues 1 to 3 together, of which queue 1 uses some."""
    nodes = [Node(0, None, "all", {CPU: Limit(9000)})]
    return QuotaTree([*nodes, *(Node(queue, 0, f"q{queue}", {CPU: Limit(0)}) for queue in (1, 2, 3))], {1: {CPU: used}})


@settings(max_examples=200)
@given(
    asked,
    st.integers(0, 9),
    st.sampled_from([(Mode.CONSERVATIVE, False), (Mode.CONSERVATIVE, True), (Mode.EASY, False), (Mode.NONE, True)]),
)
def test_no_equal_job_of_lower_priority_starts_or_is_promised_a_start_before(
    asked: list[tuple[int, int, bool]], free: int, setting: tuple[Mode, bool]
) -> None:
    """Of jobs that ask for the same, in queues that may all have everything: where room is short, or quota is."""
    mode, quota = setting
    fleet = Fleet.build([row(0, cpu_free=99_000 if quota else free * 1000, cpu_capacity=108_000 if quota else 9000)])
    tree = shared_tree(9000 - free * 1000) if quota else wide_tree(3)
    items = [job(number, queue, priority) for number, (queue, priority, _) in enumerate(asked)]
    # Some are not known to be alike, as those whose budgets differ.
    items = [item if alike else replace(item, equivalence=None) for item, (*_, alike) in zip(items, asked, strict=True)]
    usage = {CPU: 1000} if quota else {}
    ends = [Running(100 + place, 1, 100.0 * place, usage, [(CORE, 0, ())]) for place in range(1, 10 - free)]
    plan = Plan(running=ends, durations={item.job: 50.0 for item in items}, mode=mode)
    made = decide(Snapshot(fleet, one_pool(fleet), tree, items, plan=plan, across=EVERYWHERE), now=10.0)
    starts = {v.job: 10.0 if v.outcome == "grant" else v.reserved or float("inf") for v in made}
    for first in items:
        for second in items:
            if first.priority > second.priority:
                assert starts[first.job] <= starts[second.job]


def test_the_order_changes_by_age_among_equals_only() -> None:
    items = [job(1, 1, 0, submitted=0.0), job(2, 1, 9, submitted=0.0), job(3, 1, 9, submitted=-5.0)]
    expected = {1: 10.0, 2: 1000.0, 3: 5000.0}
    later = [
        next_change(OrderPolicy(), chosen, wide_tree(1), now=100.0, expected=expected, across=across)
        for chosen, across in ((items[:2], frozenset[str]()), (items[:2], EVERYWHERE))
    ]
    assert later[0] is None and later[1] is None  # The short one is past the other already, or never gets there.
    early = [
        next_change(OrderPolicy(), items[:2], wide_tree(1), now=1.0, expected=expected, across=across)
        for across in (frozenset[str](), EVERYWHERE)
    ]
    assert early[0] is not None and early[1] is None


def test_in_a_simulation_the_policy_says_how_far_priority_reaches() -> None:
    fleet = Fleet.build([row(0, cpu_free=1000, cpu_capacity=1000)])
    jobs = [Job(job(1, 2, 0, submitted=0.0), 10.0, 100.0), Job(job(2, 2, 0, submitted=1.0), 10.0, 100.0)]
    jobs.append(Job(job(3, 1, 50, submitted=2.0), 10.0, 100.0))

    def starts(policy: QueuePolicy) -> list[float | None]:
        made = Simulation(
            fleet=fleet, pools=one_pool(fleet), tree=borrower_and_owner(), jobs=jobs, policy=policy, start=0.0
        )
        records = made.run()
        return [records[number].first_start for number in (1, 2, 3)]

    assert starts(QueuePolicy()) == [0.0, 10.0, 20.0]
    assert starts(QueuePolicy(across=EVERYWHERE)) == [0.0, 20.0, 10.0]
