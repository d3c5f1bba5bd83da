"""Mapping in the SDK and in YAML: what it means as a definition."""

from typing import Any

import pytest
import yaml

from rmctl import DAG, Dataset, approval, bash, param, task, trigger_run, zipped
from rmctl.sdk import yaml_loader
from rmctl.spec import parse_workflow


@task
def train(model: str, rate: float, seed: int = 0) -> None:
    """Only its name is looked at."""


@task
def anything(**fields: Any) -> None:
    """Takes any argument."""


def maps(dag: DAG) -> dict[str, Any]:
    definition = dag.definition(file_of=lambda function: "file.py")
    parsed = parse_workflow({**definition, "bundle": "a" * 64}).definition
    return {made["id"]: made.get("map") for made in parsed["tasks"]}


def test_every_way_to_map() -> None:
    with DAG("d", params={"rates": [0.1]}) as dag:
        rows = bash("rows", "echo")
        train.partial(seed=1).expand(rate=param("rates"), model=["a", "b"])
        train.override(id="zip").expand_zip(model=rows["models"], rate=rows["rates"])
        train.override(id="fill").expand_zip(model=["a", "b"], rate=[0.5], fillvalue=None)
        train.override(id="kwargs").partial(seed=2).expand_kwargs(rows)
        train.override(id="literal").expand_kwargs([{"model": "a", "rate": 1}])
        anything.override(map_limit=7).expand_kwargs(rows["all"])
    assert maps(dag) == {
        "rows": None,
        "train": {
            "over": {"rate": {"param": "rates"}, "model": {"value": ["a", "b"]}},
            "order": ["rate", "model"], "limit": 1000,
        },
        "zip": {
            "zip": {"model": {"result": "rows", "key": "models"}, "rate": {"result": "rows", "key": "rates"}},
            "limit": 1000,
        },
        "fill": {"zip": {"model": {"value": ["a", "b"]}, "rate": {"value": [0.5]}}, "fill": None, "limit": 1000},
        "kwargs": {"kwargs": {"result": "rows"}, "accepts": ["model", "rate"], "limit": 1000},
        "literal": {
            "kwargs": {"value": [{"model": "a", "rate": 1}]}, "accepts": ["model", "rate", "seed"], "limit": 1000
        },
        "anything": {"kwargs": {"result": "rows", "key": "all"}, "limit": 7},
    }  # fmt: skip


def test_mapping_over_a_mapped_task_and_expand_of_other_kinds() -> None:
    with DAG("d") as dag:
        first = bash("first", "echo $RM_ARG_X$RM_ARG_Y", expand={"x": [1, 2], "y": ["a", "b"]})
        bash("second", "true", expand={"x": first})
        bash("pairs", "true", expand=zipped(x=first, y=[1, 2, 3, 4]))
        bash("rows", "true", expand=[{"x": 1}, {"y": 2}])
        trigger_run("runs", "other", expand=zipped(day=[1, 2], hour=[3, 4]))
        approval("ask", "Go?", expand={"model": first})
    found = maps(dag)
    assert found["first"]["order"] == ["x", "y"]
    assert found["second"] == {"over": {"x": {"result": "first"}}, "limit": 1000}
    assert found["pairs"]["zip"] == {"x": {"result": "first"}, "y": {"value": [1, 2, 3, 4]}}
    assert found["rows"]["kwargs"] == {"value": [{"x": 1}, {"y": 2}]}
    assert found["runs"]["zip"] == {"day": {"value": [1, 2]}, "hour": {"value": [3, 4]}}
    assert found["ask"] == {"over": {"model": {"result": "first"}}, "limit": 1000}


@pytest.mark.parametrize(
    "mapping",
    [
        {"over": {"z": {"value": [1]}, "a": {"value": [2, 3]}}},
        {"zip": {"z": {"value": [1]}, "a": {"value": [2, 3]}}, "fill": 0},
        {"kwargs": {"value": [{"a": 1}]}, "accepts": ["a", "b"]},
    ],
)
def test_yaml_means_the_same_and_comes_back(mapping: dict[str, Any]) -> None:
    given = {"name": "w", "tasks": {"m": {"script": "true", "map": mapping}}}
    data, _ = yaml_loader.workflow(yaml.safe_dump(given, sort_keys=False))
    spec = parse_workflow(data)
    assert {**spec.definition["tasks"][0]["map"], "order": None} == {**mapping, "limit": 1000, "order": None}
    assert parse_workflow(spec.definition).digest() == spec.digest()


def test_a_dataset_is_no_list() -> None:
    with DAG("d"), pytest.raises(ValueError, match="Dataset"):
        bash("b", "true", expand={"x": Dataset("s3://a")}).definition()
