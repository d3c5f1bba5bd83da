"""Where features meet: mapped tasks that come little by little, limits over runs, and results from the cache."""

from copy import copy
from typing import Any

import pytest
from django.utils import timezone

from apps.core.actors import SYSTEM
from apps.core.errors import StaleState
from apps.jobs.models import Job
from apps.workflows import claims, commands, moved, plans, unmade
from apps.workflows.apply import _Batch
from apps.workflows.apply import apply as apply_once
from apps.workflows.clearing import Choice
from apps.workflows.giving import apply
from apps.workflows.models import CacheUse, Run, SlotClaim, Task
from apps.workflows.observe import Observed, TaskRow, Work, add_granted, observe
from tests.apps.workflows.driver import bash, begin, empty, end, end_job, finish, look, start, states, step
from tests.apps.workflows.test_approvals import answer, ask
from tests.personas import World

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def narrow(monkeypatch: Any) -> None:
    """Four instances that have not started."""
    monkeypatch.setattr(unmade, "WINDOW", 4)


@pytest.fixture(autouse=True)
def told(monkeypatch: Any) -> set[int]:
    """The runs that passes have told the loop to go through."""
    found: set[int] = set()
    monkeypatch.setattr(moved, "tell_runs", found.update)
    return found


def go_on(told: set[int]) -> int:
    """Do what passes told the loop to do; returns how many passes that were. They come to rest."""
    for passes in range(20):
        if not told:
            return passes
        work = {run: Work(review=True) for run in told}
        told.clear()
        apply(Observed(work), timezone.now())
    raise AssertionError("passes go on and on")


@pytest.fixture
def pool(world: World) -> None:
    commands.create_slot_pool(actor=SYSTEM, tenant=world.vision, name="one", size=1)


def wide(count: int, **fields: Any) -> dict[str, Any]:
    return bash("m", map={"over": {"x": {"value": list(range(count))}}}, **fields)


def again(run: Run, **fields: Any) -> Run:
    made = commands.trigger(actor=SYSTEM, workflow_id=run.workflow_id, **fields)
    step()
    return made


def instances(run: Run) -> list[str]:
    rows = Task.objects.filter(run=run, name="m", index__gte=0).order_by("index")
    return list(rows.values_list("state", flat=True))


LIMITS = [{"slots": {"name": "one"}}, {"max_active": 1}, {"max_active_per_run": 1}]


@pytest.mark.parametrize("limits", LIMITS)
def test_instances_in_line_for_places_wake_nobody_and_all_come(
    world: World, pool: None, told: set[int], limits: dict[str, Any]
) -> None:
    run = start(world.vision, wide(9, **limits))
    for index in range(9):
        assert go_on(told) == 0
        assert instances(run).count("queued") == 1 and instances(run).count("waiting") <= 4
        begin(run, "m", index)
        step()
        end(run, "m", index=index)
        step()
    assert go_on(told) == 0
    run.refresh_from_db()
    assert (run.state, instances(run)) == ("succeeded", ["succeeded"] * 9)
    assert not SlotClaim.objects.exists()


def test_many_cleared_instances_get_in_line_little_by_little(world: World, pool: None, told: set[int]) -> None:
    run = start(world.vision, wide(9, slots={"name": "one"}))
    assert finish(run, lambda task: ("failed", None)) == "failed"
    go_on(told)
    commands.clear(actor=SYSTEM, run_id=run.pk, choice=Choice(only_failed=True))
    step()
    for _ in range(9):
        assert go_on(told) == 0
        assert SlotClaim.objects.filter(held=False).count() <= 4
        [job] = Job.objects.filter(task__run=run, task__state="queued")
        end_job(job, "succeeded")
        step()
    assert instances(run) == ["succeeded"] * 9


def test_results_from_the_cache_take_no_place_and_come_without_waiting_for_the_search(
    world: World, pool: None, told: set[int]
) -> None:
    first = start(world.vision, wide(11, slots={"name": "one"}, cache="1h"))
    assert finish(first) == "succeeded"
    start(world.vision, bash("busy", slots={"name": "one"}), name="busy")
    second = again(first)
    assert go_on(told) == 2
    second.refresh_from_db()
    assert (second.state, instances(second)) == ("succeeded", ["succeeded"] * 11)
    assert SlotClaim.objects.count() == 1
    # Without the cache each waits for its place.
    third = again(first, no_cache=True)
    assert instances(third) == ["waiting"] * 4 and SlotClaim.objects.count() == 5


