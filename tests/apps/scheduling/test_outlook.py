"""When a waiting job will start, by what, and what its place in the queue is made of."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from apps.core.actors import SYSTEM
from apps.jobs import commands as jobs
from apps.jobs.models import Job
from apps.quotas import commands as quotas
from apps.scheduling import calibration
from apps.scheduling import outlook as outlooks
from apps.scheduling.models import EstimatedStart
from apps.scheduling.queries import queued_now, why
from engine.calibration import SCALE
from tests.personas import World
from tests.work import cycle, fresh, members, pump, report, simulated_node, submit

from .test_backfill import run_through


def told(world: World, job: Any, persona: str = "member") -> Any:
    return why(world.actor(persona), job.pk)


def test_by_time_limits_alone_the_start_is_when_those_that_run_are_stopped(world: World, clock: Any) -> None:
    simulated_node(world, cpu=2000)
    first = submit(world, cpu="2", time_limit="100s")
    cycle()
    second, third = (submit(world, cpu="2", time_limit="100s") for _ in range(2))
    cycle()
    ends = members(first)[0].attempt.created_at + timedelta(seconds=100)
    found = told(world, second)
    assert found.outlook.p50 == found.outlook.p90 == pytest.approx(ends, abs=timedelta(seconds=1))
    assert found.reserved_at == pytest.approx(ends, abs=timedelta(seconds=1))
    assert found.outlook.run_basis == "by the time limit"
    assert "3 by their time limits" in found.outlook.basis
    behind = told(world, third)
    assert behind.outlook.p50 == pytest.approx(ends + timedelta(seconds=100), abs=timedelta(seconds=1))
    assert behind.reserved_at is None
    assert (found.position, behind.position) == (1, 2)


def test_by_earlier_runs_the_start_is_known_better(world: World, clock: Any) -> None:
    simulated_node(world, cpu=2000)
    run_through(world, clock, 60, 20, name="train", cpu="2", time_limit="1d")
    began = timezone.now()
    submit(world, "sleep 60", cpu="2", name="train", time_limit="1d")
    cycle()
    waiting = submit(world, "sleep 60", cpu="2", name="train", time_limit="1d")
    cycle()
    found = told(world, waiting).outlook
    assert found.run_basis == "by 20 runs of this job"
    assert found.run_time.p50 == pytest.approx(60, abs=1)
    assert found.p50 == pytest.approx(began + timedelta(seconds=60), abs=timedelta(seconds=2))
    assert "2 by earlier runs, 0 by their time limits" in found.basis


def test_the_terms_add_up_to_what_orders_the_queue(world: World, clock: Any) -> None:
    simulated_node(world, cpu=4000)
    submit(world, cpu="4", time_limit="1h")
    cycle()
    long = submit(world, cpu="4", time_limit="1d", priority=5)
    short = submit(world, cpu="4", time_limit="600s")
    cycle()
    assert told(world, long).position == 1
    clock(1800)
    answers = [told(world, job) for job in (long, short)]
    assert [answer.position for answer in answers] == [2, 1]
    for answer in answers:
        terms = answer.outlook.terms.as_dict()
        parts = terms["class"] + terms["priority"] + terms["ageing"] + terms["fair_share"]
        assert parts == pytest.approx(terms["total"], abs=0.005)
    shown = answers[1].outlook.terms.as_dict()
    assert (shown["priority"], shown["ageing"]) == (0.0, 20.0)  # 10 × log2(1 + 1800 ÷ 600)
    # A quarter of 16 cpu is used now and nothing of it in the past: 10 × (0.5 × 4 ÷ 16).
    assert shown["fair_share"] == pytest.approx(-1.25, abs=0.01)


def test_the_order_that_is_shown_is_the_one_that_decides(world: World, clock: Any) -> None:
    simulated_node(world, cpu=4000)
    first = submit(world, cpu="4", time_limit="1h")
    cycle()
    for limit in ("1d", "1h", "10m"):
        submit(world, cpu="4", time_limit=limit)
    cycle()
    clock(3000)
    order = queued_now().order
    for job in order:
        report(members(first)[0])
        cycle()
        first = Job.objects.get(pk=job)
        assert first.state == "granted"


def test_what_cannot_be_known_says_why(world: World, clock: Any, monkeypatch: Any) -> None:
    simulated_node(world, cpu=4000)
    held = submit(world, cpu="1")
    jobs.hold(actor=SYSTEM, job_id=held.pk)
    assert "on hold" in told(world, held).outlook.unknown
    submit(world, cpu="4", time_limit="1h")
    cycle()
    rows = [submit(world, cpu="4") for _ in range(3)]
    cycle()
    monkeypatch.setattr(outlooks, "FIRST", 2)
    outlooks.forget()
    assert told(world, rows[1]).outlook.p50 is not None
    assert told(world, rows[2]).outlook.unknown.startswith("2 jobs are looked at before it")
    quotas.set_limits(actor=SYSTEM, node_id=world.vision_quota.pk, limits=[])
    quotas.set_limits(actor=SYSTEM, node_id=world.speech_quota.pk, limits=[])
    cycle()
    outlooks.forget()
    assert "something has to be changed" in told(world, rows[0]).outlook.unknown


def test_an_estimate_serves_everybody_for_a_while(world: World, monkeypatch: Any) -> None:
    simulated_node(world, cpu=4000)
    submit(world, cpu="4")
    cycle()
    waiting = submit(world, cpu="4")
    cycle()
    made: list[datetime] = []
    make = outlooks._Task.make
    monkeypatch.setattr(outlooks._Task, "make", lambda task: made.append(task.now) or make(task))
    for _ in range(3):
        assert told(world, waiting).outlook.p50 is not None
    assert len(made) == 1
    # A job that it does not know yet is worth another one.
    another = submit(world, cpu="4")
    cycle()
    assert told(world, another).outlook.p50 is not None
    assert len(made) == 2


def test_a_costly_estimate_is_made_behind_the_back_of_who_asks(world: World, monkeypatch: Any) -> None:
    simulated_node(world, cpu=4000)
    submit(world, cpu="4")
    cycle()
    waiting = submit(world, cpu="4")
    cycle()
    outlooks._desk.cost = 2 * outlooks.PATIENCE_SECONDS
    started: list[Any] = []

    class Thread:
        def __init__(self, target: Any, args: Any, **_: Any) -> None:
            self.run = lambda: target(*args)

        def start(self) -> None:
            started.append(self.run)

    monkeypatch.setattr(outlooks.threading, "Thread", Thread)
    assert "being estimated" in told(world, waiting).outlook.unknown
    assert "being estimated" in told(world, waiting).outlook.unknown
    (run,) = started
    run()
    assert told(world, waiting).outlook.p50 is not None


def test_the_api_says_it_in_numbers(world: World, api: Any) -> None:
    simulated_node(world, cpu=4000)
    running = submit(world, cpu="4")
    cycle()
    waiting = submit(world, cpu="4", priority=3)
    cycle()
    body = api.member.get(f"jobs/{waiting.pk}/why").json()
    order = body["order"]
    assert order["total"] == pytest.approx(order["priority"] + order["ageing"] + order["fair_share"], abs=0.005)
    assert order["priority"] == 3.0
    assert body["run_time"] == {"p50_seconds": 3600.0, "p90_seconds": 3600.0, "basis": "by the time limit"}
    assert body["start"]["p50"] and body["start"]["reserved_at"] and not body["start"]["unknown"]
    assert body["decisions"][0]["reserved_at"] == body["start"]["reserved_at"]
    assert api.stranger.get(f"jobs/{waiting.pk}/why").status_code == 404
    pump()
    body = api.member.get(f"jobs/{running.pk}/why").json()
    assert (fresh(running).state, body["start"], body["order"]) == ("running", None, None)


def test_estimates_learn_from_what_came_of_the_earlier_ones(world: World, clock: Any) -> None:
    """Twelve jobs wait behind one that should have ended after 100 s and is only told to have after 3,000: they all
    start much later than was estimated, so the next estimate is later than its limit says."""
    simulated_node(world, cpu=2000)
    blocker = submit(world, cpu="2", time_limit="100s")
    cycle()
    waiting = [submit(world, cpu="0.1", time_limit="100s") for _ in range(12)]
    cycle()
    outlooks.note(timezone.now())
    outlooks.note(timezone.now())
    kept = EstimatedStart.objects.order_by("job_id")
    assert [row.job_id for row in kept] == [job.pk for job in waiting]
    assert all(row.p90 == row.told_p90 for row in kept)
    assert told(world, waiting[0]).outlook.basis.endswith("by their time limits")

    clock(3000)
    report(members(blocker)[0])
    cycle()
    assert {fresh(job).state for job in waiting} == {"granted"}
    for job in waiting:
        report(members(job)[0])
    long = submit(world, cpu="2", time_limit="100s")
    cycle()
    later = submit(world, cpu="2", time_limit="100s")
    cycle()
    outlooks.forget()
    found = told(world, later).outlook
    ends = members(long)[0].attempt.created_at + timedelta(seconds=100)
    late = timedelta(seconds=(3000 + SCALE) / (100 + SCALE) * (100 + SCALE) - SCALE)
    assert found.p90 - ends + timedelta(seconds=100) == pytest.approx(late, abs=timedelta(seconds=60))
    assert "of 12 earlier estimates 0 % had started by the first time and 0 % by the second" in found.basis
    outlooks.note(timezone.now())
    row = EstimatedStart.objects.get(job=later)
    assert row.told_p90 - row.p90 > timedelta(seconds=2500)


def test_what_was_never_started_counts_as_waited_so_long(world: World, clock: Any) -> None:
    simulated_node(world, cpu=2000)
    submit(world, cpu="2", time_limit="100s")
    cycle()
    waiting = [submit(world, cpu="0.1", time_limit="100s") for _ in range(3)]
    cycle()
    outlooks.note(timezone.now())
    jobs.cancel(actor=SYSTEM, job_id=waiting[0].pk)
    clock(5000)
    found = calibration.learnt(timezone.now())
    assert (found.stretch.samples, found.judged, found.by_p90) == (0, 2, 0.0)
