"""State of workflows and runs: by people, and by tasks through their node."""

import json
from typing import Any

import pytest
from django.test import Client

from apps.core.actors import SYSTEM, Actor
from apps.core.errors import Conflict, Forbidden, Invalid, NotFound
from apps.events.models import Event
from apps.execution.commands import live_placement
from apps.jobs.models import Job, Placement
from apps.workflows import commands
from apps.workflows.clearing import Choice
from apps.workflows.models import Run, StateValue, Task
from tests.api.objects import make_job, make_run, run_job
from tests.apps.workflows.driver import bash, start
from tests.personas import World

pytestmark = pytest.mark.django_db


@pytest.fixture
def run(world: World) -> Run:
    return start(world.vision, bash("load", state=True))


@pytest.fixture
def placed(world: World, redis_empty: None, run: Run) -> tuple[Placement, str]:
    """The live placement of the task `load` on a node of its own, and the node's credential."""
    node, credential = world.join("worker")
    job = Job.objects.get(task__run=run)
    placement = run_job(world, job, node)
    Placement.objects.filter(pk=placement.pk).update(**{"state": "running"})
    Job.objects.filter(pk=job.pk).update(token=1)
    return placement, credential


def ask(placed: tuple[Placement, str], operation: str, token: int = 1, **body: Any) -> tuple[int, Any]:
    placement, credential = placed
    answer = Client(raise_request_exception=False).post(
        f"/api/v1/agent/placements/{placement.pk}/state?token={token}",
        json.dumps({"scope": "workflow", "operation": operation, **body}),
        "application/json",
        headers={"Authorization": f"Agent {credential}"},
    )
    return answer.status_code, answer.json()


def test_a_value_is_kept_with_a_version_that_grows_and_an_event_without_the_value(world: World, run: Run) -> None:
    member = world.actor("member")
    first = commands.set_state(actor=member, workflow_id=run.workflow_id, key="cursor", value={"day": "2026-01-01"})
    second = commands.set_state(actor=member, workflow_id=run.workflow_id, key="cursor", value=None)
    assert second.pk == first.pk and second.version > first.version and second.value is None
    assert second.updated_by == member.label
    event = Event.objects.filter(verb="state.set").latest("id")
    assert (event.subject_type, event.subject_id, event.actor) == ("workflow", run.workflow_id, member.label)
    assert event.facts == {"key": "cursor", "version": second.version, "size": 4}
    # A run has its own, under the same key.
    own = commands.set_state(actor=member, run_id=run.pk, key="cursor", value=7)
    assert own.pk != first.pk and StateValue.objects.get(pk=first.pk).value is None


def test_compare_and_set(world: World, run: Run) -> None:
    def put(value: Any, expected: int | None) -> int:
        return commands.set_state(
            actor=SYSTEM, workflow_id=run.workflow_id, key="n", value=value, expected=expected
        ).version

    version = put(1, 0)
    with pytest.raises(Conflict, match=f"has version {version}, not version 0") as refused:
        put(2, 0)
    assert refused.value.code == "version_conflict"
    newer = put(2, version)
    with pytest.raises(Conflict):
        put(3, version)
    with pytest.raises(Conflict):
        commands.delete_state(actor=SYSTEM, workflow_id=run.workflow_id, key="n", expected=version)
    commands.delete_state(actor=SYSTEM, workflow_id=run.workflow_id, key="n", expected=newer)
    with pytest.raises(NotFound):
        commands.delete_state(actor=SYSTEM, workflow_id=run.workflow_id, key="n")
    with pytest.raises(Conflict, match="is not there"):
        put(4, newer)
    # What comes after a deletion is none of the versions from before.
    assert put(5, None) > newer


@pytest.mark.parametrize(
    ("key", "value", "field"),
    [
        ("", 1, "key"),
        ("a/b", 1, "key"),
        ("k" * 201, 1, "key"),
        ("k", "x" * 65536, "value"),
        ("k", {"deep": ["a\0b"]}, "value.deep[0]"),
        ("k", float("nan"), "value"),
    ],
)
def test_what_cannot_be_kept_is_refused_by_name(run: Run, key: str, value: Any, field: str) -> None:
    with pytest.raises(Invalid) as refused:
        commands.set_state(actor=SYSTEM, run_id=run.pk, key=key, value=value)
    assert [error["field"] for error in refused.value.errors] == [field]
    assert not StateValue.objects.exists() and not Event.objects.filter(verb="state.set").exists()


def test_keys_are_limited_and_auditors_only_look(world: World, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands.state, "KEYS_MAX", 2)
    for key in ("a", "b", "b"):
        commands.set_state(actor=SYSTEM, run_id=run.pk, key=key, value=1)
    with pytest.raises(Invalid, match="has 2 keys already"):
        commands.set_state(actor=SYSTEM, run_id=run.pk, key="c", value=1)
    commands.set_state(actor=SYSTEM, workflow_id=run.workflow_id, key="c", value=1)
    with pytest.raises(Forbidden):
        commands.set_state(actor=world.actor("auditor"), run_id=run.pk, key="a", value=2)


