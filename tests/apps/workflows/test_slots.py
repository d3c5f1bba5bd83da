"""Limits over runs: slot pools, tasks and workflows over all of their runs, and who goes first."""

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from apps.core.actors import SYSTEM
from apps.core.errors import Conflict, Forbidden, Invalid
from apps.execution.models import Bundle
from apps.jobs.models import Job
from apps.workflows import claims, commands, path_history
from apps.workflows.clearing import Choice
from apps.workflows.giving import apply
from apps.workflows.models import PathHistory, Run, SlotClaim, SlotPool, Task
from apps.workflows.observe import observe
from apps.workflows.slot_queries import claims_of, list_slot_pools, say_why
from tests.apps.workflows.driver import bash, definition, empty, end, finish, look, start, states, step
from tests.apps.workflows.test_waits import later
from tests.personas import World

pytestmark = pytest.mark.django_db


def pool(world: World, size: int = 1, name: str = "warehouse") -> SlotPool:
    return commands.create_slot_pool(actor=SYSTEM, tenant=world.vision, name=name, size=size)


def resize(found: SlotPool, size: int) -> None:
    commands.change_slot_pool(actor=SYSTEM, pool_id=found.pk, size=size)
    # What the hint does.
    observed = claims.give_out([found.tenant_id])
    assert set(observed) == set(SlotClaim.objects.filter(held=True, task__state="waiting").values_list("pk", flat=True))
    step(review=True)


def slots(count: int = 1, name: str = "warehouse") -> dict[str, Any]:
    return {"slots": {"name": name, "count": count}}


def again(run: Run) -> Run:
    """Another run of the same workflow."""
    made = commands.trigger(actor=SYSTEM, workflow_id=run.workflow_id)
    step()
    return made


def held() -> int:
    return sum(SlotClaim.objects.filter(held=True).values_list("count", flat=True))


def test_a_task_that_waits_for_a_slot_has_no_job_and_goes_on_when_one_is_free(world: World) -> None:
    pool(world)
    run = start(world.vision, bash("a", **slots()), bash("b", **slots()), bash("c"))
    assert states(run) == {"a": "queued", "b": "waiting", "c": "queued"}
    found = Task.objects.get(run=run, name="b")
    assert found.job is None and found.detail == "Waits for a slot of warehouse."
    end(run, "c")
    step()
    assert states(run)["b"] == "waiting"
    end(run, "a")
    step()
    assert states(run) == {"a": "succeeded", "b": "queued", "c": "succeeded"}
    found.refresh_from_db()
    assert found.detail == ""
    end(run, "b")
    step()
    assert states(run)["b"] == "succeeded" and not SlotClaim.objects.exists()
    run.refresh_from_db()
    assert run.state == "succeeded"


def test_a_failed_or_cancelled_task_lets_go_like_any_other(world: World) -> None:
    pool(world)
    run = start(world.vision, *(bash(name, **slots()) for name in "abc"))
    end(run, "a", "failed")
    step()
    assert states(run)["b"] == "queued"
    end(run, "b", "cancelled")
    step()
    assert states(run)["c"] == "queued" and held() == 1


def test_slots_are_shared_by_the_workflows_of_a_tenant_and_the_older_run_goes_first(world: World) -> None:
    pool(world)
    first = start(world.vision, bash("a", **slots()), name="one")
    second = start(world.vision, bash("a", **slots()), name="two")
    third = start(world.vision, bash("a", **slots()), name="three")
    assert [states(run)["a"] for run in (first, second, third)] == ["queued", "waiting", "waiting"]
    end(first, "a")
    step()
    assert [states(run)["a"] for run in (first, second, third)] == ["succeeded", "queued", "waiting"]


def test_the_heavier_task_goes_first(world: World) -> None:
    pool(world)
    first = start(world.vision, bash("busy", **slots()), name="busy")
    light = start(world.vision, bash("a", weight=5, weight_rule="absolute", **slots()), name="light")
    heavy = start(world.vision, bash("a", weight=6, weight_rule="absolute", **slots()), name="heavy")
    end(first, "busy")
    step()
    assert (states(light)["a"], states(heavy)["a"]) == ("waiting", "queued")


