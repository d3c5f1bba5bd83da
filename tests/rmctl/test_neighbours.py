"""Labels of jobs and tasks, and what an intent says of other jobs and of data."""

from typing import Any

import pytest

from rmctl.spec import SpecError, parse_job
from rmctl.spec.workflow import WorkflowSpec

DB: dict[str, Any] = {"jobs": {"app": ["db"]}, "key": "zone"}


def job(**more: Any) -> dict[str, Any]:
    return parse_job({"groups": [{"script": "true"}], **more}).normalised()


def fault(**more: Any) -> str:
    with pytest.raises(SpecError) as refused:
        job(**more)
    return str(refused.value)


def test_labels_are_kept_with_the_job() -> None:
    assert job(labels={"app": "web", "empty": ""})["labels"] == {"app": "web", "empty": ""}
    assert "is not a label key" in fault(labels={"-x": "y"})
    assert "is not a label value" in fault(labels={"x": "not one"})


def test_a_task_adds_its_labels_to_those_of_its_workflow() -> None:
    spec = WorkflowSpec.model_validate(
        {
            "schema": 1,
            "name": "etl",
            "defaults": {"labels": {"app": "etl", "tier": "low"}},
            "tasks": [{"id": "a", "kind": "bash", "script": "true", "labels": {"tier": "high"}}],
        }
    )
    made = spec.compiled["a"].job({}, run_id=1, logical_time="")
    assert made["labels"] == {"app": "etl", "tier": "high"}


@pytest.mark.parametrize(
    ("near", "away", "contradict"),
    [
        (DB, DB, True),
        ({**DB, "key": "node"}, DB, True),
        (DB, {**DB, "key": "node"}, False),
        ({"jobs": {"app": ["db"], "tier": ["high"]}, "key": "zone"}, DB, True),
        (DB, {"jobs": {"app": ["db"], "tier": ["high"]}, "key": "zone"}, False),
        ({**DB, "weight": 3}, DB, False),
        (DB, {"jobs": {"app": ["web"]}, "key": "zone"}, False),
    ],
)
def test_near_and_away_contradict_where_nobody_is_left(near: Any, away: Any, contradict: bool) -> None:
    intent = {"near": [near], "away": [away]}
    if contradict:
        assert "too near for the other" in fault(intent=intent)
    else:
        job(intent=intent)


def test_other_contradictions_name_both() -> None:
    absent = {"nodes": [{"label": "zone", "operator": "DoesNotExist"}]}
    told = fault(intent={"near": [DB], "require": absent})
    assert "near wants jobs with app=db on the same zone and require.nodes wants nodes without the label zone" in told
    assert "no group has an image" in fault(intent={"require": {"image_present": True}})
    assert "name the users' region" in fault(intent={"goals": {"latency": 1}})
    assert "is not a jurisdiction" in fault(intent={"require": {"jurisdictions": ["Germany"]}})
    assert "is not the name of a dataset" in fault(intent={"datasets": ["a/b"]})
