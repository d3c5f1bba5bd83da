"""The time that a mapped task takes, where some of its instances ran again later."""

from datetime import timedelta

import pytest
from django.db.models import F
from django.utils import timezone

from apps.console import run_queries
from apps.workflows.models import Run, Task
from tests.apps.workflows.driver import bash, begin, end, finish, start, step
from tests.apps.workflows.test_clear import clear
from tests.personas import World

pytestmark = pytest.mark.django_db

HOUR = timedelta(hours=1)


def shown(run: Run) -> tuple[object, list[int]]:
    """When `m` began, by lists and by the timeline (ms of queued and started)."""
    [view] = run_queries.task_views(run, Task.objects.filter(run=run, name="m", index=-1))
    return view.began, run_queries.gantt(run, timezone.now())["times"][:2]


def test_a_mapped_task_that_was_partly_cleared_began_with_what_runs_again(world: World) -> None:
    run = start(world.vision, bash("m", map={"over": {"x": {"value": [1, 2]}}}))
    assert finish(run, lambda task: ("failed" if task.index else "succeeded", None)) == "failed"
    moments = {name: F(name) - HOUR for name in ("queued_at", "started_at", "ended_at")}
    Task.objects.filter(run=run).update(**moments)
    Run.objects.filter(pk=run.pk).update(started_at=F("started_at") - HOUR)
    run.refresh_from_db()
    before = shown(run)
    assert before[0] == Task.objects.get(run=run, index=0).started_at.timestamp()
    clear(run, "m[1]")
    assert shown(run)[0] is None
    step()
    begin(run, "m", 1)
    step()
    again = Task.objects.get(run=run, index=1)
    run.refresh_from_db()
    began, (queued, started) = shown(run)
    assert began == again.started_at.timestamp() and started >= queued >= 0
    end(run, "m", index=1)
    step()
    assert shown(run)[0] == Task.objects.get(run=run, index=1).started_at.timestamp()