def test_a_task_that_wants_many_slots_is_not_overtaken_for_ever(world: World) -> None:
    pool(world, 3)
    small = start(world.vision, bash("a", **slots()), name="small", max_active_runs=100)
    runs = [small, again(small), again(small)]
    large = start(world.vision, bash("a", **slots(3)), name="large")
    for _ in range(3):
        runs.append(again(small))
        end(runs.pop(0), "a")
        step()
    assert states(large)["a"] == "queued" and {states(run)["a"] for run in runs} == {"waiting"}
    end(large, "a")
    step()
    assert {states(run)["a"] for run in runs} == {"queued"}


def test_each_instance_of_a_mapped_task_takes_slots(world: World) -> None:
    pool(world, 4)
    over = {"over": {"n": {"value": list(range(5))}}}
    run = start(world.vision, bash("m", map=over, **slots(2)), bash("z", "m"))
    assert sorted(state for name, state in states(run).items() if name.startswith("m[")) == [
        *["queued"] * 2, *["waiting"] * 3,
    ]  # fmt: skip
    assert finish(run, lambda task: ("succeeded", None)) == "succeeded"
    assert not SlotClaim.objects.exists()


def test_a_pool_of_size_zero_stops_its_tasks_and_a_larger_one_lets_them_go(world: World) -> None:
    found = pool(world, 0)
    run = start(world.vision, bash("a", **slots(2)))
    step(review=True)
    assert states(run)["a"] == "waiting"
    resize(found, 1)
    assert states(run)["a"] == "waiting"
    resize(found, 2)
    assert states(run)["a"] == "queued"
    resize(found, 0)
    assert states(run)["a"] == "queued" and held() == 2


def test_a_push_that_wants_a_pool_that_is_not_there_or_too_small_is_refused(world: World) -> None:
    pool(world, 2)
    wanted = definition(bash("a", **slots(3)), bash("b", **slots(1, "warehous")), bash("c", **slots(2)))
    with pytest.raises(Invalid) as refused:
        commands.push(actor=SYSTEM, tenant=world.vision, definition=wanted)
    assert [(error["field"], error["code"]) for error in refused.value.errors] == [
        ("tasks[0].slots.count", "too_many_slots"),
        ("tasks[1].slots.name", "unknown_slot_pool"),
    ]
    assert "Did you mean warehouse?" in refused.value.errors[1]["message"]
    with pytest.raises(Invalid, match="has no job and takes no place: remove slots"):
        commands.push(actor=SYSTEM, tenant=world.vision, definition=definition(empty("a", **slots())))


def test_a_task_runs_at_most_so_often_over_all_runs_and_in_one(world: World) -> None:
    over = {"over": {"n": {"value": [1, 2, 3]}}}
    mapped = bash("m", map=over, max_active=3, max_active_per_run=2)
    first = start(world.vision, mapped, bash("free"))
    second = again(first)

    def queued(run: Run) -> int:
        return Task.objects.filter(run=run, index__gte=0, state="queued").count()

    assert (queued(first), queued(second)) == (2, 1)
    assert states(second)["free"] == "queued"
    end(first, "m", index=0)
    step()
    # The older run first.
    assert (queued(first), queued(second)) == (2, 1)
    end(first, "m", index=1)
    step()
    assert (queued(first), queued(second)) == (1, 2)
    assert finish(first) == finish(second) == "succeeded"


def test_a_workflow_runs_at_most_so_many_tasks_over_all_runs(world: World) -> None:
    first = start(world.vision, bash("a"), bash("b"), empty("c"), max_active_tasks_all_runs=3)
    second = again(first)
    assert states(second) == {"a": "queued", "b": "waiting", "c": "succeeded"}
    end(first, "a")
    step()
    assert states(second)["b"] == "queued"


def test_the_current_version_says_what_the_limits_are(world: World) -> None:
    first = start(world.vision, bash("a", max_active=1))
    second = again(first)
    assert states(second)["a"] == "waiting"
    commands.push(actor=SYSTEM, tenant=world.vision, definition=definition(bash("a", max_active=2)))
    step(review=True)
    assert states(second)["a"] == "queued"


def test_a_run_asks_for_no_more_than_its_own_limit_lets_start(world: World) -> None:
    pool(world, 10)
    run = start(world.vision, *(bash(name, **slots()) for name in "abcd"), max_active_tasks=2)
    assert list(states(run).values()).count("queued") == 2 and held() == 2
    assert finish(run) == "succeeded"


