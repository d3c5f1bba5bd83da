"""The job spec: its normal form, and every refusal naming its field."""

import copy
import json
from typing import Any

import pytest

from rmctl.spec import SpecError, job_schema, parse_job
from rmctl.spec.job import as_written

FULL: dict[str, Any] = {
    "name": "train",
    "tenant": "vision",
    "groups": [
        {
            "name": "main",
            "count": 2,
            "command": ["python", "train.py"],
            "script": None,
            "image": None,
            "env": {"A": "b"},
            "secrets": {"TOKEN": "hub-token"},
            "resources": {
                "cpu": "500m",
                "cpu_limit": "2",
                "memory": "512Mi",
                "storage": "1Gi",
                "pids": 256,
                "gpu": {"count": 1, "milli": 500, "models": ["A100"], "memory": "40Gi"},
            },
        }
    ],
    "intent": {
        "pool": "default",
        "require": {
            "labels": {"zone": ["a", "b"]},
            "regions": ["eu"],
            "trust": 1,
            "tolerations": [{"key": "k", "value": "v", "effect": "NoSchedule"}],
            "nodes": [{"label": "cores", "operator": "Gt", "values": ["8"]}],
            "architectures": ["x86_64"],
            "cpu_flags": ["avx2"],
            "interconnects": ["nvlink"],
            "packages": ["scikit-learn"],
            "python": "3.11",
            "gpu_compute": "8.0",
            "gpu_driver": "535.104",
            "max_price": 2.5,
        },
        "prefer": [{"label": "disk", "values": ["ssd"], "weight": 10}],
        "placement": "spread",
        "goals": {"cost": 5},
        "together": {
            "levels": ["zone", "rack"],
            "constraint": "preferred",
            "level": "zone",
            "slice_level": "rack",
            "slice_size": 2,
        },
    },
    "priority": 5,
    "time_limit": "1h",
    "retries": {"limit": 3, "delay": "5s", "factor": 2.0, "max_delay": "5m", "jitter": 0.2},
    "bundle": "a" * 64,
    "inputs": {"any": ["JSON", 1, None]},
}


def small(**group: Any) -> dict[str, Any]:
    return {"groups": [{"script": "true", **group}]}


def faults(data: Any) -> dict[str, str]:
    """field → code of a job that is refused."""
    with pytest.raises(SpecError) as refused:
        parse_job(data)
    assert all(error["message"] and error["code"] for error in refused.value.errors)
    return {error["field"]: error["code"] for error in refused.value.errors}


def message(data: Any) -> str:
    with pytest.raises(SpecError) as refused:
        parse_job(data)
    return refused.value.errors[0]["message"]


def test_normal_form_has_plain_integers() -> None:
    normal = parse_job(FULL).normalised()
    group = normal["groups"][0]
    assert group["resources"] == {
        "cpu_millicores": 500,
        "cpu_limit_millicores": 2000,
        "memory_bytes": 512 * 2**20,
        "storage_bytes": 2**30,
        "pids": 256,
        "gpu": {"count": 1, "milli": 500, "models": ["A100"], "memory_bytes": 40 * 2**30},
    }
    assert (normal["time_limit"], normal["retries"]["delay"], normal["retries"]["max_delay"]) == (
        3600,
        5,
        300,
    )
    assert normal["intent"]["require"]["labels"] == {"zone": ["a", "b"]}
    assert "tenant" not in normal
    assert json.loads(json.dumps(normal)) == normal


def test_defaults() -> None:
    normal = parse_job(small()).normalised()
    assert normal["name"] == "job"
    assert normal["groups"][0]["resources"] == {
        "cpu_millicores": 100,
        "cpu_limit_millicores": 1000,
        "memory_bytes": 128 * 2**20,
        "storage_bytes": 256 * 2**20,
        "pids": 256,
        "gpu": None,
    }
    assert (
        parse_job(small(resources={"cpu": 4})).normalised()["groups"][0]["resources"]["cpu_limit_millicores"]
        == 4000
    )


@pytest.mark.parametrize("data", [FULL, small(), small(resources={"gpu": {}})])
def test_normal_form_can_be_read_back(data: dict[str, Any]) -> None:
    normal = parse_job(data).normalised()
    assert parse_job(as_written(normal)).normalised() == normal


@pytest.mark.parametrize(
    ("change", "field", "code"),
    [
        ({"cpus": 1}, "cpus", "unknown_field"),
        ({"groups": []}, "groups", "out_of_range"),
        ({"groups": "x"}, "groups", "wrong_type"),
        ({"groups": [7]}, "groups[0]", "wrong_type"),
        ({"name": ""}, "name", "out_of_range"),
        ({"name": "a\nb"}, "name", "bad_name"),
        ({"tenant": "No Such"}, "tenant", "bad_slug"),
        ({"priority": 1001}, "priority", "out_of_range"),
        ({"priority": "high"}, "priority", "wrong_type"),
        ({"priority": True}, "priority", "wrong_type"),
        ({"time_limit": "0s"}, "time_limit", "absurd_quantity"),
        ({"time_limit": -5}, "time_limit", "negative"),
        ({"bundle": "abc"}, "bundle", "bad_digest"),
        ({"inputs": {"x": float("nan")}}, "inputs.x", "not_finite"),
        ({"inputs": {"x": "a\0b"}}, "inputs.x", "bad_character"),
        ({"inputs": {"x": "\ud800"}}, "inputs.x", "bad_character"),
        ({"retries": {"limit": -1}}, "retries.limit", "out_of_range"),
        ({"retries": {"factor": 0.5}}, "retries.factor", "out_of_range"),
        ({"retries": {"jitter": float("inf")}}, "retries.jitter", "finite_number"),
        ({"intent": {"placement": "random"}}, "intent.placement", "not_a_choice"),
        ({"intent": {"together": {"levels": ["a", "a"]}}}, "intent.together", "duplicate_level"),
        ({"intent": {"together": {"levels": ["a"], "slice_size": 2}}}, "", "bad_slices"),
        (
            {"intent": {"together": {"levels": ["a", "b"], "slice_level": "a"}}},
            "intent.together",
            "contradiction",
        ),
        ({"intent": {"apart": {"key": "rack"}}}, "intent.apart", "required"),
        ({"intent": {"apart": {"most": 0}}}, "intent.apart.most", "out_of_range"),
        ({"intent": {"require": {"nodes": [{"label": "a"}]}}}, "intent.require.nodes[0]", "bad_expression"),
        ({"intent": {"require": {"max_price": float("nan")}}}, "intent.require.max_price", "finite_number"),
        ({"intent": {"require": {"zone": "a"}}}, "intent.require.zone", "unknown_field"),
        ({"intent": {"prefer": [{"label": "a", "values": []}]}}, "intent.prefer[0].values", "out_of_range"),
    ],
)
def test_a_wrong_field_is_named(change: dict[str, Any], field: str, code: str) -> None:
    assert faults({**small(), **change}) == {field: code}


