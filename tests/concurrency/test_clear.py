"""A clear against the advance loop, against the end of a run, and against another clear: one order comes out."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

import pytest
from django.db import connections, transaction
from django.utils import timezone

from apps.core.actors import SYSTEM
from apps.core.errors import Conflict
from apps.events.models import Event
from apps.jobs.models import Job
from apps.workflows import commands
from apps.workflows.clearing import Choice
from apps.workflows.commands import backfills as module
from apps.workflows.models import Run, Task, TaskTry
from tests.apps.workflows.driver import bash, definition, end, finish, start, states, step
from tests.personas import World, make_world

ROUNDS = 8


@pytest.fixture
def shared_world(transactional_db: None, redis_empty: None) -> World:
    return make_world()


def together(*calls: Callable[[], object]) -> list[str]:
    """Make the calls in threads of their own that begin together; the codes of those refused."""
    refused: list[str] = []
    faults: list[BaseException] = []
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], object]) -> None:
        barrier.wait()
        try:
            call()
        except Conflict as error:
            refused.append(error.code)
        except BaseException as error:
            faults.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=[call]) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults, faults
    return refused


def clear(run: Run, *tasks: str) -> None:
    commands.clear(actor=SYSTEM, run_id=run.pk, choice=Choice(tasks))


@pytest.mark.parametrize("outcome", ["succeeded", "failed"])
def test_a_clear_while_the_run_ends(shared_world: World, outcome: str) -> None:
    """Either the run ends and is queued again, or the task is cleared before and the run goes on: never a run that
    has ended with a task that waits, and never an end by the former job."""
    for number in range(ROUNDS):
        run = start(shared_world.vision, bash("a"), bash("b", "a"), name=f"w{number}")
        end(run, "a")
        step()
        end(run, "b", outcome)
        assert not together(step, partial(clear, run, "b"))
        run.refresh_from_db()
        now = states(run)
        assert now["a"] == "succeeded"
        assert (run.state, now["b"]) in {("queued", "waiting"), ("running", "queued")}
        assert Job.objects.filter(task__run=run, task__name="b", state=outcome).count() == 0
        assert list(TaskTry.objects.filter(run=run, name="b").values_list("number", flat=True)) == [1]
        assert finish(run) == "succeeded"


def test_a_clear_waits_for_the_pass_that_holds_the_run_and_then_sees_what_it_did(shared_world: World) -> None:
    run = start(shared_world.vision, bash("a"), bash("b", "a"))
    end(run, "a")
    held, cleared = threading.Event(), threading.Event()

    def pass_of_the_loop() -> None:
        with transaction.atomic():
            Run.objects.select_for_update().get(pk=run.pk)
            held.set()
            assert not cleared.wait(timeout=0.3)
            step()

    def person() -> None:
        assert held.wait(timeout=5)
        clear(run, "a")
        cleared.set()

    assert not together(pass_of_the_loop, person)
    # The pass had started b, which is behind a: both are cleared.
    assert states(run) == {"a": "queued", "b": "waiting"}
    assert sorted(TaskTry.objects.values_list("name", "state")) == [("a", "succeeded"), ("b", "cancelled")]
    assert finish(run) == "succeeded"


def test_a_pass_leaves_a_run_alone_that_somebody_clears(shared_world: World) -> None:
    run = start(shared_world.vision, bash("a"), bash("b", "a"))
    end(run, "a")
    held, passed = threading.Event(), threading.Event()

    def person() -> None:
        with transaction.atomic():
            clear(run, "a")
            held.set()
            assert passed.wait(timeout=5)

    def loop() -> None:
        assert held.wait(timeout=5)
        step()
        passed.set()

    assert not together(person, loop)
    assert states(run) == {"a": "queued", "b": "waiting"}
    assert finish(run) == "succeeded"


def test_two_clears_are_one_after_the_other(shared_world: World) -> None:
    run = start(shared_world.vision, bash("a"), bash("b", "a"))
    assert finish(run) == "succeeded"
    refused = together(*[partial(clear, run)] * 4)
    # The first turns everything back; the others find nothing that has started.
    assert refused == ["nothing_to_clear"] * 3
    assert sorted(TaskTry.objects.values_list("name", "number")) == [("a", 1), ("b", 1)]
    assert Event.objects.filter(verb="run.reopened").count() == 1
    assert finish(run) == "succeeded"


def test_a_clear_and_a_cancel(shared_world: World) -> None:
    for number in range(ROUNDS):
        run = start(shared_world.vision, bash("a"), bash("b", "a"), name=f"w{number}")
        end(run, "a")
        step()
        together(partial(clear, run, "a"), partial(commands.cancel_run, actor=SYSTEM, run_id=run.pk))
        run.refresh_from_db()
        now = set(states(run).values())
        # Cancelled first, it is queued again by the clear; cleared first, everything of it is cancelled.
        assert (run.state == "cancelled" and now == {"cancelled"}) or (run.state == "queued" and now == {"waiting"})
        assert not Task.objects.filter(run=run, job__state="pending").exists()


def test_many_passes_make_one_run_for_each_time(shared_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STEP", 3)
    monkeypatch.setattr(module, "AHEAD_MIN", 100)
    spec = definition(bash("a"), schedule="@daily")
    workflow = commands.push(actor=SYSTEM, tenant=shared_world.vision, definition=spec).workflow
    first, last = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 3, 1, tzinfo=UTC)
    found = commands.create_backfill(actor=SYSTEM, workflow_id=workflow.pk, first=first, last=last).backfill
    assert found.runs.count() == 3

    def passes() -> None:
        for _ in range(60):
            commands.advance_backfills(timezone.now())

    assert not together(*[passes] * 4)
    found.refresh_from_db()
    times = list(found.runs.values_list("logical_time", flat=True))
    assert len(times) == len(set(times)) == found.made == found.position == 60


def test_a_rerun_and_clears_of_the_same_runs(shared_world: World) -> None:
    spec = definition(bash("a"), schedule="@daily")
    workflow = commands.push(actor=SYSTEM, tenant=shared_world.vision, definition=spec).workflow
    first, last = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 4, tzinfo=UTC)
    found = commands.create_backfill(actor=SYSTEM, workflow_id=workflow.pk, first=first, last=last).backfill
    step()
    for run in found.runs.all():
        assert finish(run, lambda task: ("failed", None)) == "failed"
    commands.advance_backfills(timezone.now())
    runs = list(found.runs.order_by("-pk"))
    rerun = partial(commands.rerun_backfill, actor=SYSTEM, backfill_id=found.pk)
    refused = together(rerun, *[partial(clear, run) for run in runs])
    assert set(refused) <= {"nothing_to_clear", "nothing_failed"}
    found.refresh_from_db()
    assert found.state == "running"
    assert set(found.runs.values_list("state", flat=True)) == {"queued"}
    assert TaskTry.objects.count() == len(runs)