def test_instances_that_a_review_finds_beside_their_places_start_once(world: World) -> None:
    found = pool(world, 0)
    over = {"over": {"n": {"value": [1, 2, 3, 4]}}}
    run = start(world.vision, bash("m", map=over, **slots()), max_active_tasks=2)
    SlotPool.objects.filter(pk=found.pk).update(size=3)
    given = claims.give_out([world.vision.pk])
    assert len(given) == 2
    moved_on = observe(search=True, review=True)
    moved_on.work[run.pk].review = True
    assert len(moved_on.work[run.pk].granted) == 2
    apply(moved_on, timezone.now())
    assert Job.objects.filter(name__startswith="etl.").count() == 2
    assert finish(run) == "succeeded" and Job.objects.filter(name__startswith="etl.").count() == 4


def test_tasks_of_one_run_start_by_weight_within_its_limit(world: World) -> None:
    tasks = [bash("a"), bash("b", weight=9), bash("c", weight=3)]
    run = start(world.vision, *tasks, max_active_tasks=1, weight_rule="absolute")
    assert states(run) == {"a": "waiting", "b": "queued", "c": "waiting"}
    end(run, "b")
    step()
    assert states(run)["c"] == "queued"


def test_jobs_of_one_pass_are_made_in_the_order_of_their_weights(world: World) -> None:
    """Downstream: what most depends on goes first."""
    run = start(world.vision, bash("a"), bash("b"), bash("c", "b"), bash("d", "c"), weight_rule="downstream")
    jobs = Job.objects.filter(task__run=run).order_by("pk").values_list("name", flat=True)
    assert [name.split(".")[1] for name in jobs] == ["b", "a"]


def sensor(name: str, **fields: Any) -> dict[str, Any]:
    return {"id": name, "kind": "python", "file": "flow.py", "function": "look", "poke": {"interval": "1m"}, **fields}


def test_a_sensor_takes_slots_while_it_pokes_and_none_between(world: World) -> None:
    pool(world)
    bundle = Bundle.objects.create(tenant=world.vision, sha256="a" * 64, size=1).sha256
    run = start(world.vision, sensor("s", **slots()), bundle=bundle)
    other = start(world.vision, bash("a", **slots()), name="other")
    assert (states(run)["s"], states(other)["a"]) == ("queued", "waiting")
    end(run, "s", result={"done": False})
    step()
    assert (states(run)["s"], states(other)["a"]) == ("deferred", "queued")
    later(61)
    look()
    found = Task.objects.get(run=run)
    assert found.state == "deferred" and found.detail == "Waits for a slot of warehouse."
    assert found.wait.due_at is None
    look(review=True)
    assert Job.objects.filter(task__run=run, state="pending").count() == 0
    end(other, "a")
    step()
    assert states(run)["s"] == "queued" and held() == 1
    end(run, "s", result={"done": True})
    step()
    assert states(run)["s"] == "succeeded" and not SlotClaim.objects.exists()


def test_waits_and_joints_take_no_place(world: World) -> None:
    pause = {"id": "p", "kind": "wait_for", "upstream": [], "arguments": {"duration": {"value": "1h"}}}
    run = start(world.vision, pause, empty("e"), bash("a"), max_active_tasks_all_runs=1)
    assert states(run) == {"p": "deferred", "e": "succeeded", "a": "queued"}


def test_cancelling_a_run_frees_what_it_holds_and_waits_for(world: World) -> None:
    pool(world)
    first = start(world.vision, bash("a", **slots()), bash("b", **slots()), name="one")
    second = start(world.vision, bash("a", **slots()), name="two")
    commands.cancel_run(actor=SYSTEM, run_id=first.pk)
    step(review=True)
    assert states(second)["a"] == "queued"
    assert SlotClaim.objects.get().run_id == second.pk


