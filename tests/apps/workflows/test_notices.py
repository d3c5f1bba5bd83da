"""What a push warns of: what is named but not there yet, and what has come to be wrong with a known version."""

from typing import Any

import pytest

from apps.core.actors import SYSTEM
from apps.tenants import stored
from apps.workflows import commands
from apps.workflows.commands.datasets import update_dataset
from tests.apps.workflows.driver import bash, definition
from tests.personas import World

pytestmark = pytest.mark.django_db


def warned(world: World, *tasks: dict[str, Any], name: str = "flow", **fields: Any) -> dict[str, str]:
    pushed = commands.push(actor=SYSTEM, tenant=world.vision, definition=definition(*tasks, name=name, **fields))
    return {warning["field"]: warning["code"] for warning in pushed.warnings}


def test_workflows_that_are_not_there_yet(world: World) -> None:
    waits = {"id": "w", "kind": "wait_for_run", "wait_for_run": {"workflow": "other"}}
    starts = {"id": "t", "kind": "trigger_run", "trigger_run": {"workflow": "flow"}}
    assert warned(world, starts, waits) == {"tasks[1].wait_for_run.workflow": "unknown_workflow"}
    warned(world, bash("a"), name="other")
    assert warned(world, starts, waits) == {}


def test_datasets_that_nothing_updates(world: World) -> None:
    waited = {"all": ["s3://made", "s3://hooked", "s3://told", "s3://own", "s3://silent"]}
    warned(world, bash("a", outlets=["s3://made"]), name="maker")
    commands.create_webhook(actor=SYSTEM, tenant=world.vision, name="h", dataset="s3://hooked")
    update_dataset(actor=SYSTEM, tenant=world.vision, uri="s3://told")
    update_dataset(actor=SYSTEM, tenant=world.speech, uri="s3://silent")
    pushed = commands.push(
        actor=SYSTEM, tenant=world.vision, definition=definition(bash("a", outlets=["s3://own"]), datasets=waited)
    )
    assert [(w["code"], "s3://silent" in w["message"]) for w in pushed.warnings] == [("silent_dataset", True)]


def test_tasks_that_can_never_run(world: World) -> None:
    joint = {"id": "a", "kind": "empty"}
    never = bash("b", upstream=["a"], trigger_rule="all_failed")
    assert warned(world, joint, never, bash("c", upstream=["b"], trigger_rule="all_done")) == {
        "tasks[1].trigger_rule": "unreachable"
    }


def test_a_known_version_whose_connection_has_gone_is_a_warning(world: World) -> None:
    stored.set_connection(actor=SYSTEM, tenant=world.vision, name="db", fields={"host": "h"})
    assert warned(world, bash("a", connections=["db"])) == {}
    stored.delete_stored(actor=SYSTEM, tenant=world.vision, kind="connection", name="db")
    assert warned(world, bash("a", connections=["db"])) == {"tasks[0].secrets": "unknown_secret"}


def test_a_dry_run_does_without_the_bundle(api: Any, world: World) -> None:
    task = {"id": "a", "kind": "python", "file": "a.py", "function": "f"}
    waits = {"id": "w", "kind": "wait_for_run", "wait_for_run": {"workflow": "other"}}
    body = {"tenant": "vision", "definition": definition(task, waits, bundle="0" * 64), "bundle_follows": True}
    answer = api.member.post("workflows?dry_run=1", body)
    assert answer.status_code == 201
    assert [warning["code"] for warning in answer.json()["warnings"]] == ["unknown_workflow"]
    answer = api.member.post("workflows", body)
    assert answer.status_code == 422 and answer.json()["errors"][0]["field"] == "bundle_follows"
    answer = api.member.post("workflows?dry_run=1", {**body, "bundle_follows": False})
    assert answer.json()["errors"][0]["code"] == "unknown_bundle"