@pytest.mark.parametrize("window", [2, 4])
@pytest.mark.parametrize("places", [1, 2, 0])
def test_results_from_the_cache_bring_the_next_instances(
    world: World, told: set[int], monkeypatch: Any, window: int, places: int
) -> None:
    monkeypatch.setattr(unmade, "WINDOW", window)
    first = start(world.vision, wide(11, cache="1h"), max_active_tasks=places)
    while not first.ended_at:
        go_on(told)
        if job := Job.objects.filter(task__run=first, state="pending").first():
            end_job(job, "succeeded")
        step()
        first.refresh_from_db()
    for missing in range(7):
        CacheUse.objects.filter(index__in=[missing, missing + 2]).delete()
        run = again(first)
        for _ in range(2):
            go_on(told)
            for job in Job.objects.filter(task__run=run, state="pending"):
                end_job(job, "succeeded")
            step()
        go_on(told)
        run.refresh_from_db()
        assert (run.state, instances(run)) == ("succeeded", ["succeeded"] * 11), missing


def test_a_place_kept_for_who_then_had_its_result_from_the_cache_goes_to_another(
    world: World, pool: None, told: set[int]
) -> None:
    shared = bash("a", slots={"name": "one"}, cache="1h")
    first = start(world.vision, shared)
    run = start(world.vision, shared, ask(), bash("c", "ask", max_active=3), name="second", max_active_tasks=1)
    answer(world, run)
    look()
    # The only place of the run is kept for the one in line.
    assert states(run) == {"a": "waiting", "ask": "succeeded", "c": "waiting"}
    end(first, "a", result=7)
    step()
    assert states(run) == {"a": "succeeded", "ask": "succeeded", "c": "waiting"} and told == {run.pk}
    go_on(told)
    assert states(run)["c"] == "queued"


def test_a_mapped_task_whose_version_is_no_longer_accepted_ends_with_what_was_made_of_it(
    world: World, pool: None
) -> None:
    run = start(world.vision, wide(9, slots={"name": "one"}))
    run.version.definition["tasks"][0]["kind"] = "fortran"
    run.version.save()
    plans.plans.clear()
    step(review=True)
    end(run, "m", index=0)
    step()
    run.refresh_from_db()
    assert (run.state, instances(run)) == ("failed", ["succeeded", *["failed"] * 3])
    assert "no longer accepted" in Task.objects.get(run=run, index=-1).detail
    assert not SlotClaim.objects.exists()


def test_who_is_in_line_looks_into_the_cache_again_when_it_has_its_place(
    world: World, pool: None, told: set[int]
) -> None:
    first = start(world.vision, bash("a", slots={"name": "one"}, cache="1h"))
    others = [again(first), again(first)]
    assert CacheUse.objects.count() == 1
    end(first, "a", result=7)
    step()
    assert [Task.objects.get(run=run, name="a").result for run in others] == [7, 7]
    assert not SlotClaim.objects.exists()
    assert list(CacheUse.objects.order_by("pk").values_list("outcome", flat=True)) == ["miss", "hit", "hit"]


def test_a_limited_run_has_no_more_in_line_than_it_can_start_whatever_ends_in_the_pass(
    world: World, pool: None
) -> None:
    start(world.vision, bash("busy", slots={"name": "one"}), name="busy")
    tasks = [bash(name, slots={"name": "one"}) for name in "abc"]
    run = start(world.vision, *tasks, empty("j"), bash("d", "j", slots={"name": "one"}), max_active_tasks=2)
    assert SlotClaim.objects.filter(run=run).count() == 2


def test_a_task_that_has_its_place_is_as_it_was_when_a_pass_is_tried_again_alone(
    world: World, pool: None, monkeypatch: Any
) -> None:
    first = start(world.vision, bash("a", slots={"name": "one"}), bash("z"))
    second = again(first)
    end(first, "a")
    apply_once(observe(search=True, review=False), timezone.now())
    end(first, "z")
    observed = observe(search=True, review=False)
    add_granted(observed, claims.give_out([world.vision.pk]))
    [row] = observed.work[second.pk].granted
    before = copy(row)
    decide, write = _Batch.decide, _Batch.write
    seen: list[TaskRow] = []

    def decides(batch: _Batch) -> None:
        if second.pk in batch.progress:
            seen.append(copy(row))
        decide(batch)

    def writes(batch: _Batch) -> Any:
        found = write(batch)
        if len(seen) == 1:
            raise StaleState("as if a task had moved")
        return found

    monkeypatch.setattr(_Batch, "decide", decides)
    monkeypatch.setattr(_Batch, "write", writes)
    apply_once(observed, timezone.now())
    assert seen == [before] * 2
    assert states(second)["a"] == "queued" and row.job == Job.objects.get(task__run=second, task__name="a").pk
    assert finish(first) == finish(second) == "succeeded"