def test_a_cleared_task_in_flight_keeps_its_slot_until_it_has_stopped(world: World) -> None:
    pool(world)
    first = start(world.vision, bash("a", **slots()), name="one")
    second = start(world.vision, bash("a", **slots()), name="two")
    Job.objects.filter(task__run=first).update(state="running", reason="", started_at=timezone.now())
    step()
    job = Job.objects.get(task__run=first)
    commands.clear(actor=SYSTEM, run_id=first.pk, choice=Choice(("a",)))
    step(review=True)
    job.refresh_from_db()
    stopped = job.state == "cancelled"
    if not stopped:
        assert states(second)["a"] == "waiting"
        Job.objects.filter(pk=job.pk).update(state="cancelled", ended_at=timezone.now())
    step(review=True)
    # Again the older run first.
    assert (states(first)["a"], states(second)["a"]) == ("queued", "waiting")
    assert finish(first) == finish(second) == "succeeded" and not SlotClaim.objects.exists()


def test_what_waited_for_a_slot_waits_for_its_upstream_when_that_is_cleared(world: World) -> None:
    found = pool(world, 0)
    run = start(world.vision, bash("a"), bash("b", "a", **slots()))
    end(run, "a")
    step()
    assert SlotClaim.objects.filter(name="b").exists()
    commands.clear(actor=SYSTEM, run_id=run.pk, choice=Choice(("a",)))
    assert states(run) == {"a": "queued", "b": "waiting"} and not SlotClaim.objects.exists()
    resize(found, 1)
    assert states(run) == {"a": "queued", "b": "waiting"}
    assert finish(run) == "succeeded"


def test_marking_a_task_that_waits_for_a_slot_or_holds_one_lets_go(world: World) -> None:
    pool(world)
    run = start(world.vision, *(bash(name, **slots()) for name in "abc"))
    commands.mark(actor=SYSTEM, run_id=run.pk, tasks=["a", "b"], state="succeeded")
    step(review=True)
    assert states(run) == {"a": "succeeded", "b": "succeeded", "c": "queued"}
    assert SlotClaim.objects.get().name == "c"


def test_lost_hints_and_a_killed_pass_cost_time_only(world: World) -> None:
    pool(world, 2)
    first = start(world.vision, bash("a", **slots(2)), name="one")
    second = start(world.vision, bash("a", **slots(2)), name="two")
    # The pass has written what ended, and died before it gave anything out.
    SlotClaim.objects.filter(run=first).delete()
    Task.objects.filter(run=first).update(state="succeeded")
    step(review=True)
    assert states(second)["a"] == "queued"
    third = start(world.vision, bash("a", **slots(2)), name="three")
    # The places were given, and the pass died before it started the task.
    SlotClaim.objects.filter(run=second).delete()
    assert claims.give_out([world.vision.pk]) == [Task.objects.get(run=third).pk]
    assert states(third)["a"] == "waiting"
    step(review=True)
    assert states(third)["a"] == "queued"
    # A claim that somebody has left behind.
    Task.objects.filter(run=third).update(state="failed", job=None)
    claims.overdue()
    assert not SlotClaim.objects.exists()


def test_a_run_that_waits_for_slots_is_not_gone_through_again_and_again(world: World) -> None:
    pool(world, 0)
    start(world.vision, bash("a", **slots()))
    observed = observe(search=True, review=True)
    assert not observed.work


def test_a_task_whose_pool_is_gone_fails_and_says_so(world: World) -> None:
    found = pool(world)
    first = start(world.vision, bash("a"), bash("b", "a", **slots()))
    commands.push(actor=SYSTEM, tenant=world.vision, definition=definition(bash("a")))
    commands.delete_slot_pool(actor=SYSTEM, pool_id=found.pk)
    end(first, "a")
    step()
    assert Task.objects.get(run=first, name="b").detail.startswith("There is no slot pool warehouse any more")


def test_a_pool_in_use_is_not_deleted(world: World) -> None:
    found = pool(world)
    run = start(world.vision, bash("a", **slots()))
    with pytest.raises(Conflict, match=f"Task a of run {run.pk} holds slots of warehouse"):
        commands.delete_slot_pool(actor=SYSTEM, pool_id=found.pk)
    assert finish(run) == "succeeded"
    with pytest.raises(Conflict, match="Tasks of etl take slots of warehouse"):
        commands.delete_slot_pool(actor=SYSTEM, pool_id=found.pk)


def test_only_admins_of_the_tenant_change_its_pools(world: World) -> None:
    found = pool(world)
    with pytest.raises(Forbidden):
        commands.change_slot_pool(actor=world.actor("member"), pool_id=found.pk, size=5)
    with pytest.raises(Forbidden):
        commands.create_slot_pool(actor=world.actor("member"), tenant=world.vision, name="x", size=5)
    with pytest.raises(Invalid, match="already"):
        pool(world)


