"""SDK ↔ YAML ↔ JSON: whatever is written one way and read back another is the same version."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from rmctl.sdk.compile import compile_file
from rmctl.sdk.export import FORMATS, exported
from rmctl.spec import parse_workflow

from .definitions import EXAMPLES, definitions
from .portal import FakePortal, page

SUFFIXES = {"yaml": ".yaml", "json": ".json", "python": ".py"}


def read_back(folder: Path, definition: dict[str, Any], form: str) -> str:
    """The digest of the version that the exported file compiles to."""
    path = folder / f"flow{SUFFIXES[form]}"
    path.write_text(exported(definition, form, "https://portal.example.org"), encoding="utf-8")
    [compiled] = compile_file(path)
    assert compiled.bundle is None, "what is exported names its bundle and ships nothing"
    return compiled.spec.digest()


@settings(max_examples=40, deadline=None)
@given(definitions())
def test_the_same_version_comes_back(tmp_path_factory: pytest.TempPathFactory, made: dict[str, Any]) -> None:
    spec = parse_workflow(made)
    folder = tmp_path_factory.mktemp("back")
    assert {read_back(folder, spec.definition, form) for form in FORMATS} == {spec.digest()}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_the_examples_come_back(path: Path, form: str, tmp_path: Path) -> None:
    for compiled in compile_file(path):
        assert read_back(tmp_path, compiled.definition, form) == compiled.spec.digest()


def test_results_of_tasks_that_come_later_and_schemas_of_params(tmp_path: Path) -> None:
    tasks = [
        {"id": "class", "kind": "bash", "script": "a\nb\n", "arguments": {"x": {"result": "last", "key": 0}}},
        {"id": "a-b", "kind": "wait_for", "arguments": {"duration": {"result": "last"}}},
        {"id": "a.b", "kind": "trigger_run", "trigger_run": {"workflow": "w"},
         "map": {"over": {"m": {"result": "last"}}}},
        {"id": "last", "kind": "bash", "script": "x", "decides": "short_circuit",
         "ignore_downstream_trigger_rules": False},
    ]  # fmt: skip
    groups = [{"id": "in", "parent": "out"}, {"id": "out"}]
    tasks += [{"id": "i", "kind": "empty", "group": "in"}]
    params = {"type": "object", "title": "All", "required": ["n"], "properties": {"n": {"enum": [1, 2]}}}
    definition = parse_workflow({"name": "w", "tasks": tasks, "groups": groups, "params": params}).definition
    digests = {read_back(tmp_path, definition, form) for form in FORMATS}
    assert digests == {parse_workflow(definition).digest()}


def test_the_command(portal: FakePortal, rm: Any, tmp_path: Path) -> None:
    definition = parse_workflow({"name": "w", "tasks": [{"id": "a", "kind": "bash", "script": "x"}]}).definition
    portal.on("GET workflows", page({"id": 5, "name": "w", "version": 3}))
    portal.on("GET workflows/5/versions/3", (200, {"definition": definition}))
    done = rm("export", "w")
    assert done.out.startswith(f"# yaml-language-server: $schema={portal.url}/schemas/workflow.json\nname: w\ntasks:\n")
    assert json.loads(rm("export", "w", "--as", "json").out) == definition
    portal.on("GET workflows/5/versions/2", (200, {"definition": {**definition, "bundle": "b" * 64}}))
    done = rm("export", "w", "--as", "python", "--version", "2")
    assert "bash('a', 'x')" in done.out and "stay in the portal" in done.err
    assert rm("export", "w", "--as", "toml").status == 2
