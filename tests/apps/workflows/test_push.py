"""Pushing definitions: versions by content, one at a time, and everything that is refused."""

import threading
from typing import Any

import pytest
from django.db import connection

from apps.core.actors import SYSTEM
from apps.core.errors import Forbidden, Invalid
from apps.events.models import Event
from apps.execution.models import Bundle
from apps.tenants import commands as tenants
from apps.workflows import commands
from apps.workflows.models import Workflow, WorkflowVersion
from tests.apps.workflows.driver import bash, definition, empty
from tests.personas import World

pytestmark = pytest.mark.django_db


def push(world: World, *tasks: dict[str, Any], persona: str = "member", **fields: Any) -> commands.PushResult:
    return commands.push(actor=world.actor(persona), tenant=world.vision, definition=definition(*tasks, **fields))


def refused(world: World, *tasks: dict[str, Any], **fields: Any) -> dict[str, tuple[str, str]]:
    """Field → (code, message) of a push that is refused and leaves nothing."""
    with pytest.raises(Invalid) as caught:
        push(world, *tasks, **fields)
    assert not Workflow.objects.exists()
    assert not Event.objects.filter(verb__startswith="workflow.").exists()
    return {error["field"]: (error["code"], error["message"]) for error in caught.value.errors}


def test_a_push_makes_a_workflow_and_its_first_version(world: World) -> None:
    result = push(world, bash("a"), description="Nightly.", schedule="@daily", timezone="Europe/Berlin")
    workflow = Workflow.objects.get()
    assert (result.created, result.version.number, result.workflow) == (True, 1, workflow)
    assert (workflow.tenant, workflow.name, workflow.description) == (world.vision, "etl", "Nightly.")
    assert (workflow.schedule, workflow.timezone, workflow.current) == (
        "@daily",
        "Europe/Berlin",
        result.version,
    )
    assert result.version.owner == world.users["member"]
    assert list(Event.objects.filter(subject_type="workflow").order_by("id").values_list("verb", "actor")) == [
        ("workflow.created", "user:max"),
        ("workflow.pushed", "user:max"),
    ]


def test_the_same_definition_again_is_the_same_version(world: World) -> None:
    first = push(world, bash("a"))
    events = Event.objects.count()
    again = push(world, {**bash("a"), "trigger_rule": "all_success"})  # Spelled differently, meaning the same.
    assert (again.created, again.version) == (False, first.version)
    assert Event.objects.count() == events


def test_another_definition_is_the_next_version_and_an_old_one_comes_back(world: World) -> None:
    first = push(world, bash("a"))
    second = push(world, bash("a"), bash("b", "a"), description="Two.")
    assert (second.created, second.version.number, second.workflow) == (True, 2, first.workflow)
    back = push(world, bash("a"))
    workflow = Workflow.objects.get()
    assert (back.created, back.version, workflow.current) == (False, first.version, first.version)
    assert workflow.description == ""
    assert Event.objects.filter(verb="workflow.version_selected").count() == 1
    assert WorkflowVersion.objects.count() == 2


def test_tenants_do_not_share_names(world: World) -> None:
    mine = push(world, bash("a"))
    theirs = commands.push(actor=world.actor("stranger"), tenant=world.speech, definition=definition(bash("a")))
    assert mine.workflow != theirs.workflow


@pytest.mark.parametrize("persona", ["auditor", "stranger", "nobody", "anonymous", "provider"])
def test_only_members_push(world: World, persona: str) -> None:
    with pytest.raises(Forbidden):
        push(world, bash("a"), persona=persona)


