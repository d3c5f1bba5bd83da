"""Variables and connections: encrypted at rest, given to the tasks that read them, and who may see and change them."""

import json
from typing import Any

import pytest
from django.test import Client

from apps.core.actors import SYSTEM
from apps.core.errors import Forbidden, Invalid, NotFound
from apps.events.models import Event
from apps.execution.dispatch import assignments
from apps.jobs.models import Placement
from apps.tenants import stored
from apps.tenants.models import StoredValue
from apps.workflows import commands
from apps.workflows.models import Task
from tests.apps.workflows.driver import bash, definition, step
from tests.personas import World
from tests.work import cycle, simulated_node

CONNECTION = {"type": "postgres", "host": "db.example", "login": "me", "password": "hunter2!", "port": 5432}


def fill(world: World) -> None:
    stored.set_variable(actor=SYSTEM, tenant=world.vision, name="limit", value="5")
    fields = {**CONNECTION, "extra": {"key": "kkkk"}}
    stored.set_connection(actor=SYSTEM, tenant=world.vision, name="db", fields=fields)


@pytest.mark.django_db
def test_nothing_is_readable_at_rest_or_in_events(world: World) -> None:
    fill(world)
    for row in StoredValue.objects.all():
        assert "hunter2!" not in row.ciphertext and "hunter2!" not in json.dumps(row.shown)
    assert not any("hunter2" in json.dumps(event.facts) for event in Event.objects.all())
    assert StoredValue.objects.get(name="db").shown == {k: v for k, v in CONNECTION.items() if k != "password"}


@pytest.mark.django_db
def test_a_connection_keeps_its_password_where_none_is_given(world: World) -> None:
    fill(world)
    stored.set_connection(actor=SYSTEM, tenant=world.vision, name="db", fields={"host": "other", "password": ""})
    [text] = stored.stored_values(world.vision.pk, ["connection:db"]).values()
    assert json.loads(text) == {"host": "other", "password": "hunter2!", "extra": {"key": "kkkk"}}
    assert StoredValue.objects.get(name="db").shown == {"host": "other"}


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("fields", "field"), [({"port": 70_000}, "port"), ({"host": "x" * 300}, "host"), ({"login": "a\0"}, "login")]
)
def test_wrong_fields_are_named(world: World, fields: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as refused:
        stored.set_connection(actor=SYSTEM, tenant=world.vision, name="db", fields=fields)
    assert refused.value.errors[0]["field"] == field


@pytest.mark.django_db
def test_admins_change_members_read_and_strangers_see_nothing(world: World) -> None:
    fill(world)
    assert stored.variable_of(world.actor("member"), world.vision, "limit").value == "5"  # type: ignore[attr-defined]
    with pytest.raises(Forbidden):
        stored.set_variable(actor=world.actor("member"), tenant=world.vision, name="limit", value="6")
    with pytest.raises(NotFound):
        stored.variable_of(world.actor("stranger"), world.vision, "limit")
    kind = StoredValue.Kind.VARIABLE
    assert not stored.list_stored(world.actor("stranger"), world.vision, kind).exists()
    stored.delete_stored(actor=SYSTEM, tenant=world.vision, kind=kind, name="limit")
    assert stored.stored_values(world.vision.pk, ["variable:limit"]) == {}


@pytest.mark.django_db
def test_no_route_gives_a_password(world: World, redis_empty: None) -> None:
    fill(world)
    headers = {"Authorization": f"Bearer {world.token('operator')}"}
    answer = Client().get("/api/v1/tenants/vision/connections", headers=headers)
    assert answer.status_code == 200 and b"hunter2" not in answer.content and b"kkkk" not in answer.content
    [row] = answer.json()["results"]
    assert (row["host"], row["port"], row["schema"]) == ("db.example", 5432, "")
    value = Client().get("/api/v1/tenants/vision/variables/limit", headers=headers).json()
    assert value["value"] == "5"


@pytest.mark.django_db
def test_an_unknown_one_is_refused_at_the_push(world: World) -> None:
    script = "{{ var.value.limit }} {{ var.value.get('none', 1) }} {{ conn.db.host }}"
    with pytest.raises(Invalid) as refused:
        commands.push(actor=SYSTEM, tenant=world.vision, definition=definition(bash("a", script=script)))
    [fault] = refused.value.errors
    assert fault["message"] == "Tenant vision has no connection db, variable limit."
    fill(world)
    commands.push(actor=SYSTEM, tenant=world.vision, definition=definition(bash("a", script=script)))


@pytest.mark.django_db
def test_the_assignment_has_what_the_task_reads_and_masks_what_is_secret(world: World) -> None:
    fill(world)
    simulated_node(world)
    script = "{{ var.value.limit }} {{ var.value.get('none', 1) }} {{ conn.db.host }}"
    workflow = commands.push(
        actor=SYSTEM, tenant=world.vision, definition=definition(bash("a", script=script))
    ).workflow
    commands.trigger(actor=SYSTEM, workflow_id=workflow.pk)
    step()
    cycle()
    task = Task.objects.get()
    placement = Placement.objects.get(attempt__job=task.job_id)
    [given], missing = assignments([placement.pk])
    assert missing == {}
    assert given.secrets["RM_VARIABLE_limit"] == "5"
    assert json.loads(given.secrets["RM_CONNECTION_db"])["password"] == "hunter2!"
    assert "RM_VARIABLE_none" not in given.secrets
    assert given.masked == ["RM_CONNECTION_db"]
    stored.delete_stored(actor=SYSTEM, tenant=world.vision, kind=StoredValue.Kind.CONNECTION, name="db")
    found, missing = assignments([placement.pk])
    assert found == [] and "connection db" in missing[placement.pk]
