"""Names of the instances of a mapped task: look-ups, their limits, and what they refuse."""

import time
from typing import Any

import pytest

from rmctl.spec import SpecError, parse_workflow
from rmctl.spec.labels import LABEL_CHARACTERS, label

ROW = {"city": "Bern", "tags": ["a", "b"], "at": {"lat": 46.9}}
INPUTS = {"row": ROW, "n": 3, "path": "s3://lake/2026/bern.csv"}


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("{{ row.city }} {{ n }}", "Bern 3"),
        ("{{ row['city'] | upper ~ '-' ~ n }}", "BERN-3"),
        ("{{ task.op_kwargs['row']['at'].lat }}", "46.9"),
        ("{{ row.tags | join('+') }} of {{ row.tags | length }}", "a+b of 2"),
        ("{{ path[-8:-4] }}, {{ path[:2] }}, {{ row.tags[-1] }}", "bern, s3, b"),
        ("{{ ti.map_index }}/{{ map_index }} {{ task.task_id }} {{ params.who }}", "7/7 t me"),
        ("{{ row.at }}", '{"lat": 46.9}'),
        ("{{ row.country | default('?') }}", "?"),
        ("{{ row.at.lat | round | int }}", "47"),
        ("a\n\tb\0c", "a  b c"),
        ("{{ row.country }}", "(no name: there is no row.country)"),
        ("{{ row.tags[5] }}", "(no name: there is no row.tags[5])"),
        ("{{ n.x }}", "(no name: there is no n.x)"),
        ("{{ gone }}", "(no name: there is no gone)"),
        ("{{ n | first }}", "(no name: n|first does not go with '3')"),
        ("{{ row.city.__class__ }}", "(no name: there is no row.city.__class__)"),
        (" ", "(no name: it is empty)"),
    ],
)
def test_names(text: str, name: str) -> None:
    assert label(text, "t", 7, INPUTS, {"who": "me"}) == name


def test_a_name_costs_little_whatever_is_looked_up() -> None:
    huge = {"x": "x" * 10**6, "rows": [{"k": "v" * 100}] * 10**5}
    begun = time.process_time()
    for text in ("{{ x" + "|upper" * 50 + " }}", "{{ rows }}", "{{ rows|join(rows) }}", "{{ x" + "~x" * 100 + "}}"):
        assert len(label(text, "t", 0, huge, {})) == LABEL_CHARACTERS
    assert time.process_time() - begun < 1


def definition(text: str, **task: Any) -> dict[str, Any]:
    mapping = {"over": {"x": {"value": [1]}}, "label": text}
    made = {"id": "t", "kind": "bash", "script": "true", "map": mapping, "arguments": {"y": {"value": 1}}, **task}
    params = {"properties": {"who": {"type": "string", "default": ""}}}
    return {"schema": 1, "name": "w", "tasks": [made], "params": params}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{{ x", "unexpected end of template"),
        ("{% if x %}a{% endif %}", "no {% … %}"),
        ("{{ 9 ** 9 ** 9 }}", "A pow has no place in it"),
        ("{{ 'x' * 9 }}", "A mul has no place in it"),
        ("{{ x.upper() }}", "A call has no place in it"),
        ("{{ x | replace('a', 'b') }}", "no filter replace here"),
        ("{{ x | join(',', 'k') }}", "at most one value"),
        ("{{ xx }}", "there is no xx here, only the task's arguments, params"),
        ("{{ ds }}", "there is no ds here"),
        ("{{ params.whom }}", "params.whom: the workflow has no such parameter. Did you mean who?"),
        ("x" * 501, "at most 500 characters"),
    ],
)
def test_what_is_no_name_is_refused_at_the_push(text: str, said: str) -> None:
    with pytest.raises(SpecError) as refused:
        parse_workflow(definition(text))
    [fault] = refused.value.errors
    assert fault["field"] == "tasks[0].map.label" and said in fault["message"]


def test_names_of_objects_of_arguments_are_not_known_before() -> None:
    mapping = {"kwargs": {"value": [{"city": "Bern"}]}, "label": "{{ city }} {{ country }} {{ params.who }}"}
    compiled = parse_workflow(definition("", map=mapping)).compiled["t"]
    assert compiled.named(0, {"city": "B", "country": "CH"}, {"who": 1}) == "B CH 1"
    assert parse_workflow(definition("{{ x }}{{ y }}")).compiled["t"].named(0, {"x": 1, "y": 2}, {}) == "12"
