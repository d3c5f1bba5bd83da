"""Budgets over virtual time: what is left, and when those who wait for the next period start."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.budgets import MONEY, Curve, Limit, Spending
from engine.fleet import Request
from engine.placement import take_members
from engine.simulate import Change, Job, QueuePolicy, Started
from engine.snapshot import charge_of
from tests.engine.test_simulate import fleet_of, job, simulation, spans
from tests.engine.worlds import wide_tree

HOUR = 3600.0
DAY = 24 * HOUR


def end_of_day(at: float) -> float:
    return (at // DAY + 1) * DAY


def hours(amount: float, used: float = 0.0, key: int = 7) -> Limit:
    return Limit(key, "tenant vision", amount, "gpu", "GPU-hours", "day", used, end_of_day)


def counted(number: int, at: float, seconds: float, *budgets: int, cards: int = 1) -> Job:
    """A job that counts against these budgets."""
    made = job(number, at, seconds, Request(cpu=100, gpu_count=cards))
    return replace(made, candidate=replace(made.candidate, budgets=budgets))


def test_use_is_added_by_the_hour_and_a_new_period_begins_with_nothing() -> None:
    spending = Spending([hours(10, used=4)], 0.0)
    held = {("default", "gpu"): 2000, ("default", "cpu"): 64_000}
    spending.begin([7, 8], held, HOUR)
    assert spending.allowances(3.9 * HOUR) == {} and spending.next_period(3.9 * HOUR) is None
    allowance = spending.allowances(4 * HOUR)[7]
    assert allowance.starts == 0
    assert allowance.detail == (
        "the budget of tenant vision is used up: 10.00 of 10 GPU-hours this day; the next begins 1970-01-02 00:00 UTC."
    )
    assert spending.next_period(4 * HOUR) == DAY
    # 2 cards over midnight: what they used before it belongs to the day before.
    assert spending.allowances(DAY + 4.9 * HOUR) == {} and spending.allowances(DAY + 5 * HOUR).keys() == {7}
    spending.end([7], held, DAY + 6 * HOUR)
    assert spending.allowances(3 * DAY) == {}


def test_only_so_many_run_at_once() -> None:
    limit = Limit(7, "person max", 2)
    jobs = [*(counted(number, 0.0, 100.0, 7) for number in (1, 2, 3)), counted(4, 0.0, 100.0)]
    made = simulation(fleet_of(8), jobs, limits=[limit])
    assert {number: span[0][0] for number, span in spans(made).items()} == {1: 0.0, 2: 0.0, 3: 100.0, 4: 0.0}


def test_who_waits_for_the_next_period_starts_when_it_begins() -> None:
    jobs = [counted(1, 0.0, 5 * HOUR, 7), counted(2, 1.0, HOUR, 7), counted(3, 6 * HOUR, HOUR, 7)]
    made = simulation(fleet_of(1), jobs, limits=[hours(5)])
    starts = {number: span[0][0] for number, span in spans(made).items()}
    assert starts == {1: 0.0, 2: DAY, 3: DAY + HOUR}
    assert made.records[3].verdict is not None


def test_a_job_that_is_stopped_gives_its_place_back() -> None:
    limit = Limit(7, "tenant vision", 1)
    jobs = [counted(1, 0.0, 100.0, 7), counted(2, 1.0, 100.0, 7)]
    made = simulation(
        fleet_of(1, 1), jobs, QueuePolicy(order=None), limits=[limit], changes=[Change(50.0, cancelled=frozenset({1}))]
    )
    assert spans(made) == {1: [(0.0, 50.0, "cancelled")], 2: [(50.0, 150.0, "done")]}


@pytest.mark.parametrize("amount", [0.0, 1.0])
def test_a_simulation_with_a_budget_ends(amount: float) -> None:
    """Who may never start does not keep it going from period to period."""
    made = simulation(fleet_of(1), [counted(1, 0.0, HOUR, 7)], limits=[hours(amount, used=1.0)])
    found = spans(made)
    assert found == ({1: []} if amount == 0.0 else {1: [(DAY, DAY + HOUR, "done")]})


def window(amount: float, hours: float, *past: tuple[float, float, float]) -> Limit:
    used = sum(part for _, _, part in past)
    return Limit(7, "tenant vision", amount, "gpu", "GPU-hours", "4h", used, window=hours * HOUR, past=past)


def test_a_window_moves_over_what_was_used() -> None:
    curve = Curve([(0.0, HOUR, 4.0), (HOUR, 3 * HOUR, 2.0)], 4 * HOUR)
    assert [curve.since(at * HOUR) for at in (-1, 0, 0.5, 1, 2, 3, 4)] == [6.0, 6.0, 4.0, 2.0, 1.0, 0.0, 0.0]
    # Four hours hold all 6 at first; after half an hour 2 of them have left.
    assert curve.crosses(4.0, 4 * HOUR, 0.0, upwards=False) == pytest.approx(4.5 * HOUR)
    # As much comes as leaves: after the first hour it grows again, by one an hour less a half.
    assert curve.crosses(6.0, 4 * HOUR, 4.0 / HOUR, upwards=False) is None
    assert curve.crosses(7.0, 4 * HOUR, 8.0 / HOUR, upwards=True) == pytest.approx(4.25 * HOUR)
    assert curve.crosses(40.0, 4 * HOUR, 8.0 / HOUR, upwards=True) is None


@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(1, 10), st.floats(0, 100)), max_size=8),
    st.integers(1, 40), st.floats(0, 120),
)  # fmt: skip
def test_a_curve_is_the_sum_of_its_slices(
    parts: list[tuple[int, int, float]], length: int, ahead: float
) -> None:
    slices = [(float(start), float(start + long), amount) for start, long, amount in parts]
    now = 61.0
    curve = Curve(slices, now)
    since = now - length
    expected = sum(
        amount * max(0.0, end - max(start, since)) / (end - start) for start, end, amount in slices
    )
    assert curve.since(since) == pytest.approx(expected, abs=1e-6)
    curve.add(ahead, now + 5)
    assert curve.since(now) == pytest.approx(ahead, abs=1e-6)


def test_who_waits_for_a_window_starts_when_enough_has_left_it() -> None:
    jobs = [counted(1, 0.0, 2 * HOUR, 7), counted(2, 1.0, HOUR, 7), counted(3, 2.0, HOUR, 7)]
    made = simulation(fleet_of(1), jobs, limits=[window(2.0, 4)])
    starts = {number: span[0][0] for number, span in spans(made).items()}
    assert starts[1] == 0.0 and starts[2] == pytest.approx(4 * HOUR, abs=1.1)
    # The second begins as soon as a little is free; what it uses takes the place of what leaves.
    assert starts[3] == pytest.approx(5 * HOUR, abs=1.1)
    assert made.records[2].finished and made.records[3].finished


def test_what_jobs_cost_is_that_of_their_nodes() -> None:
    limit = Limit(7, "tenant vision", 3.0, MONEY, "of cost", "day", 0.0, end_of_day)
    fleet = fleet_of(1)
    fleet = replace(fleet, price_gpu=fleet.price_gpu + 1.5)
    made = simulation(fleet, [counted(1, 0.0, 2 * HOUR, 7), counted(2, 1.0, HOUR, 7)], limits=[limit])
    assert {number: span[0][0] for number, span in spans(made).items()} == {1: 0.0, 2: DAY}


def test_an_evicted_job_goes_on_from_its_checkpoint() -> None:
    """Of 100 s that it had run, 80 were saved when its node was lost; 920 s of 1,000 are left."""
    running = counted(1, 0.0, 1000.0)
    for saved, left in ((80.0, 920.0), (None, 1000.0)):
        fleet = fleet_of(1, 1)
        member = (0, 0, 0, (0,))
        take_members(fleet, running.candidate.groups, (member,))
        held = Started(running, 0.0, "default", (member,), saved)
        tree = wide_tree(2)
        tree.add(running.candidate.queue, charge_of(running.candidate, "default"))
        changes = [Change(100.0, lost=frozenset({0}))]
        made = simulation(fleet, [], started=[held], tree=tree, changes=changes)
        assert spans(made)[1] == [(0.0, 100.0, "lost"), (100.0, 100.0 + left, "done")]
