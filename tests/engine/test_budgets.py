"""Budgets over virtual time: what is left, and when those who wait for the next period start."""

from dataclasses import replace

import pytest

from engine.budgets import Limit, Spending
from engine.fleet import Request
from engine.simulate import Change, Job, QueuePolicy
from tests.engine.test_simulate import fleet_of, job, simulation, spans

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
