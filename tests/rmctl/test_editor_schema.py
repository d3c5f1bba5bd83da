"""The JSON Schemas for editors: what the parser accepts they accept, and plain mistakes they show."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from rmctl.sdk import yaml_loader
from rmctl.sdk.compile import compile_file
from rmctl.spec import SpecError, editor, parse_job, parse_workflow

from .definitions import EXAMPLES, definitions
from .test_any_json import JSON, places, replaced
from .test_job_spec import FULL
from .test_workflow_spec import ETL

WORKFLOW, JOB = (Draft202012Validator(editor.schema(name)) for name in ("workflow", "job"))


@pytest.mark.parametrize("validator", [WORKFLOW, JOB])
def test_every_field_is_described(validator: Any) -> None:
    schema = validator.schema
    Draft202012Validator.check_schema(schema)
    nameless = [
        f"{name}.{field}"
        for name, part in [("top", schema), *schema["$defs"].items()]
        for field, given_ in part.get("properties", {}).items()
        if not given_.get("description")
    ]
    assert not nameless, f"write into rmctl/spec/descriptions.py what these are: {nameless}"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_the_examples_are_accepted(path: Path) -> None:
    for compiled in compile_file(path):
        WORKFLOW.validate(compiled.definition)
    if path.suffix == ".yaml":
        WORKFLOW.validate(yaml.safe_load(path.read_text()))


@pytest.mark.parametrize(
    "text",
    [
        "name: w\ntasks: {a: {wait_until: '06:30'}, b: {wait_for: 10m}, c: {approval: {subject: Go}}}",
        "name: w\ntasks: {a: {wait_for: {param: n}}}\nparams: {properties: {n: {type: integer}}}",
        "name: w\ntasks: [{id: a, trigger_run: {workflow: x}}]\nschedule: ['@daily', every 2h]",
        "name: w\nfiles: [data/*.csv]\ngroups: {g: {upstream: [a]}}\ntasks: {a: {script: x}, g.b: {kind: empty}}",
    ],
)
def test_the_short_forms_of_yaml_are_accepted(text: str) -> None:
    definition, _ = yaml_loader.workflow(text)
    parse_workflow(definition)
    WORKFLOW.validate(yaml.safe_load(text))


@pytest.mark.parametrize(
    "text",
    [
        "tasks: {a: {script: x}}",
        "name: w",
        "name: w\ntasks: []",
        "name: two words\ntasks: {a: {script: x}}",
        "name: w\ntasks: {a: {script: 3}}",
        "name: w\ntasks: {a: {}}",
        "name: w\ntasks: {a: {script: x, retry: 3}}",
        "name: w\ntasks: {a: {script: x, retries: 3}}",
        "name: w\ntasks: {a: {script: x, trigger_rule: sometimes}}",
        "name: w\ntasks: {a: {kind: bash}}",
        "name: w\ntasks: {a: {kind: empty, script: x}}",
        "name: w\ntasks: [{script: x}]",
        "name: w\ntasks: {a: {script: x, resources: {cpu: many}}}",
        "name: w\ntasks: {a: {script: x, time_limit: an hour}}",
        "name: w\ntasks: {a: {trigger_run: {}}}",
        "name: w\nmax_active_runs: 0\ntasks: {a: {script: x}}",
        "name: w\nschema: 2\ntasks: {a: {script: x}}",
    ],
)
def test_plain_mistakes_are_shown(text: str) -> None:
    assert not WORKFLOW.is_valid(yaml.safe_load(text))
    definition, _ = yaml_loader.workflow(text)
    with pytest.raises(SpecError):
        parse_workflow(definition)


@settings(max_examples=40, deadline=None)
@given(definitions())
def test_every_definition_is_valid(made: dict[str, Any]) -> None:
    definition = parse_workflow(made).definition
    assert not list(WORKFLOW.iter_errors(made)) and not list(WORKFLOW.iter_errors(definition))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(places(ETL)), JSON)
def test_a_workflow_that_the_parser_accepts_is_valid(where: tuple[Any, ...], value: Any) -> None:
    changed = replaced(ETL, where, value)
    try:
        parse_workflow(changed)
    except SpecError:
        return
    assert WORKFLOW.is_valid(changed), list(WORKFLOW.iter_errors(changed))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(places(FULL)), JSON)
def test_a_job_that_the_parser_accepts_is_valid(where: tuple[Any, ...], value: Any) -> None:
    changed = replaced(FULL, where, value)
    try:
        parse_job(changed)
    except SpecError:
        return
    assert JOB.is_valid(changed), list(JOB.iter_errors(changed))


@pytest.mark.parametrize("job", [{}, {"groups": []}, {"groups": [{"commands": ["x"]}]}, {"groups": [{"script": 1}]}])
def test_mistakes_of_jobs_are_shown(job: dict[str, Any]) -> None:
    assert not JOB.is_valid(job)


def test_the_command_prints_them(rm: Any) -> None:
    assert rm("schema", "workflow").json == editor.schema("workflow")
    done = rm("schema", "flow")
    assert done.status == 2 and "workflow and job" in done.err


def test_a_portal_serves_them_to_anybody(client: Any) -> None:
    answer = client.get("/schemas/job.json")
    assert answer.status_code == 200 and answer.json() == editor.schema("job")
    assert answer["Access-Control-Allow-Origin"] == "*"
    assert client.get("/schemas/other.json").status_code == 404
