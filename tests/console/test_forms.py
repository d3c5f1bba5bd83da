"""Forms as data, without a browser and without a database."""

import pytest

from apps.console import forms
from apps.core.errors import Invalid
from rmctl.spec import parse_job

SCHEMA = {
    "type": "object",
    "required": ["path"],
    "properties": {
        "path": {"type": "string"},
        "limit": {"type": "integer", "default": 3, "minimum": 1, "maximum": 9},
        "deep": {"type": "boolean", "default": True},
        "mode": {"type": "string", "enum": ["fast", "exact"], "default": "fast"},
        "models": {"type": "array", "items": {"type": "string"}},
    },
}


def test_every_field_of_the_job_form_has_a_path_and_back() -> None:
    form = forms.job_form([("vision", "Vision")], ["default"])
    assert set(form.fields) == set(forms.JOB_PATHS)
    for name, path in forms.JOB_PATHS.items():
        assert forms.owner(path, forms.JOB_PATHS) == name
        assert forms.owner(f"{path}.x[3]", forms.JOB_PATHS) == name
    assert forms.owner("groups[0].resources.gpu", forms.JOB_PATHS) == ""
    assert forms.owner("namesake", forms.JOB_PATHS) == ""


def test_a_job_goes_into_the_form_and_comes_out_the_same() -> None:
    typed = {
        "name": "train", "kind": "command", "command": "python -c 'print(1)'", "image": "python:3.12", "count": "2",
        "cpu": "1500m", "memory": "2Gi", "storage": "1Gi", "gpu_count": "1", "gpu_models": "A100, H100",
        "pool": "default", "placement": "spread", "labels": "zone=a, b\ndisk=ssd", "env": "A=1\nB=x=y",
        "secrets": "TOKEN=hub", "priority": "-5", "time_limit": "2h", "retries": "1",
        "min_count": "1", "on_preempt": "fail", "notice": "90s",
        "gpu_compute": "8.0", "architectures": "x86_64, aarch64", "max_price": "2.5", "together": "rack",
        "regions": "eu, us", "jurisdictions": "EU", "trust": "1", "cpu_flags": "avx2", "interconnects": "nvlink",
        "gpu_driver": "535", "python": "3.11", "packages": "numpy", "image_present": "true",
        "datasets": "maps", "datasets_there": "corpus",
        "near_region": "eu", "goal_cost": "5", "goal_latency": "2", "job_labels": "app=trainer\nenv=prod",
        "near": "app=cache|db env=prod on zone, weight 5\napp=web", "away": "app=trainer on node",
    }  # fmt: skip
    spec = parse_job(forms.job_data(typed)).normalised()
    assert spec["intent"]["require"]["labels"] == {"zone": ["a", "b"], "disk": ["ssd"]}
    assert (spec["groups"][0]["min_count"], spec["on_preempt"], spec["notice"]) == (1, "fail", 90)
    assert spec["intent"]["require"]["gpu_compute"] == "8.0" and spec["intent"]["require"]["max_price"] == 2.5
    assert spec["intent"]["together"]["levels"] == ["rack"]
    assert spec["groups"][0]["env"] == {"A": "1", "B": "x=y"}
    assert spec["labels"] == {"app": "trainer", "env": "prod"} and spec["intent"]["goals"] == {"cost": 5, "latency": 2}
    assert spec["intent"]["near"] == [
        {"jobs": {"app": ["cache", "db"], "env": ["prod"]}, "key": "zone", "weight": 5},
        {"jobs": {"app": ["web"]}, "key": "node", "weight": None},
    ]
    require = spec["intent"]["require"]
    assert (require["regions"], require["trust"], require["image_present"]) == (["eu", "us"], 1, True)
    again = parse_job(forms.job_data(forms.job_values(spec))).normalised()
    assert again == spec


@pytest.mark.parametrize(
    ("name", "value", "field"),
    [
        ("count", "two", "groups[0].count"),
        ("near", "trainer", "intent.near"),
        ("away", "app=db at zone", "intent.away"),
        ("goal_cost", "much", "intent.goals.cost"),
        ("trust", "high", "intent.require.trust"),
        ("job_labels", "trainer", "labels"),
        ("min_count", "few", "groups[0].min_count"),
        ("priority", "1.5", "priority"),
        ("env", "NOVALUE", "groups[0].env"),
        ("labels", "=x", "intent.require.labels"),
        ("retries", "９", "retries.limit"),
        ("max_price", "-1", "intent.require.max_price"),
        ("max_price", "nan", "intent.require.max_price"),
        ("max_price", "1.", "intent.require.max_price"),
    ],
)
def test_what_cannot_be_read_names_its_field(name: str, value: str, field: str) -> None:
    with pytest.raises(Invalid) as refused:
        forms.job_data({"kind": "script", "script": "true", name: value})
    assert [fault["field"] for fault in refused.value.errors] == [field]


def test_the_form_of_parameters() -> None:
    form = forms.params_form(SCHEMA)
    kinds = {name: (field.kind, field.value, field.optional) for name, field in form.fields.items()}
    assert kinds == {
        "path": ("text", "", False),
        "limit": ("text", "3", False),
        "deep": ("check", True, False),
        "mode": ("select", '"fast"', False),
        "models": ("textarea", "", True),
    }
    assert form["limit"].help == "integer, 1 to 9"


def test_parameters_are_read_by_their_type() -> None:
    typed = {"path": "12", "limit": "4", "mode": '"exact"', "models": '["a"]'}
    assert forms.params_data(SCHEMA, typed) == {
        "path": "12",
        "limit": 4,
        "deep": False,
        "mode": "exact",
        "models": ["a"],
    }
    assert forms.params_data(SCHEMA, {"deep": "true"}) == {"deep": True}
    with pytest.raises(Invalid) as refused:
        forms.params_data(SCHEMA, {"limit": "four", "models": "["})
    assert [fault["field"] for fault in refused.value.errors] == ["params.limit", "params.models"]
