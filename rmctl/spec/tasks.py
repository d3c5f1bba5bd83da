"""From a task of a definition to the job that runs it: everything static is computed once per task."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rmctl.names import STATE_VARIABLE
from rmctl.stored import environment_name

from . import arguments, mapping
from .arguments import ArgumentError
from .caching import CacheSpec, fixed_parts
from .job import parse_job
from .kinds import FINAL_STATUSES, JOBLESS, OPTIONS, Approval, Poke, TriggerRun, WaitForRun
from .mapping import Expansion
from .service import DeployService
from .templates import KEY, Needs, TaskTemplates, templates_of
from .values import canonical_json

# In front of the name of what a job gets besides the tenant's secrets, where secrets are named.
VARIABLE = "variable:"
CONNECTION = "connection:"
# A variable that may be missing, as a template has a default for it.
OPTIONAL_VARIABLE = "variable?:"

# A larger argument or parameter is in RM_INPUTS only: variables and argv share a small space of the kernel.
VARIABLE_BYTES = 32 * 1024

_MERGED = ("resources", "env", "secrets", "retries", "intent", "labels")
_TAKEN = ("time_limit", "priority", "on_preempt", "notice", "image")


def merged_fields(defaults: Mapping[str, Any], task: Mapping[str, Any]) -> dict[str, Any]:
    """Job fields of a task over those of the workflow; objects are merged key by key, one level deep."""
    fields: dict[str, Any] = {name: {**defaults.get(name, {}), **task.get(name, {})} for name in _MERGED}
    fields |= {name: source[name] for source in (defaults, task) for name in _TAKEN if name in source}
    return fields


@dataclass(frozen=True, slots=True)
class CompiledTask:
    """A task ready to make jobs; `base` is its normalised job without inputs, shared and never changed."""

    id: str
    kind: str
    workflow: str
    base: dict[str, Any]
    arguments: Mapping[str, Mapping[str, Any]]
    # The `map` of a mapped task as it stands in the definition.
    map: Mapping[str, Any]
    template: TaskTemplates | None = None
    # `branch` or `short_circuit` when its result decides the way; `direct` when the latter leaves out only what is
    # directly behind it.
    decides: str = ""
    direct: bool = False
    # How a sensor is poked, and what a task that waits waits for.
    options: Poke | WaitForRun | TriggerRun | Approval | DeployService | None = None
    # How long its results may be used again, and what of the key is the same for all inputs.
    cache: CacheSpec | None = None
    cache_parts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def poked(self) -> bool:
        """Whether it is a sensor: its jobs say whether it is done."""
        return isinstance(self.options, Poke)

    @property
    def jobless(self) -> bool:
        """Whether it has no job: it ends at once, or waits as a row."""
        return self.kind in JOBLESS

    @property
    def mapped(self) -> bool:
        """Whether the task has an instance for each item of its lists."""
        return bool(self.map)

    def expansion(self, results: Mapping[str, Any], params: Mapping[str, Any]) -> Expansion:
        """The instances of a mapped task. Raises ArgumentError when its lists make none, or too many."""
        try:
            return mapping.expand(self.map, mapping.resolved(self.map, results, params), self.arguments)
        except ArgumentError as error:
            raise ArgumentError(f"{self.id} is mapped: {error}") from None

    def resolve(
        self, results: Mapping[str, Any], params: Mapping[str, Any], *, item: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """The inputs of an instance; `item` are those that it does not share with others. Raises ArgumentError."""
        values = {name: arguments.resolve(value, results, params) for name, value in self.arguments.items()}
        values.update(item or {})
        if self.template is not None:
            values[KEY] = self.template.inputs(results, params, bash=self.kind == "bash")
        return values

    def job(
        self,
        inputs: Mapping[str, Any],
        *,
        run_id: int | str,
        logical_time: str,
        map_index: int | None = None,
        params: Mapping[str, Any] | None = None,
        interval: Sequence[str] = (),
    ) -> dict[str, Any]:
        """The normalised job spec of one instance; only name, env and inputs are new, the rest is shared.

        `interval` is the data interval of the run, start and end; empty where it has none.
        """
        base = self.base
        group = base["groups"][0]
        env = {
            **group["env"],
            "RM_RUN_ID": str(run_id),
            "RM_WORKFLOW": self.workflow,
            "RM_TASK_ID": self.id,
            "RM_MAP_INDEX": "" if map_index is None else str(map_index),
            "RM_LOGICAL_TIME": logical_time,
        }
        env |= zip(("RM_DATA_INTERVAL_START", "RM_DATA_INTERVAL_END"), interval, strict=False)
        if params:
            _export(env, "RM_PARAMS", json.dumps(params, ensure_ascii=False))
        if self.kind == "bash":
            for name, value in inputs.items():
                if name == KEY:
                    continue
                text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
                _export(env, f"RM_ARG_{name.upper()}", text)
        name = base["name"]
        return {
            **base,
            "name": name if map_index is None else f"{name[:190]}[{map_index}]",
            "groups": [{**group, "env": env}],
            "intent": {**base["intent"]},
            "inputs": dict(inputs),
        }


def _export(env: dict[str, str], name: str, text: str) -> None:
    if len(text) <= VARIABLE_BYTES and len(text.encode()) <= VARIABLE_BYTES and "\0" not in text:
        env[name] = text


def compile_task(
    definition: Mapping[str, Any], task: Mapping[str, Any], cache: dict[bytes, dict[str, Any]] | None = None
) -> CompiledTask:
    """Compile one task of a canonical definition. Raises SpecError when its merged job fields do not fit.

    `cache` shares the validation of tasks with equal job fields.
    """
    fields = merged_fields(definition["defaults"], task)
    image = fields.pop("image", None)
    if fields["retries"].get("limit"):
        given = fields["retries"].get("final", [])
        fields["retries"] = {**fields["retries"], "final": sorted({*given, *FINAL_STATUSES})}
    group = {name: fields.pop(name) for name in ("resources", "env", "secrets")}
    group |= {"image": image, "count": task.get("count", 1), "min_count": task.get("min_count")}
    key = canonical_json([group, fields])
    cache = {} if cache is None else cache
    if key not in cache:
        body = {"groups": [{**group, "command": ["true"]}], "bundle": definition["bundle"], **fields}
        cache[key] = parse_job(body).normalised()
    plain = cache[key]
    run: dict[str, Any] = {"command": None, "script": None}
    env = plain["groups"][0]["env"]
    if task["kind"] == "bash":
        run["script"] = task["script"]
    elif task["kind"] == "python":
        mode = ["--poke"] if "poke" in task else ["--script"] if "returns" in task else []
        run["command"] = ["python", "-m", "rmctl.runner", *mode, task["file"], task["function"]]
        env = {"PYTHONUNBUFFERED": "1", **env}
    else:
        run["command"] = ["true"]
    if task.get("state"):
        env = {**env, STATE_VARIABLE: "1"}
    template = templates_of(task, env)
    if template is not None:
        command = run["command"] or ["bash", "-c", run["script"]]
        run = {"command": ["python", "-m", "rmctl.render", *command], "script": None}
    group = {**plain["groups"][0], **run, **_with_stored(env, plain["groups"][0], task, template)}
    return CompiledTask(
        id=task["id"],
        kind=task["kind"],
        workflow=definition["name"],
        base={
            **plain,
            "name": f"{definition['name']}.{task['id']}"[:200],
            "groups": [group],
        },
        arguments=task.get("arguments", {}),
        map=task.get("map", {}),
        template=template,
        decides=task.get("decides", ""),
        direct=not task.get("ignore_downstream_trigger_rules", True),
        options=next((model.model_validate(task[name]) for name, model in OPTIONS.items() if name in task), None),
        cache=CacheSpec.model_validate(task["cache"]) if "cache" in task else None,
        cache_parts=fixed_parts(definition, task, group) if "cache" in task else {},
    )


def _with_stored(
    env: dict[str, str], group: Mapping[str, Any], task: Mapping[str, Any], template: TaskTemplates | None
) -> dict[str, Any]:
    """The variables and secrets of a task, with the tenant's variables and connections that it reads."""
    needs = template.needs if template is not None else Needs()
    variables = sorted({*task.get("variables", ()), *needs.variables})
    optional = sorted(needs.optional.difference(variables))
    connections = sorted({*task.get("connections", ()), *needs.connections})
    secrets = dict(group.get("secrets") or {})
    secrets |= {environment_name("variable", name): f"{VARIABLE}{name}" for name in variables}
    secrets |= {environment_name("variable", name): f"{OPTIONAL_VARIABLE}{name}" for name in optional}
    secrets |= {environment_name("connection", name): f"{CONNECTION}{name}" for name in connections}
    if connections:
        env = {**env, "RM_CONNECTIONS": ",".join(connections)}
    return {"env": env, "secrets": secrets}


def task_job(
    workflow: Any,
    task_id: str,
    *,
    arguments: Mapping[str, Any],
    run_id: int | str,
    logical_time: str,
    map_index: int | None = None,
    params: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The normalised job spec of one instance of a task of a `WorkflowSpec`; see `CompiledTask.job`."""
    task: CompiledTask = workflow.compiled[task_id]
    return task.job(arguments, run_id=run_id, logical_time=logical_time, map_index=map_index, params=params)