def test_people_read_and_write_over_the_api(world: World, api: Any, run: Run) -> None:
    path = f"workflows/{run.workflow_id}/state"
    made = api.member.put(f"{path}/cursor", {"value": [1], "expected_version": 0})
    assert made.status_code == 200 and made.json()["value"] == [1]
    assert api.member.put(f"{path}/cursor", {"value": [2], "expected_version": 0}).status_code == 409
    assert [row["key"] for row in api.member.get(path).json()["results"]] == ["cursor"]
    assert "value" not in api.member.get(path).json()["results"][0]
    assert api.member.get(f"{path}/cursor").json()["version"] == made.json()["version"]
    assert api.member.delete(f"{path}/cursor?expected_version=1").status_code == 409
    assert api.member.delete(f"{path}/cursor").status_code == 204
    assert api.member.get(f"{path}/cursor").status_code == 404
    assert api.member.put(f"runs/{run.pk}/state/n", {}).json()["errors"][0]["field"] == "value"


def test_a_task_reaches_its_own_workflow_and_run(world: World, run: Run, placed: tuple[Placement, str]) -> None:
    assert ask(placed, "get", key="n") == (200, {"found": False, "value": None, "version": 0, "written": True})
    status, made = ask(placed, "set", key="n", value=1, expected=0)
    assert status == 200 and made["written"] and made["version"] > 0
    _, other = ask(placed, "set", key="n", value=5, expected=made["version"] + 100)
    assert (other["written"], other["value"], other["version"]) == (False, 1, made["version"])
    assert ask(placed, "set", key="n", value=9, scope="run")[1]["written"]
    assert ask(placed, "get", key="n", scope="run")[1]["value"] == 9
    assert ask(placed, "delete", key="n", scope="run")[1]["written"] and run.state_values.count() == 0
    row = StateValue.objects.get(workflow=run.workflow_id, run=None)
    assert (row.value, row.updated_by) == (1, f"load of run {run.pk}")
    event = Event.objects.get(verb="state.set", subject_type="workflow")
    assert event.facts["task"] == "load" and event.facts["run"] == run.pk
    # What other workflows keep is out of reach, whatever they are called.
    elsewhere = make_run(world, name="elsewhere")
    commands.set_state(actor=SYSTEM, workflow_id=elsewhere.workflow_id, key="secret", value=1)
    assert ask(placed, "get", key="secret")[1]["found"] is False
    assert ask(placed, "list")[1]["keys"] == ["n"]
    assert ask(placed, "set", key="bad key", value=1)[0] == 422


def test_the_same_request_again_changes_nothing(run: Run, placed: tuple[Placement, str]) -> None:
    first = ask(placed, "set", key="n", value=1, expected=0, request="r1")
    ask(placed, "set", key="n", value=2, request="r2")
    # Its answer was lost on the way; by now others have written.
    assert ask(placed, "set", key="n", value=1, expected=0, request="r1") == first
    assert StateValue.objects.get().value == 2


def test_what_is_left_of_an_attempt_writes_nothing(world: World, run: Run, placed: tuple[Placement, str]) -> None:
    placement, _ = placed
    job = placement.attempt.job
    assert ask(placed, "set", key="n", value=1)[0] == 200
    _, stranger = world.join("other")
    assert ask((placement, stranger), "set", key="n", value=2)[0] == 404
    assert ask(placed, "set", token=2, key="n", value=2)[1]["code"] == "stale_token"
    # The node was lost, and the job has begun elsewhere: the newest token is another.
    Job.objects.filter(pk=job.pk).update(token=2)
    for operation in ("set", "get", "delete", "list"):
        assert ask(placed, operation, key="n", value=2)[1]["code"] == "stale_token"
    Job.objects.filter(pk=job.pk).update(token=1)
    Placement.objects.filter(pk=placement.pk).update(**{"state": "lost"})
    assert ask(placed, "set", key="n", value=2)[1]["code"] == "stale_token"
    Placement.objects.filter(pk=placement.pk).update(**{"state": "running"})
    assert ask(placed, "set", key="n", value=3)[0] == 200
    # Cleared while it runs: what the old job still says does not count.
    Job.objects.filter(pk=job.pk).update(**{"state": "running"})
    commands.clear(actor=SYSTEM, run_id=run.pk, choice=Choice(("load",)))
    assert Task.objects.get(run=run).restart
    assert ask(placed, "set", key="n", value=4)[1]["code"] == "no_task"
    assert StateValue.objects.get().value == 3


def test_a_job_of_no_run_has_no_state(world: World, redis_empty: None) -> None:
    node, _ = world.join("worker")
    placement = run_job(world, make_job(world), node)
    Placement.objects.filter(pk=placement.pk).update(**{"state": "running"})
    Job.objects.update(token=1)
    live_placement(node.pk, placement.pk, 1)
    with pytest.raises(Conflict) as refused:
        commands.task_state(
            actor=Actor(label="agent:worker", node_id=node.pk), node_id=node.pk, placement_id=placement.pk, token=1,
            scope="run", operation="set", key="n", value=1,
        )  # fmt: skip
    assert refused.value.code == "no_task"
