"""Limits and weights as authors write them: the same in Python and in YAML, and refused where they mean nothing."""

from typing import Any

import pytest

from rmctl import DAG, bash
from rmctl.sdk import yaml_loader
from rmctl.sdk.options import SdkError
from rmctl.spec import SpecError, parse_workflow

from .portal import FakePortal

YAML = """
name: load
max_active_tasks_all_runs: 20
weight_rule: critical_path
tasks:
  import: {script: ./import.sh, slots: {name: warehouse, count: 2}, max_active: 3, max_active_per_run: 1}
  index: {script: ./index.sh, slots: warehouse, weight: 10, weight_rule: absolute}
"""


def test_python_and_yaml_say_the_same() -> None:
    with DAG("load", max_active_tasks_all_runs=20, weight_rule="critical_path") as dag:
        bash("import", "./import.sh", slots={"name": "warehouse", "count": 2}, max_active=3, max_active_per_run=1)
        bash("index", "./index.sh", slots="warehouse", weight=10, weight_rule="absolute")
    written, _ = yaml_loader.workflow(YAML)
    spec = parse_workflow(dag.definition())
    assert spec.definition == parse_workflow(written).definition
    assert parse_workflow(spec.definition).digest() == spec.digest()
    assert spec.definition["weight_rule"] == "critical_path"
    assert spec.definition["tasks"][1]["slots"] == {"name": "warehouse", "count": 1}


def test_what_is_not_given_stands_in_no_definition() -> None:
    """So versions that were pushed before there were limits keep their digests."""
    with DAG("plain") as dag:
        bash("a", "true")
    text = parse_workflow(dag.definition()).canonical().decode()
    assert not any(name in text for name in ("slots", "max_active_per_run", "all_runs", "weight"))


@pytest.mark.parametrize(
    ("option", "told"),
    [("pool", "slots="), ("priority_weight", "weight"), ("max_active_tis_per_dag", "max_active")],
)
def test_who_knows_airflow_is_told_the_name(option: str, told: str) -> None:
    with DAG("load"), pytest.raises(SdkError, match=f"no option {option}; what Airflow calls so is {told}"):
        bash("a", "true", **{option: 1})


@pytest.mark.parametrize(
    ("fields", "field", "told"),
    [
        ({"slots": {"name": "w", "count": 0}}, "slots.count", "1"),
        ({"slots": {"name": "no good"}}, "slots.name", "is not an id"),
        ({"slots": {"nam": "w"}}, "slots.nam", "name"),
        ({"max_active": 0}, "max_active", "1"),
        ({"weight": -1}, "weight", "0"),
        ({"weight_rule": "heavy"}, "weight_rule", "critical_path"),
        ({"kind": "empty", "script": None, "max_active": 1}, "", "has no job and takes no place: remove max_active"),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_field(fields: dict[str, Any], field: str, told: str) -> None:
    task = {"id": "a", "kind": "bash", "script": "true", **fields}
    with pytest.raises(SpecError) as refused:
        parse_workflow({"schema": 1, "name": "load", "tasks": [{k: v for k, v in task.items() if v is not None}]})
    errors = [error for error in refused.value.errors if error["field"].startswith(f"tasks[0].{field}".rstrip("."))]
    assert any(told in error["message"] for error in errors), refused.value.errors


def test_slot_pools_on_the_command_line(portal: FakePortal, rm: Any) -> None:
    claim = {
        "name": "copy[1]", "workflow_name": "load", "run": 7, "slots": 2, "weight": 5.0,
        "since": "2026-07-01T22:00:00Z",
    }  # fmt: skip
    row = {"id": 3, "name": "warehouse", "tenant": "vision", "size": 4, "held": 2, "waiting": 1, "description": ""}
    portal.on("POST slot-pools", (201, row))
    assert rm("slots", "create", "warehouse", "4", "-t", "vision").out == "slot pool warehouse has 4 slots\n"
    assert portal.asked[-1].body == {"name": "warehouse", "size": 4, "description": "", "tenant": "vision"}
    portal.on("GET slot-pools", (200, {"next": None, "results": [row]}))
    portal.on("GET slot-pools/3", (200, {**row, "held_by": [claim], "in_line": [{**claim, "name": "late"}]}))
    shown = rm("slots", "show", "warehouse").out
    assert "2 of 4 slots held, 1 waiting" in shown and shown.index("copy[1]") < shown.index("late")
    portal.on("PATCH slot-pools/3", (200, {**row, "size": 0}))
    assert "2 of 0 slots held" in rm("slots", "set", "3", "--size", "0").out
    assert portal.asked[-1].body == {"size": 0}
    assert rm("slots", "set", "3").status == 2
    assert "There is no slot pool other" in rm("slots", "show", "other").err
    portal.on("DELETE slot-pools/3", (204, None))
    assert rm("slots", "delete", "warehouse").status == 0
