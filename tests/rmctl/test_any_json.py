"""Whatever JSON arrives, a spec is accepted or refused with named fields; it never breaks."""

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmctl.spec import SpecError, parse_job, parse_workflow
from rmctl.spec.job import as_written

from .test_job_spec import FULL
from .test_workflow_spec import ETL

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["1", "a", "-1Gi"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


def places(data: Any, where: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every part of the data."""
    found = [where]
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, item in items:
        found += places(item, (*where, key))
    return found


def replaced(data: Any, where: tuple[Any, ...], value: Any) -> Any:
    """The data with one part exchanged."""
    if not where:
        return value
    changed = copy.deepcopy(data)
    inner = changed
    for key in where[:-1]:
        inner = inner[key]
    inner[where[-1]] = value
    return changed


def check(error: SpecError) -> None:
    assert error.errors
    assert str(error)
    for fault in error.errors:
        assert fault["message"]
        assert fault["code"]
        json.dumps(fault, allow_nan=False)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(places(FULL)), JSON)
def test_a_job_with_anything_anywhere(where: tuple[Any, ...], value: Any) -> None:
    try:
        job = parse_job(replaced(FULL, where, value))
    except SpecError as error:
        check(error)
    else:
        normal = json.loads(json.dumps(job.normalised(), allow_nan=False))
        assert parse_job(as_written(normal)).normalised() == normal


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(places(ETL)), JSON)
def test_a_workflow_with_anything_anywhere(where: tuple[Any, ...], value: Any) -> None:
    try:
        spec = parse_workflow(replaced(ETL, where, value))
    except SpecError as error:
        check(error)
    else:
        assert parse_workflow(json.loads(spec.canonical())).digest() == spec.digest()
        assert len(spec.compiled) == len(spec.definition["tasks"])


@pytest.mark.parametrize(
    "data", [{"\ud800": 1}, {"name": "\ud800", "groups": 1}, {"groups": [{"env": {"\udfff": "x"}}]}]
)
def test_errors_can_always_be_sent(data: dict[str, Any]) -> None:
    for parse in (parse_job, parse_workflow):
        with pytest.raises(SpecError) as refused:
            parse(data)
        str(refused.value).encode()
        json.dumps(refused.value.errors, ensure_ascii=False).encode()


def test_nesting_does_not_overflow() -> None:
    deep: dict[str, Any] = {"type": "array"}
    for _ in range(900):
        deep = {"type": "array", "items": deep}
    with pytest.raises(SpecError) as refused:
        parse_workflow({**ETL, "params": {"properties": {"models": deep}}})
    assert {fault["code"] for fault in refused.value.errors} == {"too_deep"}
