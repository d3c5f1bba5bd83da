"""A job with minimums starts with as many members as fit, and no more and no fewer."""

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.cycle import decide
from engine.fleet import Fleet, Request
from engine.quota import Limit, Node, QuotaTree
from engine.reasons import Reason
from engine.snapshot import Candidate, Snapshot, Verdict

from .worlds import CPU, GIB, candidate, one_pool, row, wide_tree

CORE = Request(cpu=1000, memory=GIB)


def snapshot(item: Candidate, *, cores: int, quota: int = 10**9) -> Snapshot:
    fleet = Fleet.build([row(0, cpu_capacity=cores * 1000)])
    return Snapshot(fleet=fleet, pools=one_pool(fleet), tree=narrow(quota), candidates=[item])


def narrow(cores: int) -> QuotaTree:
    limits = {("default", name): Limit(10**15) for name in ("memory", "storage", "gpu")} | {CPU: Limit(cores * 1000)}
    return QuotaTree([Node(1, None, "q", limits)], {})


def only(world: Snapshot) -> Verdict:
    [verdict] = decide(world, now=10.0)
    return verdict


@settings(max_examples=200)
@given(st.integers(1, 12), st.integers(0, 11), st.integers(1, 14), st.integers(1, 14))
def test_as_many_members_as_both_nodes_and_quota_hold(count: int, slack: int, cores: int, quota: int) -> None:
    least = max(1, count - slack)
    item = candidate(1, 1, [(CORE, count)], minimums=(least,))
    verdict = only(snapshot(item, cores=cores, quota=quota))
    room = min(cores, quota)
    if room < least:
        assert verdict.outcome == "pend"
    else:
        assert verdict.outcome == "grant" and len(verdict.members) == min(count, room)
        assert item.granted(verdict.members).amounts["cpu"] == min(count, room) * 1000


def test_the_reason_is_why_not_even_the_fewest_fit() -> None:
    item = candidate(1, 1, [(CORE, 8)], minimums=(5,))
    verdict = only(snapshot(item, cores=8, quota=4))
    assert verdict.reason is Reason.EXCEEDS_MAX_QUOTA and "5" in verdict.detail


def test_groups_without_a_minimum_stay_whole() -> None:
    item = candidate(1, 1, [(CORE, 2), (CORE, 6)], minimums=(None, 1))
    verdict = only(snapshot(item, cores=5))
    groups = [group for group, *_ in verdict.members]
    assert (groups.count(0), groups.count(1)) == (2, 3)


def test_what_is_left_goes_to_the_next_job() -> None:
    first = candidate(1, 1, [(CORE, 4)], minimums=(1,), equivalence="shrinks")
    second = candidate(2, 1, [(CORE, 4)], minimums=(1,), equivalence="shrinks")
    fleet = Fleet.build([row(0, cpu_capacity=6000)])
    world = Snapshot(fleet=fleet, pools=one_pool(fleet), tree=wide_tree(1), candidates=[first, second])
    assert [(verdict.job, len(verdict.members)) for verdict in decide(world, now=10.0)] == [(1, 4), (2, 2)]
