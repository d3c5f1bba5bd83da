"""Workflow definitions: canonical form, every kind of fault, and the jobs their tasks become."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmctl.spec import (
    ArgumentError,
    SpecError,
    check_params,
    parse_job,
    parse_workflow,
    task_job,
    workflow_schema,
)
from rmctl.spec.errors import FAULTS_TOLD
from rmctl.spec.graph import find_cycle

BUNDLE = "b" * 64
ETL: dict[str, Any] = {
    "schema": 1,
    "name": "etl",
    "schedule": "@daily",
    "timezone": "Europe/Berlin",
    "bundle": BUNDLE,
    "params": {"type": "object", "properties": {"models": {"type": "integer", "default": 5, "minimum": 1}}},
    "defaults": {"resources": {"cpu": "200m", "memory": "256Mi"}, "retries": {"limit": 1}, "env": {"A": "1"}},
    "tasks": [
        {
            "id": "check",
            "kind": "python",
            "file": "a.py",
            "function": "check",
            "arguments": {"path": {"value": "x"}},
        },
        {
            "id": "demand",
            "kind": "python",
            "file": "a.py",
            "function": "demand",
            "arguments": {"rows": {"result": "check"}, "limit": {"param": "models"}},
            "map": {"over": {"model": {"result": "check", "key": "models"}}, "limit": 3},
        },
        {
            "id": "done",
            "kind": "bash",
            "script": "echo $RM_RUN_ID",
            "upstream": ["demand"],
            "arguments": {"names": {"result": "demand"}, "who": {"value": "you"}},
            "resources": {"cpu": 1},
            "env": {"B": "2"},
        },
    ],
}


def bash(identifier: str, *upstream: str, **fields: Any) -> dict[str, Any]:
    return {"id": identifier, "kind": "bash", "script": "true", "upstream": list(upstream), **fields}


def flow(*tasks: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"name": "x", "tasks": list(tasks), **fields}


def errors(data: Any) -> dict[str, tuple[str, str]]:
    """field → (code, message) of a definition that is refused."""
    with pytest.raises(SpecError) as refused:
        parse_workflow(data)
    return {error["field"]: (error["code"], error["message"]) for error in refused.value.errors}


def test_canonical_form_is_stable_and_reads_back() -> None:
    spec = parse_workflow(ETL)
    again = parse_workflow(json.loads(spec.canonical()))
    assert again.canonical() == spec.canonical()
    assert again.digest() == spec.digest()
    assert len(spec.digest()) == 64


def test_spelling_does_not_make_a_version() -> None:
    other = {
        **ETL,
        "description": "",
        "catchup": False,
        "defaults": {**ETL["defaults"], "secrets": {}, "intent": {}},
    }
    other["defaults"]["resources"] = {"cpu": 0.2, "memory": 256 * 2**20}
    assert parse_workflow(other).digest() == parse_workflow(ETL).digest()
    assert parse_workflow({**ETL, "description": "more"}).digest() != parse_workflow(ETL).digest()


def test_results_imply_edges() -> None:
    tasks = parse_workflow(ETL).definition["tasks"]
    assert [task["upstream"] for task in tasks] == [[], ["check"], ["demand"]]


def test_python_task_becomes_a_job() -> None:
    spec = parse_workflow(ETL)
    job = task_job(
        spec,
        "demand",
        arguments={"rows": {}, "limit": 5, "model": "A100"},
        run_id=7,
        logical_time="2026-01-01T00:00:00+00:00",
        map_index=2,
        params={"models": 5},
    )
    group = job["groups"][0]
    assert job["name"] == "etl.demand[2]"
    assert group["command"] == ["python", "-m", "rmctl.runner", "a.py", "demand"]
    assert job["inputs"] == {"rows": {}, "limit": 5, "model": "A100"}
    assert group["env"] == {
        "PYTHONUNBUFFERED": "1",
        "A": "1",
        "RM_RUN_ID": "7",
        "RM_WORKFLOW": "etl",
        "RM_TASK_ID": "demand",
        "RM_MAP_INDEX": "2",
        "RM_LOGICAL_TIME": "2026-01-01T00:00:00+00:00",
        "RM_PARAMS": '{"models": 5}',
    }
    assert group["resources"]["cpu_millicores"] == 200
    assert job["bundle"] == BUNDLE
    assert set(job) == set(parse_job({"groups": [{"script": "true"}]}).normalised())


def test_bash_task_gets_its_arguments_as_variables() -> None:
    spec = parse_workflow(ETL)
    job = task_job(
        spec,
        "done",
        arguments={"names": ["ä", 1], "who": "you", "big": "x" * 40_000},
        run_id=7,
        logical_time="t",
    )
    env = job["groups"][0]["env"]
    assert (env["RM_ARG_NAMES"], env["RM_ARG_WHO"], env["A"], env["B"]) == ('["ä", 1]', "you", "1", "2")
    assert env["RM_MAP_INDEX"] == ""
    assert "RM_ARG_BIG" not in env  # Too large for a variable: in the inputs only.
    assert job["inputs"]["big"] == "x" * 40_000
    assert job["groups"][0]["resources"]["cpu_millicores"] == 1000
    assert job["groups"][0]["resources"]["memory_bytes"] == 256 * 2**20


def test_jobs_of_one_task_share_nothing_that_is_changed_later() -> None:
    spec = parse_workflow(ETL)
    first = task_job(spec, "done", arguments={}, run_id=1, logical_time="t")
    first["intent"]["pool"] = "elsewhere"
    first["groups"][0]["env"]["A"] = "changed"
    second = task_job(spec, "done", arguments={}, run_id=1, logical_time="t")
    assert second["intent"]["pool"] is None
    assert second["groups"][0]["env"]["A"] == "1"


def test_arguments_resolve_from_results_and_params() -> None:
    task = parse_workflow(ETL).compiled["demand"]
    results = {"check": {"models": ["a", "b"]}}
    assert [task.expansion(results, {}).item(index) for index in range(2)] == [{"model": "a"}, {"model": "b"}]
    assert task.resolve(results, {"models": 9}, item={"model": "a"}) == {
        "rows": results["check"],
        "limit": 9,
        "model": "a",
    }


@pytest.mark.parametrize(
    ("result", "said"),
    [
        ({"models": "abc"}, "only a list"),
        ({"models": list("abcd")}, "its limit is 3"),
        ({"other": 1}, "has no 'models': it has other"),
        (None, "it is null"),
    ],
)
def test_a_map_over_something_else_says_so(result: Any, said: str) -> None:
    with pytest.raises(ArgumentError, match=said):
        parse_workflow(ETL).compiled["demand"].expansion({"check": result}, {})


def test_a_key_picks_from_each_result_of_a_mapped_task() -> None:
    spec = parse_workflow(flow(bash("a"), bash("b", arguments={"n": {"result": "a", "key": "n"}})))
    assert spec.compiled["b"].resolve({"a": [{"n": 1}, {"n": 2}]}, {}) == {"n": [1, 2]}


def test_a_cycle_is_spelled_out() -> None:
    found = errors(flow(bash("a", "c"), bash("b", "a"), bash("c", "b"), bash("d", "c")))
    assert found == {"tasks[0].upstream": ("cycle", found["tasks[0].upstream"][1])}
    assert "a → b → c → a" in found["tasks[0].upstream"][1]


def test_a_cycle_through_results_is_found() -> None:
    found = errors(flow(bash("a", arguments={"x": {"result": "b"}}), bash("b", "a")))
    assert found["tasks[0].upstream"][0] == "cycle"


@pytest.mark.parametrize(
    ("tasks", "field", "code", "said"),
    [
        ([bash("a", "a")], "tasks[0].upstream", "cycle", "a → a"),
        (
            [bash("check"), bash("b", "chek")],
            "tasks[1].upstream[0]",
            "unknown_upstream",
            "Did you mean check?",
        ),
        ([bash("a"), bash("a")], "tasks[1].id", "duplicate_id", "also as tasks[0]"),
        ([bash("1a")], "tasks[0].id", "bad_id", "start with a letter"),
        ([bash("a" * 201)], "tasks[0].id", "bad_id", "at most 200"),
        (
            [bash("a", map={"over": {"x": {"result": "zz"}}})],
            "tasks[0].map.over.x",
            "unknown_upstream",
            "does not exist",
        ),
        ([bash("a", map={"over": {"x": {"value": "abc"}}})], "tasks[0].map", "bad_map", "only a list"),
        ([bash("a", map={"over": {}})], "tasks[0].map", "bad_map", "at least one argument"),
        (
            [bash("a", arguments={"x": {"param": "n"}})],
            "tasks[0].arguments.x",
            "unknown_param",
            "no parameter n",
        ),
        ([bash("a", arguments={"x": {}})], "tasks[0].arguments.x", "bad_argument", "exactly one"),
        (
            [bash("a", arguments={"x": {"value": 1, "key": "n"}})],
            "tasks[0].arguments.x",
            "bad_argument",
            "together with result",
        ),
        ([bash("a", arguments={"x-y": {"value": 1}})], "tasks[0].arguments.x-y", "bad_id", "letters, digits"),
        (
            [bash("a", arguments={"x": {"value": 1}, "X": {"value": 1}})],
            "tasks[0]",
            "bad_id",
            "differ only in case",
        ),
        ([bash("a", trigger_rule="sometimes")], "tasks[0].trigger_rule", "not_a_choice", "all_success"),
        ([bash("a", function="f")], "tasks[0]", "wrong_kind", "function does not belong"),
        ([{"id": "a", "kind": "bash"}], "tasks[0]", "required", "needs script"),
        ([{"id": "a", "kind": "empty", "script": "x"}], "tasks[0]", "wrong_kind", "script does not belong"),
        ([{"id": "a", "kind": "sh", "script": "x"}], "tasks[0].kind", "not_a_choice", "'bash'"),
        ([bash("a", resource={})], "tasks[0].resource", "unknown_field", "Did you mean resources?"),
        ([bash("a", env={"RM_A": "1"})], "tasks[0].env.RM_A", "reserved_variable", "set by the portal"),
        ([bash("a", count=0)], "tasks[0].count", "out_of_range", "at least 1"),
        ([bash("a", script="x" * 300_000)], "tasks[0].script", "too_large", "120 KiB"),
        ([], "tasks", "empty", "at least one task"),
    ],
)
def test_a_fault_is_named(tasks: list[dict[str, Any]], field: str, code: str, said: str) -> None:
    found = errors(flow(*tasks))
    assert set(found) == {field}
    assert found[field][0] == code
    assert said in found[field][1]


@pytest.mark.parametrize(
    ("fields", "field", "code", "said"),
    [
        ({"schedule": "* * * *"}, "schedule", "bad_cron", "4 fields"),
        ({"schedule": "61 * * * *"}, "schedule", "bad_cron", "minute"),
        ({"schedule": "0 0 30 2 *"}, "schedule", "bad_cron", "day"),
        ({"schedule": "@sometimes"}, "schedule", "bad_cron", "@daily"),
        ({"timezone": "Mars/Olympus"}, "timezone", "unknown_timezone", "Europe/Berlin"),
        ({"timezone": "../../etc/passwd"}, "timezone", "unknown_timezone", "Europe/Berlin"),
        ({"start_date": "yesterday"}, "start_date", "bad_date", "2026-01-31"),
        ({"schema": 2}, "schema", "not_a_choice", "1"),
        ({"name": "a b"}, "name", "bad_id", "is not an id"),
        ({"owner": "me"}, "owner", "unknown_field", "Accepted here: schema, name"),
        ({"max_active_runs": 0}, "max_active_runs", "out_of_range", "at least 1"),
        (
            {"params": {"properties": {"n": {"type": "int"}}}},
            "params.properties.n.type",
            "not_a_choice",
            "integer",
        ),
        (
            {"params": {"properties": {"n": {"type": "integer", "default": "x"}}}},
            "params.properties.n.default",
            "wrong_type",
            "of type integer",
        ),
        (
            {"params": {"properties": {"n": {"pattern": "(a+)+"}}}},
            "params.properties.n.pattern",
            "unknown_field",
            "Accepted",
        ),
        ({"params": {"required": ["n"]}}, "params.required", "unknown_param", "no parameter n"),
        ({"defaults": {"count": 2}}, "defaults.count", "unknown_field", "Accepted here: resources"),
    ],
)
def test_a_fault_of_the_workflow_is_named(fields: dict[str, Any], field: str, code: str, said: str) -> None:
    found = errors(flow(bash("a"), **fields))
    assert set(found) == {field}
    assert found[field][0] == code
    assert said in found[field][1]


def test_faults_of_fields_and_graph_come_together() -> None:
    found = errors(
        flow(bash("a", "nope", count=0), bash("b", "c"), bash("c", "b"), timezone="Nowhere/X", extra=1)
    )
    codes = {code for code, _ in found.values()}
    assert codes == {"unknown_upstream", "out_of_range", "cycle", "unknown_timezone", "unknown_field"}


def test_job_fields_are_checked_after_merging_with_defaults() -> None:
    found = errors(flow(bash("a", resources={"cpu": 3}), defaults={"resources": {"cpu_limit": 1}}))
    assert found["tasks[0].resources"][0] == "limit_below_request"
    found = errors(flow(bash("a", secrets={"X": "s"}), defaults={"env": {"X": "1"}}))
    assert found["tasks[0]"][0] == "variable_twice"


def test_python_tasks_need_a_bundle_and_a_file_in_it() -> None:
    task = {"id": "p", "kind": "python", "file": "a.py", "function": "f"}
    assert errors(flow(task))["bundle"][0] == "required"
    assert errors(flow({**task, "file": "../a.py"}, bundle=BUNDLE))["tasks[0].file"][0] == "bad_file"
    assert (
        errors(flow({**task, "function": "os.system"}, bundle=BUNDLE))["tasks[0].function"][0]
        == "bad_function"
    )


def test_ten_thousand_tasks_are_the_limit() -> None:
    chain = [bash(f"t{n}", *([f"t{n - 1}"] if n else [])) for n in range(10_000)]
    assert len(parse_workflow(flow(*chain)).compiled) == 10_000
    assert errors(flow(*chain, bash("more")))["tasks"][0] == "too_many"


@given(
    st.dictionaries(
        st.sampled_from("abcdefgh"),
        st.lists(st.sampled_from("abcdefgh"), max_size=3, unique=True),
        max_size=8,
    )
)
def test_a_cycle_is_one_and_is_found_when_there_is_one(upstream: dict[str, list[str]]) -> None:
    cycle = find_cycle(upstream)
    if cycle is None:
        order: set[str] = set()
        while len(order) < len(upstream):
            ready = [
                n
                for n in upstream
                if n not in order and all(u in order for u in upstream[n] if u in upstream)
            ]
            assert ready
            order.update(ready)
    else:
        assert cycle[0] == cycle[-1] and len(set(cycle)) == len(cycle) - 1
        assert all(before in upstream[after] for before, after in pairwise(cycle))


def test_params_of_a_run() -> None:
    schema = {
        "type": "object",
        "properties": {
            "n": {"type": "integer", "default": 5, "minimum": 1},
            "who": {"type": "string", "enum": ["a", "b"]},
            "list": {"type": "array", "items": {"type": "number"}, "maxItems": 2},
        },
        "required": ["who"],
    }
    assert check_params(schema, {"who": "a"}) == {"n": 5, "who": "a"}
    with pytest.raises(SpecError) as refused:
        check_params(schema, {"n": True, "list": [1, "x"], "whoo": 1})
    assert {(e["field"], e["code"]) for e in refused.value.errors} == {
        ("params.n", "wrong_type"),
        ("params.list[1]", "wrong_type"),
        ("params.whoo", "unknown_param"),
        ("params.who", "required"),
    }
    with pytest.raises(SpecError) as refused:
        check_params(schema, {"who": "a", **{f"n{number}": 1 for number in range(3_000)}})
    assert len(refused.value.errors) == FAULTS_TOLD
    for bad in ({"who": "c"}, {"who": "a", "n": 0}, {"who": "a", "list": [1, 2, 3]}):
        with pytest.raises(SpecError):
            check_params(schema, bad)


@pytest.mark.parametrize(
    "data", [None, [], "x", {}, {"tasks": {}}, {"name": "x", "tasks": [None, 3, {"id": 4}]}]
)
def test_shapeless_data_is_refused_not_broken(data: Any) -> None:
    with pytest.raises(SpecError):
        parse_workflow(data)


def test_schema_uses_the_names_of_the_definition() -> None:
    properties = workflow_schema()["properties"]
    assert "schema" in properties and "schema_" not in properties
