"""Backfill among jobs that want others near or away: reserved starts stay where they are there, too."""


import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.backfill import Mode, Plan, Running
from engine.company import Bonds, Company, Neighbours
from engine.fleet import Fleet, Request
from engine.placement import Groups, Placed, place_gang, take_members
from engine.profile import placed_at
from engine.quota import Limit, Node, QuotaTree
from engine.snapshot import Snapshot

from .test_backfill import NOW, nobody_moves_the_first
from .worlds import RESOURCES, candidate, one_pool, row, totals

LABELS = ((("app", "web"),), (("app", "db"),))
NEIGHBOURS = [
    Neighbours((("app", (name,)),), key) for name in ("web", "db") for key in ("zone", "node")
]
bonds = st.builds(
    Bonds,
    tenant=st.sampled_from([1, 1, 1, 2]),
    labels=st.sampled_from([(), *LABELS]),
    near=st.lists(st.sampled_from(NEIGHBOURS), max_size=1).map(tuple),
    away=st.lists(st.sampled_from(NEIGHBOURS), max_size=1).map(tuple),
)
sizes = st.tuples(
    st.sampled_from([1000, 2000, 4000, 8000]), st.sampled_from([0, 0, 1, 2])
).map(lambda size: Request(cpu=size[0], gpu_count=size[1]))


@st.composite
def bonded_groups(draw: st.DrawFn) -> Groups:
    """Up to three groups of one job, which have their bonds in common."""
    mine = draw(st.none() | bonds)
    listed = draw(st.lists(st.tuples(sizes, st.integers(1, 3)), min_size=1, max_size=3))
    return [(Request(cpu=size.cpu, gpu_count=size.gpu_count, bonds=mine), count) for size, count in listed]


@st.composite
def bonded(draw: st.DrawFn, mode: Mode) -> Snapshot:
    """Up to four nodes in two zones or none, on which something runs, and up to six jobs that mind each other."""
    rows = [
        row(number, gpu_free=[1000] * draw(st.sampled_from([0, 2])),
            labels=draw(st.sampled_from([{"zone": "a"}, {"zone": "b"}, {}])))
        for number in range(draw(st.integers(2, 4)))
    ]  # fmt: skip
    fleet = Fleet.build(rows)
    fleet.company = Company(fleet.domains)
    limits = {("default", name): Limit(10**15) for name in RESOURCES}
    tree, running = QuotaTree([Node(1, None, "q1", limits)], {}), []
    for number in range(draw(st.integers(0, 4))):
        groups = draw(bonded_groups())
        placed = place_gang(fleet, groups)
        if isinstance(placed, Placed):
            take_members(fleet, groups, placed.members)
            usage = {("default", name): amount for name, amount in totals(groups).items() if amount}
            tree.add(1, usage)
            end = NOW + draw(st.integers(1, 60))
            running.append(Running(f"r{number}", 1, end, usage, placed_at(groups, placed.members)))
    jobs = [
        candidate(job, 1, draw(bonded_groups()), priority=draw(st.integers(0, 1)), equivalence=None)
        for job in range(1, draw(st.integers(2, 6)) + 1)
    ]
    durations = {item.job: float(draw(st.integers(1, 80))) for item in jobs}
    return Snapshot(fleet, one_pool(fleet), tree, jobs, plan=Plan(mode=mode, running=running, durations=durations))


@pytest.mark.parametrize("mode", [Mode.EASY, Mode.CONSERVATIVE])
@given(data=st.data())
def test_a_reserved_start_never_moves_later_because_of_a_backfilled_job(mode: Mode, data: st.DataObject) -> None:
    """Whatever was let ahead of it, the first job with a reservation could still start then, by itself at once."""
    nobody_moves_the_first(data.draw(bonded(mode)))
