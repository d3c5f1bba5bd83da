"""Clearing and marking tasks that wait without a job, that decide the way, and that set up."""

import pytest

from apps.workflows.models import Approval, Run, Task, Wait
from tests.apps.workflows.driver import bash, empty, end, finish, look, start, states, step
from tests.apps.workflows.test_approvals import answer, ask
from tests.apps.workflows.test_clear import clear, mark
from tests.apps.workflows.test_waits import later, wait
from tests.apps.workflows.test_ways import SETUP, branch
from tests.personas import World

pytestmark = pytest.mark.django_db

PAUSE = wait("pause", "wait_for", arguments={"duration": {"value": "10m"}})


def test_a_wait_that_is_cleared_begins_anew(world: World) -> None:
    run = start(world.vision, PAUSE, bash("b", "pause"))
    later(300)
    before = Wait.objects.get().due_at
    clear(run, "pause")
    assert states(run) == {"pause": "deferred", "b": "waiting"}
    after = Wait.objects.get().due_at
    assert before is not None and after is not None and (after - before).total_seconds() > 290
    assert list(run.tries.values_list("name", "state")) == [("pause", "cancelled")]


def test_a_wait_that_is_marked_is_over(world: World) -> None:
    run = start(world.vision, PAUSE, bash("b", "pause"))
    mark(run, "succeeded", "pause")
    assert states(run) == {"pause": "succeeded", "b": "queued"}
    assert not Wait.objects.exists()
    later(600)
    look()
    assert states(run) == {"pause": "succeeded", "b": "queued"}


def test_a_question_that_is_cleared_is_asked_again(world: World) -> None:
    run = start(world.vision, ask(roles=["member"]), bash("b", "ask"))
    clear(run, "ask")
    assert list(Approval.objects.order_by("pk").values_list("state", flat=True)) == ["closed", "open"]
    answer(world, run)
    look()
    assert states(run) == {"ask": "succeeded", "b": "queued"}
    clear(run, "ask")
    assert states(run)["ask"] == "deferred", "an answer of before does not count"


def test_a_rejection_holds_for_what_is_cleared_behind_it(world: World) -> None:
    run = start(world.vision, ask(roles=["member"]), bash("b", "ask"), bash("c", "b", trigger_rule="all_done"))
    answer(world, run, "reject")
    look()
    assert finish(run) == "succeeded"
    clear(run, "b")
    assert finish(run) == "succeeded"
    assert states(run) == {"ask": "succeeded", "b": "skipped", "c": "skipped"}
    assert Task.objects.get(run=run, name="b").detail == "ask: reject."
    clear(run, "ask")
    step()
    answer(world, run)
    look()
    assert states(run) == {"ask": "succeeded", "b": "queued", "c": "waiting"}


def test_a_run_that_a_cleared_task_waits_for_is_cancelled(world: World) -> None:
    start(world.vision, bash("a"), name="child")
    Run.objects.all().delete()
    go = wait("go", "trigger_run", trigger_run={"workflow": "child", "wait": True})
    run = start(world.vision, go, bash("b", "go"), name="parent")
    child = Run.objects.get(workflow__name="child")
    clear(run, "go")
    child.refresh_from_db()
    assert child.state == "cancelled"
    assert Run.objects.filter(workflow__name="child", state="queued").count() == 1
    assert states(run)["go"] == "deferred"


def test_what_a_branch_left_out_stays_left_out(world: World) -> None:
    join = empty("join", "pick", "b", "c", trigger_rule="none_failed_min_one_success")
    run = start(world.vision, branch("pick"), bash("b", "pick"), bash("c", "pick"), join)
    end(run, "pick", result="b")
    step()
    assert finish(run) == "succeeded"
    clear(run, "c")
    assert finish(run) == "succeeded"
    assert states(run) == {"pick": "succeeded", "b": "succeeded", "c": "skipped", "join": "succeeded"}
    clear(run, "pick")
    step()
    end(run, "pick", result="c")
    step()
    assert states(run) == {"pick": "succeeded", "b": "skipped", "c": "queued", "join": "waiting"}


def test_work_that_is_cleared_waits_for_its_setup(world: World) -> None:
    run = start(world.vision, *SETUP)
    assert finish(run) == "succeeded"
    clear(run, "make")
    step()
    assert states(run) == {"make": "queued", "work": "waiting", "clean": "waiting"}
    end(run, "make", "failed")
    step()
    assert states(run) == {"make": "failed", "work": "upstream_failed", "clean": "upstream_failed"}
    clear(run, "work", downstream=False)
    step()
    assert states(run)["work"] == "upstream_failed", "its setup has failed"
