"""The form of a job: its placement, how many nodes fit what is typed, and the list of jobs by label."""

from typing import Any

import pytest

from apps.jobs.models import Job
from tests.personas import World
from tests.work import simulated_node, submit

TYPED = {"tenant": "vision", "kind": "script", "script": "true", "cpu": "1", "memory": "1Gi", "pool": "default"}
LOOK = {"HX-Request": "true", "HX-Target": "job-fit"}


def text(answer: Any) -> str:
    return " ".join(answer.content.decode().split())


def test_the_preview_counts_nodes_and_submits_nothing(people: Any, world: World) -> None:
    simulated_node(world, cpu=4000, labels={"zone": "a"})
    simulated_node(world, "sim-2", cpu=1000, labels={"zone": "b"})
    page = text(people.member.post("/jobs/submit/", {**TYPED, "script": "", "labels": "zone=a"}, headers=LOOK))
    assert [part.split("<")[0] for part in page.split('class="n">')[1:]] == ["2", "1", "1"]
    assert "Most are ruled out by" in page and page.count("job-fit-group") == 1
    page = text(people.member.post("/jobs/submit/", {**TYPED, "cpu": "64"}, headers=LOOK))
    assert 'role="alert"' in page
    page = text(people.member.post("/jobs/submit/", {**TYPED, "near": "trainer"}, headers=LOOK))
    assert "is not like app=db on zone, weight 5" in page
    page = text(people.stranger.post("/jobs/submit/", TYPED, headers=LOOK))
    assert "job-fit-group" not in page
    assert not Job.objects.exists()


def test_a_fault_of_a_folded_field_stands_beside_it_and_opens_the_fold(people: Any, world: World) -> None:
    simulated_node(world)
    answer = people.member.post("/jobs/submit/", {**TYPED, "goal_cost": "500"})
    page = text(answer)
    assert answer.status_code == 422 and 'id="e-goal_cost"' in page and 'data-testid="placement-fold" open' in page
    assert people.member.post("/jobs/submit/", {**TYPED, "job_labels": "app=web", "goal_cost": "5"}).status_code == 302
    assert Job.objects.get().spec["labels"] == {"app": "web"}


@pytest.mark.usefixtures("redis_empty")
def test_the_list_takes_labels_and_says_what_is_none(people: Any, world: World) -> None:
    first, second = (submit(world, labels=labels) for labels in ({"app": "web"}, {"app": "web", "env": "prod"}))
    page = text(people.member.get("/jobs/", {"label": "app=web, env=prod"}))
    assert f'id="job-{second.pk}"' in page and f'id="job-{first.pk}"' not in page
    assert "Write labels as app=web" in text(people.member.get("/jobs/", {"label": "web"})).replace("trainer", "web")