def test_a_workflow_without_limits_asks_no_table_of_them(world: World) -> None:
    with CaptureQueriesContext(connection) as asked:
        run = start(world.vision, bash("a"), bash("b", "a"))
        end(run, "a")
        step()
    assert [query["sql"] for query in asked if "slot" in query["sql"] or "pathhistory" in query["sql"]] == []


def why(run: Run, name: str) -> str:
    return say_why([Task.objects.get(run=run, name=name)])[0].detail


def test_a_task_that_waits_says_for_what_who_has_it_and_where_it_stands(world: World) -> None:
    found = pool(world, 2)
    run = start(world.vision, *(bash(name, **slots()) for name in "abcde"))
    assert why(run, "e") == (
        f"Waits for a slot of warehouse; 2 of 2 are held: a of run {run.pk}, b of run {run.pk}. Number 3 in line."
    )
    large = start(world.vision, bash("a", **slots(2)), name="large")
    assert "Waits for 2 slots of warehouse" in why(large, "a") and why(large, "a").endswith("Number 4 in line.")
    resize(found, 1)
    assert why(large, "a") == "Wants 2 slots of warehouse, which has only 1: an admin can give it more."
    resize(found, 0)
    assert why(run, "c").startswith("warehouse has size 0")
    held_back = start(world.vision, bash("a", max_active=1), name="alone", max_active_tasks_all_runs=1)
    second = again(held_back)
    assert why(second, "a") == (
        f"At most 1 of a at once over all runs (now 1: a of run {held_back.pk}). Number 1 in line."
    )
    both = start(world.vision, bash("a"), bash("b"), name="both", max_active_tasks_all_runs=1)
    assert why(both, "b") == (
        f"At most 1 task of both at once over all runs (now 1: a of run {both.pk}). Number 1 in line."
    )
    mapped = bash("m", map={"over": {"n": {"value": [1, 2]}}}, max_active_per_run=1)
    wide = start(world.vision, mapped, name="wide")
    instance = Task.objects.get(run=wide, index=1)
    assert say_why([instance])[0].detail.startswith(f"At most 1 of m at once in a run (now 1: m[0] of run {wide.pk}).")


def test_lists_say_how_much_is_held_and_who_waits(world: World) -> None:
    pool(world, 5)
    run = start(world.vision, bash("a", **slots(2)), bash("b", **slots(3)), bash("c", weight=7, **slots(4)))
    row = list_slot_pools(world.actor("member")).get()
    assert (row.held, row.holders, row.waiting) == (4, 1, 2)
    assert [claim.name for claim in claims_of(row, held=True)] == ["c"]
    assert [claim.name for claim in claims_of(row, held=False)] == ["a", "b"]
    assert not list_slot_pools(world.actor("stranger")).exists()
    assert finish(run) == "succeeded"


def test_the_critical_path_goes_first_by_what_tasks_have_taken(world: World) -> None:
    """Chains a → long and b → short: without a history both weigh the same, with one the long chain goes first."""
    pool(world)
    chains = [bash("b", **slots()), bash("short", "b"), bash("a", **slots()), bash("long", "a")]
    first = start(world.vision, *chains, weight_rule="critical_path")
    assert states(first)["b"] == "queued"
    assert finish(first) == "succeeded"
    for name, seconds in {"a": 5, "b": 5, "short": 10, "long": 60}.items():
        row = Task.objects.get(run=first, name=name)
        Task.objects.filter(pk=row.pk).update(started_at=row.ended_at - timedelta(seconds=seconds))
    path_history.renew(timezone.now(), at_once=True)
    path_history.forget()
    second = again(first)
    assert states(second)["a"] == "queued"
    assert SlotClaim.objects.get(name="b").weight == 15
    # Nothing more is computed before the time has come, and of versions that nobody runs any more nothing at all.
    PathHistory.objects.update(at=timezone.now() - timedelta(hours=1))
    commands.push(actor=SYSTEM, tenant=world.vision, definition=definition(*chains))
    with CaptureQueriesContext(connection) as asked:
        path_history.renew(timezone.now(), at_once=True)
    assert len(asked) == 1