@pytest.mark.parametrize(
    ("group", "field", "code"),
    [
        ({"command": ["true"]}, "", "command_or_script"),
        ({"script": None}, "", "command_or_script"),
        ({"script": "  \n"}, ".script", "empty"),
        ({"script": "x" * 130_000}, ".script", "too_large"),
        ({"script": None, "command": []}, ".command", "out_of_range"),
        ({"script": None, "command": [" "]}, ".command", "empty"),
        ({"script": None, "command": "ls -l"}, ".command", "wrong_type"),
        ({"count": 0}, ".count", "out_of_range"),
        ({"count": 1.5}, ".count", "wrong_type"),
        ({"image": "-v /:/host"}, ".image", "bad_image"),
        ({"env": {"A B": "x"}}, ".env.A B", "bad_variable"),
        ({"env": {"RM_RESULT": "x"}}, ".env.RM_RESULT", "reserved_variable"),
        ({"env": {"N": 1}}, ".env.N", "wrong_type"),
        ({"secrets": {"RM_X": "a"}}, ".secrets.RM_X", "reserved_variable"),
        ({"secrets": {"X": "not a name"}}, ".secrets.X", "bad_secret"),
        ({"env": {"X": "1"}, "secrets": {"X": "a"}}, "", "variable_twice"),
        ({"resources": {"cpu": float("nan")}}, ".resources.cpu", "bad_quantity"),
        ({"resources": {"cpu": -1}}, ".resources.cpu", "negative"),
        ({"resources": {"cpu": 10**30}}, ".resources.cpu", "absurd_quantity"),
        ({"resources": {"memory": "512m"}}, ".resources.memory", "bad_quantity"),
        ({"resources": {"memory": 128}}, ".resources.memory", "absurd_quantity"),
        ({"resources": {"cpu": 2, "cpu_limit": 1}}, ".resources", "limit_below_request"),
        ({"resources": {"pids": 0}}, ".resources.pids", "out_of_range"),
        ({"resources": {"gpu": {"count": 0}}}, ".resources.gpu.count", "out_of_range"),
        ({"resources": {"gpu": {"count": 2, "milli": 500}}}, ".resources.gpu", "bad_share"),
        ({"resources": {"gpu": 1}}, ".resources.gpu", "wrong_type"),
    ],
)
def test_a_wrong_field_of_a_group_is_named(group: dict[str, Any], field: str, code: str) -> None:
    assert faults(small(**group)) == {f"groups[0]{field}": code}


def test_every_fault_is_reported_at_once() -> None:
    data = copy.deepcopy(FULL)
    data["prio"] = 1
    data["time_limit"] = "soon"
    data["groups"][0]["resources"]["memory"] = "-1Gi"
    data["groups"][0]["env"] = {"RM_A": "1"}
    assert set(faults(data)) == {"prio", "time_limit", "groups[0].resources.memory", "groups[0].env.RM_A"}


def test_messages_say_what_would_be_right() -> None:
    assert "Did you mean memory?" in message(small(resources={"memry": "1Gi"}))
    assert "Put it in quotes" in message(small(env={"N": 1}))
    assert "exactly one of command and script; both" in message(small(command=["true"]))
    assert "Accepted here: name, tenant, groups" in message({**small(), "zzz": 1})


def test_groups_need_names_of_their_own_and_stay_countable() -> None:
    assert faults({"groups": [{"script": "a"}, {"script": "b"}]}) == {"": "duplicate_group"}
    many = [{"name": f"g{n}", "script": "a", "count": 6000} for n in range(2)]
    assert faults({"groups": many}) == {"": "too_many_members"}


@pytest.mark.parametrize("data", [None, [], "x", 3])
def test_a_job_is_an_object(data: Any) -> None:
    assert faults(data) == {"": "wrong_type"}


def test_size_and_depth_have_limits() -> None:
    assert faults({**small(), "inputs": {"x": "a" * 1_100_000}}) == {"": "too_large"}
    deep: Any = 1
    for _ in range(200):
        deep = [deep]
    assert set(faults({**small(), "inputs": {"x": deep}}).values()) == {"too_deep"}


def test_schema_refuses_unknown_fields() -> None:
    schema = job_schema()
    assert schema["additionalProperties"] is False
    assert schema["$defs"]["Resources"]["properties"]["cpu"]["default"] == "100m"
