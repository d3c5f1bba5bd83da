"""From the facts about a file of DAGs to workflows: a pure function, which neither reads files nor runs Airflow."""

import os
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.resources import files as resources
from typing import Any

from rmctl.spec import SpecError, parse_workflow
from rmctl.spec.kinds import JOBLESS

from . import checks, common, limits, mapping, operators, schedule, wrapped
from .dag import Dag, Options, identifier
from .findings import Finding, NotCarried, Unportable

Ways = dict[str, list[str]]


@dataclass(slots=True)
class Imported:
    """A workflow as it would be written: its definition, its files by name, and what there is to say about it."""

    name: str
    source: str
    definition: dict[str, Any]
    files: dict[str, str]
    findings: list[Finding]
    # Ids of tasks by how they are carried: `native`, `wrapped`, `lost`.
    ways: Ways = field(default_factory=dict)

    @property
    def refused(self) -> bool:
        """Whether the portal would refuse it; then there is nothing to write."""
        return not self.definition

    @property
    def lost(self) -> bool:
        """Whether anything of the DAG is not carried."""
        return any(finding.level == "lost" for finding in self.findings)


def convert(facts: Mapping[str, Any], options: Options) -> Iterator[Imported]:
    """The workflows of all DAGs in the facts; of several with one name the first is written."""
    sources: dict[str, str] = {}
    for file in facts["files"]:
        for dag in file["dags"]:
            made = _workflow(Dag(dag, file, facts, options))
            first = sources.get(made.name)
            sources.setdefault(made.name, made.source)
            if first is not None:
                message = f"nothing is written, {first} has a DAG {made.name} too: import each with an --out of its own"
                made.findings.insert(0, Finding("lost", message, os.path.basename(made.source), 1, dag["id"]))
                made.definition = {}
            yield made


def _workflow(dag: Dag) -> Imported:
    facts = dag.facts
    definition: dict[str, Any] = {"name": dag.name}
    if dag.name != facts["id"]:
        dag.note("changed", f"its name is {dag.name}")
    if text := _description(dag):
        definition["description"] = text
    definition |= schedule.read(facts, dag.options.now, dag.note)
    if facts["max_active_runs"] not in (None, 16):
        definition["max_active_runs"] = max(1, min(1000, facts["max_active_runs"] or 1000))
    definition |= limits.of_dag(dag)
    declared = schedule.params(facts["params"], dag.note)
    _add_conf(dag, declared)
    dag.params = declared.get("properties", {})
    if dag.params:
        definition["params"] = declared
    _report(dag)
    if groups := [_group(one) for one in facts["groups"]]:
        definition["groups"] = groups
    ways: Ways = {"native": [], "wrapped": [], "lost": []}
    tasks = [_task(dag, task, ways) for task in facts["tasks"]]
    definition["tasks"] = tasks
    limits.note_pools(dag)
    files = _files(dag, tasks, bool(ways["wrapped"]))
    defaults: dict[str, Any] = {"time_limit": common.NO_LIMIT}
    if ways["wrapped"]:
        defaults["env"] = _environment(dag)
    if any(task["kind"] not in JOBLESS for task in tasks):
        definition["defaults"] = defaults
    definition = _accepted(dag, definition, bool(files))
    return Imported(dag.name, dag.path, definition, files, dag.findings.sorted(), ways)


def _description(dag: Dag) -> str:
    facts = dag.facts
    parts = [facts["description"] or "", facts["doc_md"] or ""]
    parts += [f"Tags: {', '.join(facts['tags'])}"] if facts["tags"] else []
    return "\n\n".join(part.strip() for part in parts if part.strip())[:10_000]


def _add_conf(dag: Dag, declared: dict[str, Any]) -> None:
    """Parameters for what templates read from `dag_run.conf` and the DAG does not declare."""
    names = set().union(*(checks.conf_names(list(_flat(task["arguments"]))) for task in dag.facts["tasks"]))
    for name in sorted(names - declared.get("properties", {}).keys()):
        dag.note("changed", f"params: {name}, which templates read from dag_run.conf, is a parameter without a type")
        declared.setdefault("type", "object")
        declared.setdefault("properties", {})[name] = {}


