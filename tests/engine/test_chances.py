"""Decisions are left out of a simulation only where they would have changed nothing."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.backfill import Mode
from engine.fleet import Request
from engine.simulate import Job, QueuePolicy, Simulation
from engine.snapshot import Candidate

from .test_simulate import arrivals, cards, fleet_of, job, requests, simulation
from .worlds import candidate


def ended(made: Simulation) -> list[object]:
    """What became of all jobs, and what those that still wait are told."""
    records = made.run(150.0).values()
    return [
        (one.job, one.spans, one.started, one.nodes, one.verdict[:5] if one.verdict and one.job in made.waiting else ())
        for one in records
    ]


@pytest.mark.parametrize("mode", list(Mode))
@settings(max_examples=20)
@given(
    asked=arrivals,
    gangs=st.lists(st.tuples(requests, st.integers(1, 2)), min_size=2, max_size=3),
    limit=st.booleans(),
)
def test_a_simulation_that_leaves_decisions_out_ends_as_one_that_decides_always(
    mode: Mode, asked: list[tuple[int, int, Request, int, int]], gangs: list[tuple[Request, int]], limit: bool
) -> None:
    """With somebody who watches every pass is made."""
    jobs = [
        job(number, at, seconds, request, queue=queue, priority=priority)
        for number, (at, seconds, request, queue, priority) in enumerate(asked, 1)
    ]
    gang: Candidate = candidate(99, 1, gangs, submitted=20.0)
    jobs.append(Job(gang, 40.0, 1e6, estimate=jobs[0].estimate))
    if limit:  # Runs that outlive their estimate are expected to end later and later.
        jobs = [replace(item, seconds=3 * item.seconds, limit=2.5 * item.seconds) for item in jobs]
    policy = QueuePolicy(mode, order=None)
    always = simulation(fleet_of(4, 2), jobs, policy, watch=lambda made, verdicts: None)
    assert ended(simulation(fleet_of(4, 2), jobs, policy)) == ended(always)


def test_moments_at_which_nobody_could_start_are_not_decided() -> None:
    """Two hold a card each, four that need both cards wait: the end of one of the two is no reason to decide."""
    jobs = [job(1, 0, 10, cards(1)), job(2, 0, 20, cards(1)), *(job(number, 1, 5, cards(2)) for number in range(3, 7))]
    made = simulation(fleet_of(2), jobs)
    found = made.run()
    assert [found[number].first_start for number in range(3, 7)] == [20.0, 25.0, 30.0, 35.0]
    assert made.decisions == 5
