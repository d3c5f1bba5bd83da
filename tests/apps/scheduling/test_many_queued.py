"""More queued jobs than a cycle looks at: none is starved, and each is told why it waits."""

import random
from typing import Any

import pytest
from django.utils import timezone

from apps.core import loops
from apps.core.actors import SYSTEM
from apps.jobs import commands as jobs
from apps.jobs.commands import grants
from apps.jobs.models import Job
from apps.quotas.budgets import create_budget
from apps.scheduling import observe as observing
from apps.scheduling.models import Decision
from apps.scheduling.tasks import GRANTS_MAX
from engine.cycle import decide
from tests.apps.workflows.driver import bash, start
from tests.personas import World
from tests.work import cycle, fresh, granted, job_data, simulated_node, submit


@pytest.fixture
def crowded(world: World, monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """A window of ten, and twelve jobs of high priority that no node has room for now."""
    monkeypatch.setattr(observing, "CANDIDATES_MAX", 10)
    monkeypatch.setattr(observing, "ALIKE_MAX", 3)
    simulated_node(world, cpu=8000)
    granted(world)
    return [submit(world, cpu="8", priority=9) for _ in range(12)]


def test_a_window_of_jobs_that_cannot_start_does_not_starve_one_that_can(world: World, crowded: list[Job]) -> None:
    small = submit(world, cpu="1")
    other = submit(world, cpu="2", tenant=world.speech)
    cycle()
    assert (fresh(small).state, fresh(other).state) == ("granted", "granted")
    assert {fresh(job).state for job in crowded} == {"pending"}


def test_who_is_held_back_by_a_budget_does_not_hide_others_that_ask_for_the_same(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observing, "CANDIDATES_MAX", 8)
    monkeypatch.setattr(observing, "ALIKE_MAX", 3)
    simulated_node(world, cpu=8000)
    create_budget(actor=SYSTEM, user=world.users["member"], measure="running", amount=0)
    create_budget(actor=SYSTEM, tenant=world.vision, workflow="etl", measure="running", amount=0)
    held_back = [jobs.submit(actor=world.actor("member"), tenant=world.vision, data=job_data()) for _ in range(6)]
    run = start(world.vision, *(bash(name) for name in "abcdef"), name="etl")
    mine = jobs.submit(actor=world.actor("admin"), tenant=world.vision, data=job_data())
    other = start(world.vision, bash("a"), name="other")
    cycle()
    assert (fresh(mine).state, Job.objects.get(task__run=other).state) == ("granted", "granted")
    waiting = [*(fresh(job) for job in held_back), *Job.objects.filter(task__run=run)]
    assert {job.state for job in waiting} == {"pending"} and len(waiting) == 12


def test_jobs_beyond_the_window_are_told_why_they_wait(
    world: World, crowded: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    held, later = submit(world, cpu="8"), submit(world, cpu="8")
    Job.objects.filter(pk=held.pk).update(held=True, reason="held")
    Job.objects.filter(pk=later.pk).update(not_before="2100-01-01T00:00Z", reason="backoff")
    cycle()
    for job in crowded:
        found = fresh(job)
        assert (found.reason, bool(found.detail), bool(found.tried)) == ("waiting_for_capacity", True, True)
    assert Decision.objects.filter(outcome="pend", reason="waiting_for_capacity").count() == len(crowded)
    assert (fresh(held).reason, fresh(later).reason) == ("held", "backoff")
    cycle()
    assert Decision.objects.filter(outcome="pend").count() == len(crowded), "nothing new is nothing to record"

    monkeypatch.setattr(grants, "ALIKE_SLICE", 4)
    monkeypatch.setattr("apps.scheduling.apply.ALIKE_SLICE", 4)
    Job.objects.filter(pk__in=[job.pk for job in crowded]).update(reason="submitted")
    cycle()
    assert {fresh(job).reason for job in crowded} == {"waiting_for_capacity"}


def test_what_one_cycle_has_no_time_to_tell_the_next_one_does(
    world: World, crowded: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    monkeypatch.setattr(loops, "wake_at", lambda name, at: sent.append(name))
    monkeypatch.setattr(grants, "ALIKE_SLICE", 4)
    monkeypatch.setattr("apps.scheduling.apply.ALIKE_SLICE", 4)
    monkeypatch.setattr("apps.scheduling.apply.ALIKE_SECONDS", 0.0)  # One slice in each cycle.
    for untold in (5, 1, 0):
        cycle()
        assert sum(fresh(job).reason == "submitted" for job in crowded) == untold
    assert sent == ["schedule", "schedule"]


@pytest.mark.parametrize("seed", range(5))
def test_those_who_stand_for_all_get_what_all_would(world: World, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    chance = random.Random(seed)
    for number in range(3):
        simulated_node(world, f"sim-{number}", cpu=8000)
    for _ in range(60):
        tenant: Any = chance.choice([world.vision, world.speech])
        submit(world, cpu=chance.choice(["1", "2", "8"]), priority=chance.choice([0, 0, 1, 5]), tenant=tenant)
    limit = 5

    def decided(window: int) -> list[int]:
        monkeypatch.setattr(observing, "CANDIDATES_MAX", window)
        monkeypatch.setattr(observing, "ALIKE_MAX", limit)
        now = timezone.now()
        found = observing.observe(now)
        assert found is not None and found.partial == (window < 60)
        verdicts = decide(found.snapshot, now=now.timestamp(), limit=limit)
        return [verdict.job for verdict in verdicts if verdict.outcome == "grant"]

    assert decided(50) == decided(60)


def test_as_many_stand_for_the_rest_as_a_cycle_can_grant() -> None:
    assert observing.ALIKE_MAX >= GRANTS_MAX
