"""Expanding mapped tasks: which instances lists make, against itertools; what is refused, and where."""

from itertools import product, zip_longest
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmctl.spec import ArgumentError, SpecError, parse_workflow
from rmctl.spec.mapping import Expansion, expand

lengths = st.integers(0, 5).map(lambda length: list(range(length)))
lists = st.dictionaries(st.sampled_from("zyxabc"), lengths, min_size=1, max_size=4)


def items(expansion: Expansion) -> list[dict[str, Any]]:
    return [expansion.item(index) for index in range(expansion.width)]


@given(lists)
def test_a_product_is_that_of_itertools(given: dict[str, list[int]]) -> None:
    found = expand({"over": given, "limit": 10**9}, given)
    if found.width < 1000:
        assert items(found) == [dict(zip(given, each, strict=True)) for each in product(*given.values())]
    for index in {0, found.width // 2, found.width - 1} & set(range(found.width)):
        assert list(found.item(index)) == list(given)
    for beyond in (-1, found.width):
        with pytest.raises(IndexError):
            found.item(beyond)


@given(lists, st.integers())
def test_a_zip_fills_up_as_itertools_does(given: dict[str, list[int]], fill: int) -> None:
    found = expand({"zip": given, "fill": fill, "limit": 100}, given)
    rows = zip_longest(*given.values(), fillvalue=fill)
    assert items(found) == [dict(zip(given, each, strict=True)) for each in rows]


def test_a_wide_product_is_never_written_out() -> None:
    given = {name: list(range(10_000)) for name in "abcd"}
    found = expand({"over": given, "limit": 10**18}, given)
    assert found.width == 10**16
    assert found.item(10**16 - 2) == {"a": 9999, "b": 9999, "c": 9999, "d": 9998}


@pytest.mark.parametrize(
    ("mapping", "given", "said"),
    [
        ({"over": {}}, {"x": {"a": 1}}, "only a list can be mapped over, and x is"),
        ({"over": {}}, {"x": None}, "x is null"),
        ({"over": {}}, {"x": range(0)}, "only a list"),
        ({"over": {}}, {"x": [0] * 101}, "x has 101 items; its limit is 100. Raise map.limit"),
        (
            {"over": {}},
            {"x": [0] * 20, "y": [0] * 30},
            r"20 \(x\) × 30 \(y\) are 600 instances; its limit is 100",
        ),
        ({"over": {}, "limit": 10_000}, {"x": [0] * 1000, "y": [0] * 100}, "are 100,000 instances.*Map over fewer"),
        ({"zip": {}}, {"x": [1, 2], "y": [1, 2, 3]}, "different lengths: x has 2 items, y has 3 items"),
        ({"kwargs": {}}, {"kwargs": [{"a": 1}, 7]}, "item 1 of kwargs must be an object"),
        ({"kwargs": {}}, {"kwargs": [{"not one": 1}]}, '"not one", which is not the name'),
        ({"kwargs": {}, "accepts": ["rows"]}, {"kwargs": [{"row": 1}]}, "unknown argument row; there are rows. Did"),
        ({"kwargs": {}}, {"kwargs": [{"shared": 1}]}, "gives shared, which all instances get already"),
    ],
)
def test_what_cannot_be_expanded_says_why(mapping: dict[str, Any], given: dict[str, Any], said: str) -> None:
    with pytest.raises(ArgumentError, match=said):
        expand({"limit": 100, **mapping}, given, ["shared"])


def workflow(mapping: dict[str, Any], **fields: Any) -> Any:
    task = {"id": "m", "kind": "bash", "script": "true", "map": mapping, **fields}
    return parse_workflow({"schema": 1, "name": "w", "tasks": [{"id": "a", "kind": "bash", "script": "true"}, task]})


@pytest.mark.parametrize(
    ("mapping", "fields", "said"),
    [
        ({}, {}, "exactly one of over, zip and kwargs"),
        ({"over": {"x": {"value": []}}, "zip": {"y": {"value": []}}}, {}, "over and zip"),
        ({"over": {"x": {"value": []}}, "fill": 1}, {}, "fill belongs to zip"),
        ({"over": {"x": {"value": []}}, "order": ["y"]}, {}, "order must name"),
        ({"zip": {}}, {}, "zip is empty"),
        ({"over": {"x": {"value": 3}, "y": {"result": "a"}}}, {}, "x is the number 3"),
        ({"over": {"x": {"value": [1] * 100}, "y": {"value": [1] * 100}}}, {}, "10,000 instances; its limit is 1,000"),
        ({"zip": {"x": {"value": [1]}, "y": {"value": []}}}, {}, "different lengths"),
        ({"kwargs": {"value": [{"x": 1}]}}, {"arguments": {"x": {"value": 1}}}, "x: given in both"),
        ({"kwargs": {"value": [{"x": 1, "X": 2}]}}, {}, "differ only in case"),
        ({"kwargs": {"value": [1]}}, {}, "item 0 of kwargs"),
        ({"over": {"x": {"value": []}}, "limit": 10_001}, {}, "10000"),
    ],
)
def test_a_definition_is_refused_with_what_is_wrong(mapping: Any, fields: Any, said: str) -> None:
    with pytest.raises(SpecError) as caught:
        workflow(mapping, **fields)
    [fault] = caught.value.errors
    assert fault["field"].startswith("tasks[1]") and said in fault["message"]


def test_a_stored_definition_keeps_the_order_of_its_product() -> None:
    made = workflow({"over": {"z": {"value": [1, 2]}, "a": {"result": "a"}}})
    stored = {**made.definition, "tasks": [dict(sorted(task.items())) for task in made.definition["tasks"]]}
    stored["tasks"][1]["map"] = {
        name: dict(sorted(value.items())) if isinstance(value, dict) else value
        for name, value in stored["tasks"][1]["map"].items()
    }
    again = parse_workflow(stored)
    assert again.digest() == made.digest()
    assert items(again.compiled["m"].expansion({"a": ["x", "y"]}, {})) == [
        {"z": 1, "a": "x"}, {"z": 1, "a": "y"}, {"z": 2, "a": "x"}, {"z": 2, "a": "y"}
    ]  # fmt: skip


@pytest.mark.parametrize("mapping", [{"zip": {"x": {"result": "a"}}}, {"kwargs": {"result": "a"}}])
def test_every_kind_of_map_waits_for_what_it_reads(mapping: Any) -> None:
    assert workflow(mapping).definition["tasks"][1]["upstream"] == ["a"]
    with pytest.raises(SpecError, match="does not exist"):
        workflow({next(iter(mapping)): {"result": "b"} if "kwargs" in mapping else {"x": {"result": "b"}}})
