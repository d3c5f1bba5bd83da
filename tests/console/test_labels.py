"""What instances of mapped tasks are called, wherever an instance is shown; and the longest path outside of pages."""

from typing import Any

import pytest
from django.urls import reverse
from django.utils import timezone

from apps.console import run_queries
from apps.workflows.models import Run, Task, TaskTry
from tests.apps.workflows.driver import bash, finish, start
from tests.apps.workflows.test_clear import clear
from tests.personas import World

from .conftest import People

pytestmark = pytest.mark.django_db


@pytest.fixture
def run(world: World) -> Run:
    mapping = {"over": {"city": {"value": ["Bern", "Basel"]}}, "label": "{{ city }}"}
    found = start(world.vision, bash("first"), bash("m", "first", map=mapping), bash("beside"))
    assert finish(found, lambda task: ("failed" if task.index == 1 else "succeeded", None)) == "failed"
    return found


def test_the_page_of_a_job_names_its_instance(people: People, run: Run) -> None:
    job = Task.objects.get(run=run, name="m", index=1).job_id
    page = people.member.get(reverse("console:job", args=[job])).content.decode()
    assert '?task=m&amp;index=1" data-testid="task">m[1]</a> <span data-testid="label" title="Basel">' in page
    plain = people.member.get(
        reverse("console:job", args=[Task.objects.get(run=run, name="first").job_id])
    ).content.decode()
    assert '?task=first" data-testid="task">first</a>' in plain and 'data-testid="label"' not in plain


def test_the_timeline_names_instances(run: Run) -> None:
    told = run_queries.gantt(run, timezone.now(), "m")
    assert (told["names"], told["labels"], len(told["times"])) == ([0, 1], ["Bern", "Basel"], 6)
    assert "labels" not in run_queries.gantt(run, timezone.now())


def test_a_clear_and_the_tries_keep_the_names(api: Any, people: People, run: Run) -> None:
    told = api.member.post(f"runs/{run.pk}/clear?dry_run=1", {"tasks": ["m[1]"]}).json()
    assert [(row["index"], row["label"]) for row in told["tasks"]] == [(1, "Basel")]
    clear(run, "m[1]")
    assert TaskTry.objects.get(run=run, index=1).label == "Basel"
    assert api.member.get(f"runs/{run.pk}/tries?index=1").json()["results"][0]["label"] == "Basel"
    panel = people.member.get(reverse("console:run-task", args=[run.pk, "m"])).content.decode()
    assert '<span class="faint" title="Basel">Basel</span>' in panel


def test_the_task_of_a_job_is_found(api: Any, run: Run) -> None:
    task = Task.objects.get(run=run, name="m", index=0)
    [found] = api.member.get(f"runs/{run.pk}/tasks?job={task.job_id}").json()["results"]
    assert (found["name"], found["index"], found["label"]) == ("m", 0, "Bern")


def test_the_longest_path_is_told_by_the_api(api: Any, world: World, run: Run) -> None:
    path = api.member.get(f"runs/{run.pk}/path").json()
    assert (path["tasks"], path["ended"], path["left_seconds"]) == (["first", "m"], True, None)
    assert 0 <= path["spent_seconds"] <= path["total_seconds"] and 0 <= path["share"] <= 100
    waiting = Run.objects.get(pk=start(world.vision, bash("a"), name="other").pk)
    Run.objects.filter(pk=waiting.pk).update(started_at=None, state="queued")
    assert api.member.get(f"runs/{waiting.pk}/path").json()["tasks"] == []
    assert api.stranger.get(f"runs/{run.pk}/path").status_code == 404
