"""The form of a job with several groups: added and removed without a script, each fault at its group's field."""

import re
from typing import Any

from apps.console import forms
from apps.jobs.models import Job
from rmctl.spec import parse_job
from tests.personas import World
from tests.work import simulated_node

from .test_submit_form import LOOK, TYPED, text

PATH = "/jobs/submit/"
TWO = {**TYPED, "groups": "2", "group": "driver", "g1-group": "worker", "g1-kind": "command",
       "g1-command": "work --fast", "g1-count": "3", "g1-cpu": "500m", "g1-memory": "256Mi",
       "g1-env": "A=b"}  # fmt: skip


def values(page: str) -> dict[str, str]:
    """Names and values of text inputs."""
    return dict(re.findall(r'name="((?:g\d-)?(?:group|groups|cpu|count))"(?: type="text")? value="([^"]*)"', page))


def test_a_group_more_keeps_what_was_typed_and_submits_nothing(people: Any, world: World) -> None:
    page = text(people.member.get(PATH))
    assert 'data-testid="group"' not in page and 'type="hidden" name="group" value="main"' in page
    answer = people.member.post(PATH, {**TYPED, "cpu": "3", "change": "add"})
    page = text(answer)
    assert answer.status_code == 200 and page.count('data-testid="group"') == 2 and 'role="alert"' not in page
    assert values(page) | {"groups": "2", "cpu": "3", "g1-cpu": "1", "g1-group": "group-2"} == values(page)
    assert not Job.objects.exists()


def test_the_others_move_up_when_one_is_removed(people: Any, world: World) -> None:
    three = {**TWO, "groups": "3", "g2-group": "group-2", "g2-cpu": "7"}
    page = text(people.member.post(PATH, {**three, "change": "drop-0"}))
    assert page.count('data-testid="group"') == 2
    assert [values(page)[name] for name in ("group", "count", "g1-group", "g1-cpu")] == ["worker", "3", "group-2", "7"]
    assert 'name="kind" value="command" checked' in page
    page = text(people.member.post(PATH, {**TWO, "g1-group": "group-2", "change": "add"}))
    assert values(page)["g2-group"] == "group-3"
    page = text(people.member.post(PATH, {**TWO, "change": "drop-1"}))
    assert 'data-testid="group"' not in page and values(page)["group"] == "driver"
    for change in ("drop-5", "drop-x", "all"):
        page = text(people.member.post(PATH, {**TWO, "change": change}))
        assert page.count('data-testid="group"') == 2


def test_all_groups_are_submitted_and_shown_again(people: Any, world: World) -> None:
    simulated_node(world)
    page = text(people.member.post(PATH, TWO, headers=LOOK))
    assert page.count("job-fit-group") == 2 and ">worker<" in page and "3 members" in page
    page = text(people.member.post(PATH, {**TWO, "g1-cpu": "much"}, headers=LOOK))
    assert "Group worker: " in page and "groups[" not in page
    assert people.member.post(PATH, TWO).status_code == 302
    job = Job.objects.get()
    driver, worker = job.spec["groups"]
    assert (driver["name"], driver["script"], driver["count"]) == ("driver", "true", 1)
    assert [worker[name] for name in ("name", "command", "count")] == ["worker", ["work", "--fast"], 3]
    assert worker["env"] == {"A": "b"}
    assert worker["resources"]["cpu_millicores"] == 500
    assert parse_job(forms.job_data(forms.job_values(job.spec))).normalised()["groups"] == job.spec["groups"]
    assert 'value="worker"' in text(people.member.get(PATH, {"from": job.pk}))


def test_each_fault_stands_at_the_field_of_its_group(people: Any, world: World) -> None:
    simulated_node(world)
    for typed, field in (
        ({"g1-cpu": "much"}, "g1-cpu"),
        ({"g1-env": "novalue"}, "g1-env"),
        ({"g1-secrets": "TOKEN=absent"}, "g1-secrets"),
        ({"g1-command": ""}, "g1-command"),
        ({"g1-min_count": "9"}, "g1-min_count"),
        ({"g1-group": "driver"}, "g1-group"),
        ({"g1-group": "two words"}, "g1-group"),
        ({"script": ""}, "script"),
    ):
        answer = people.member.post(PATH, {**TWO, **typed})
        page = text(answer)
        assert answer.status_code == 422, typed
        assert re.findall(r'id="e-([^"]+)"', page) == [field], typed
        assert 'data-testid="form-error"' not in page, typed
    assert not Job.objects.exists()