def _flat(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _flat(item)


def _report(dag: Dag) -> None:
    """Note what there is no place for in a workflow."""
    facts = dag.facts
    for callback in facts["callbacks"]:
        dag.note("lost", f"{callback} of the DAG: {limits.INSTEAD}")
    if facts["fail_stop"] or facts["fail_fast"]:
        dag.note("lost", "fail_fast: tasks beside the one that failed go on")
    if facts["access_control"]:
        dag.note("lost", "access_control: members of the tenant see its workflows")
    if facts["is_paused_upon_creation"]:
        dag.note("changed", "is_paused_upon_creation: it is not paused after the push")
    for group in facts["groups"]:
        if group["mapped"]:
            dag.note("lost", f"the group {group['id']} is mapped: groups cannot be expanded")


def _group(group: Mapping[str, Any]) -> dict[str, Any]:
    made = {"id": identifier(group["id"])}
    if group["parent"]:
        made["parent"] = identifier(group["parent"])
    if group["tooltip"]:
        made["description"] = group["tooltip"][:1000]
    return made


def _task(dag: Dag, task: Mapping[str, Any], ways: Ways) -> dict[str, Any]:
    """One task: native where it can be, else the operator itself, else one that fails and says why."""
    name = task["id"]
    try:
        try:
            if _in_mapped_group(dag, task):
                raise Unportable("it stands in a mapped group")
            made, way = operators.native(dag, task), "native"
        except Unportable as error:
            made, way = wrapped.wrapped(dag, task), "wrapped"
            dag.note("wrapped", str(error), name)
    except NotCarried as error:
        dag.note("lost", f"the task fails when it is reached: {error}", name)
        made, way = _placeholder(str(error)), "lost"
    ways[way].append(name)
    if "label" in task.get("map", {}) and "map" in made:
        made["map"] |= mapping.labelled(dag, task, native=way == "native")
    return {"id": identifier(name), **made, **common.fields(dag, task, made["kind"])}


def _in_mapped_group(dag: Dag, task: Mapping[str, Any]) -> bool:
    parents = {one["id"]: one for one in dag.facts["groups"]}
    group = task["group"]
    while group is not None and group in parents:
        if parents[group]["mapped"]:
            return True
        group = parents[group]["parent"]
    return False


def _placeholder(reason: str) -> dict[str, Any]:
    """A task that fails without retries, with the reason in its log."""
    text = shlex.quote(f"Not carried over from Airflow: {reason}")
    return {"kind": "bash", "script": f"echo {text} >&2\nexit 98", "template": False}


def _environment(dag: Dag) -> dict[str, str]:
    return {
        "AIRFLOW_PYTHON": dag.options.node_python,
        "AIRFLOW_DAG_FILE": f"{wrapped.DAGS_FOLDER}/{os.path.relpath(dag.path, dag.root)}",
        "AIRFLOW_DAG": dag.facts["id"],
    }


def _files(dag: Dag, tasks: list[dict[str, Any]], with_airflow: bool) -> dict[str, str]:
    """The files of the bundle by name."""
    named = {task.get("file") for task in tasks}
    files: dict[str, str] = {}
    if operators.FUNCTIONS_FILE in named:
        files[operators.FUNCTIONS_FILE] = dag.taken.text(os.path.basename(dag.path))
        files |= {name: dag.taken.local[name][1] for name in dag.taken.modules}
    if operators.NATIVE_FILE in named:
        files[operators.NATIVE_FILE] = shipped(operators.NATIVE_FILE)
    if with_airflow:
        files[wrapped.RUNNER_FILE] = shipped(wrapped.RUNNER_FILE)
        for path in (dag.path, *dag.modules, *dag.data):
            files[f"{wrapped.DAGS_FOLDER}/{os.path.relpath(path, dag.root)}"] = dag.sources[path]
    return files


def shipped(name: str) -> str:
    """The text of a file that goes along with workflows."""
    return (resources("rmctl.airflow") / "shipped" / name).read_text(encoding="utf-8")


def _accepted(dag: Dag, definition: dict[str, Any], with_files: bool) -> dict[str, Any]:
    """The definition, or an empty one where the portal would refuse it, with the reasons."""
    try:
        parse_workflow({**definition, **({"bundle": "0" * 64} if with_files else {})})
    except SpecError as error:
        for fault in error.errors:
            dag.note("lost", f"nothing is written, {fault['field']} would be refused: {fault['message']}")
        return {}
    return definition