def test_every_fault_of_a_definition_is_named(world: World) -> None:
    faults = refused(world, bash("a", "b"), bash("b", "a"), {**bash("c", "d"), "colour": "red"})
    assert {code for code, _ in faults.values()} == {"cycle", "unknown_upstream", "unknown_field"}
    assert faults["tasks[2].upstream[0]"][0] == "unknown_upstream"
    assert "a → b → a" in faults["tasks[0].upstream"][1]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"schedule": "61 * * * *"}, "schedule"),
        ({"timezone": "Mars/Olympus"}, "timezone"),
        ({"start_date": "soon"}, "start_date"),
        ({"start_date": "0001-01-01", "schedule": "@daily", "timezone": "Asia/Tokyo"}, "start_date"),
        ({"start_date": "9999-12-31T23:59:59-12:00", "schedule": "@daily"}, "start_date"),
        ({"max_active_runs": -1}, "max_active_runs"),
        ({"retries": 3}, "retries"),
        ({"name": "no spaces"}, "name"),
    ],
)
def test_wrong_fields_are_refused(world: World, fields: dict[str, Any], field: str) -> None:
    assert field in refused(world, bash("a"), **fields)


def test_no_tasks_are_refused(world: World) -> None:
    assert "tasks" in refused(world)


@pytest.mark.parametrize("cpu", [-1, "10000000000", "many"])
def test_absurd_quantities_are_refused(world: World, cpu: Any) -> None:
    assert "tasks[0].resources.cpu" in refused(world, bash("a", resources={"cpu": cpu}))


def test_a_python_task_needs_a_bundle_that_the_tenant_has(world: World) -> None:
    task = {"id": "a", "kind": "python", "file": "a.py", "function": "main"}
    assert refused(world, task)["bundle"][0] == "required"
    assert refused(world, task, bundle="0" * 64)["bundle"][0] == "unknown_bundle"
    Bundle.objects.create(tenant=world.speech, sha256="0" * 64, size=1)
    assert refused(world, task, bundle="0" * 64)["bundle"][0] == "unknown_bundle"
    Bundle.objects.create(tenant=world.vision, sha256="0" * 64, size=1)
    assert push(world, task, bundle="0" * 64).created


def test_unknown_secrets_are_named(world: World) -> None:
    task = bash("b", secrets={"TOKEN": "registry", "KEY": "signing"})
    tenants.set_secret(actor=SYSTEM, tenant=world.vision, name="signing", value="x")
    tenants.set_secret(actor=SYSTEM, tenant=world.speech, name="registry", value="x")
    assert refused(world, bash("a"), task) == {
        "tasks[1].secrets": ("unknown_secret", "Tenant vision has no secret registry.")
    }


def test_a_request_above_every_quota_is_refused(world: World) -> None:
    tasks = [bash("a"), bash("b", resources={"cpu": "900"}), empty("c", resources={"cpu": "900"})]
    faults = refused(world, *tasks)
    assert faults.keys() == {"tasks[1].resources"}
    assert faults["tasks[1].resources"][0] == "exceeds_max_quota"
    assert faults["tasks[1].resources"][1].startswith("Task b: ")


def test_a_request_larger_than_any_node_is_refused(world: World) -> None:
    world.node(cpu_millicores=4000)
    faults = refused(world, bash("a", resources={"cpu": "6"}), bash("b", resources={"cpu": "6"}))
    assert {field: code for field, (code, _) in faults.items()} == {
        "tasks[0].resources": "exceeds_every_node",
        "tasks[1].resources": "exceeds_every_node",
    }


def test_an_unknown_pool_is_refused(world: World) -> None:
    assert refused(world, bash("a", intent={"pool": "nowhere"}))["tasks[0].intent.pool"][0] == "unknown_pool"


def test_a_scheduled_workflow_needs_defaults(world: World) -> None:
    params = {"properties": {"day": {"type": "string"}}, "required": ["day"]}
    assert refused(world, bash("a"), params=params, schedule="@daily")["params.required"][0] == "no_default"


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("same", [True, False])
def test_pushes_at_the_same_time_come_one_after_the_other(world: World, same: bool) -> None:
    barrier = threading.Barrier(4)
    results: list[commands.PushResult] = []
    errors: list[BaseException] = []

    def run(number: int) -> None:
        try:
            barrier.wait(10)
            results.append(push(world, bash("a", priority=0 if same else number)))
        except BaseException as error:  # Shown by the assertion below.
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not errors
    assert Workflow.objects.count() == 1
    assert sorted(result.version.number for result in results) == ([1] * 4 if same else [1, 2, 3, 4])
    assert sum(result.created for result in results) == (1 if same else 4)
