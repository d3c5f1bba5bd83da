"""The workflow definition: what the SDK and YAML compile to, and what a version is."""

import hashlib
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)

from . import graph, groups, params
from .alerts import Deadline, NotifyRules, said
from .arguments import Arguments
from .caching import Cache, cache_faults, check_cache
from .datasets import Expression, Outlets, check_expression
from .errors import BadValue, FieldError, SpecError, describe, field_error
from .groups import TaskGroupSpec
from .job import MAX_MEMBERS, Intent, Notice, OnPreempt, Resources, Retries, check_minimum
from .kinds import (
    JOBLESS,
    NEEDED,
    OPTIONAL,
    Approval,
    Decides,
    Kind,
    Poke,
    Teardown,
    TriggerRun,
    WaitForDataset,
    WaitForRun,
    check_kind,
)
from .labels import label_faults
from .limits import TASK_FIELDS, WORKFLOW_FIELDS, Limit, SlotsField, Weight, WeightRule, check_limits, limits_of
from .mapping import MapSpec
from .quantities import Seconds, format_duration
from .schedule import check_date, check_schedule, check_timezone, join_schedule
from .service import DeployService
from .tasks import CompiledTask, compile_task
from .templates import faults_beside_others, template_faults, texts
from .values import (
    Digest,
    Environment,
    Identifier,
    Image,
    JobLabels,
    Script,
    Secrets,
    StoredName,
    Strict,
    canonical_json,
    validated,
)

MAX_TASKS = 10_000
DEFINITION_BYTES = 8 * 2**20

TRIGGER_RULES = (
    "all_success", "all_failed", "all_done", "all_skipped", "one_success", "one_failed", "one_done",
    "none_failed", "none_failed_min_one_success", "none_skipped", "always", "all_done_setup_success",
)  # fmt: skip
TriggerRule = Literal[
    "all_success", "all_failed", "all_done", "all_skipped", "one_success", "one_failed", "one_done",
    "none_failed", "none_failed_min_one_success", "none_skipped", "always", "all_done_setup_success",
]  # fmt: skip

def _relative(name: str) -> str:
    if name.startswith("/") or "\\" in name or ".." in name.split("/") or not name.endswith(".py"):
        raise BadValue(
            "bad_file", f'"{name[:80]}" is not a file of the bundle: give a relative path to a .py file.'
        )
    return name


def _identifier(name: str) -> str:
    if not name.isidentifier():
        raise BadValue("bad_function", f'"{name[:80]}" is not the name of a Python function.')
    return name


class JobFields(Strict):
    """What a task says about its job; given in `defaults` for all tasks and in a task for that one."""

    resources: Resources = Field(default_factory=lambda: Resources())
    env: Environment = Field(default_factory=dict)
    secrets: Secrets = Field(default_factory=dict)
    labels: JobLabels = Field(default_factory=dict)
    retries: Retries = Field(default_factory=lambda: Retries())
    time_limit: Seconds = Field(default=3600, json_schema_extra={"default": "1h"})
    intent: Intent = Field(default_factory=lambda: Intent())
    priority: int = Field(default=0, ge=-1000, le=1000)
    on_preempt: OnPreempt = "requeue"
    notice: Notice = Field(default=10, json_schema_extra={"default": "10s"})
    image: Image | None = None

    def given(self) -> dict[str, Any]:
        """Only what was set, in the spelling of a definition; empty objects count as not set."""
        fields = self.model_dump(mode="json", include=set(JobFields.model_fields), exclude_unset=True)
        return {name: value for name, value in fields.items() if value not in ({}, [])}


class TaskSpec(JobFields):
    """One node of the graph: a bash script, a function of a file of the bundle, something to wait for, or nothing."""

    id: Identifier
    kind: Kind
    script: Script | None = None
    file: Annotated[str, StringConstraints(max_length=500), AfterValidator(_relative)] | None = None
    function: Annotated[str, StringConstraints(max_length=200), AfterValidator(_identifier)] | None = None
    returns: Literal["script"] | None = None
    decides: Decides | None = None
    ignore_downstream_trigger_rules: bool = True
    poke: Poke | None = None
    wait_for_run: WaitForRun | None = None
    wait_for_dataset: WaitForDataset | None = None
    trigger_run: TriggerRun | None = None
    approval: Approval | None = None
    service: DeployService | None = None
    group: Identifier | None = None
    setup: bool = False
    teardown: Teardown | None = None
    arguments: Arguments = Field(default_factory=dict)
    map: MapSpec | None = None
    upstream: list[Identifier] = Field(default_factory=list, max_length=MAX_TASKS)
    trigger_rule: TriggerRule = "all_success"
    # Whether `{{ … }}` in script, env and arguments is a template.
    template: bool = True
    variables: Annotated[list[StoredName], Field(max_length=100)] = Field(default_factory=list)
    connections: Annotated[list[StoredName], Field(max_length=100)] = Field(default_factory=list)
    outlets: Outlets = Field(default_factory=list)
    depends_on_past: bool = False
    wait_for_downstream: bool = False
    slots: SlotsField = None
    max_active: Limit = None
    max_active_per_run: Limit = None
    weight: Weight = None
    weight_rule: WeightRule | None = None
    cache: Cache = None
    # Whether it reads or writes what the workflow and the run keep (`rmctl.state`, `rmctl.run_state`).
    state: bool = False
    notify: NotifyRules = Field(default_factory=list)
    deadline: Deadline | None = None
    count: int = Field(default=1, ge=1, le=MAX_MEMBERS)
    min_count: int | None = Field(default=None, ge=1, le=MAX_MEMBERS)

    @model_validator(mode="after")
    def _fields_of_kind(self) -> Self:
        check_minimum(self.count, self.min_count)
        given = {name for name in _KIND_FIELDS if getattr(self, name) is not None}
        self._no_templates_without_a_job()
        check_kind(self.kind, given, self.arguments, mapped=self.map is not None)
        check_limits(self.kind, vars(self))
        if not self.ignore_downstream_trigger_rules and self.decides != "short_circuit":
            message = "ignore_downstream_trigger_rules belongs to a task that decides short_circuit; remove it."
            raise BadValue("wrong_kind", message)
        if self.map and (twice := self.arguments.keys() & self.map.names):
            raise BadValue("bad_map", f"{', '.join(sorted(twice))}: given in both arguments and map; keep one.")
        if self.kind == "bash":
            names = [*self.arguments, *(self.map.names if self.map else ())]
            if len({name.upper() for name in names}) < len(names):
                raise BadValue(
                    "bad_id", "Two arguments differ only in case; as RM_ARG_ variables they would clash."
                )
        self._check_extras()
        if self.setup and self.teardown is not None:
            raise BadValue("wrong_kind", "A task is a setup or a teardown, not both.")
        own = "all_done_setup_success"
        if self.teardown is not None and "trigger_rule" in self.model_fields_set and self.trigger_rule != own:
            raise BadValue("wrong_kind", f"A teardown has its own trigger rule, {own}; remove this one.")
        return self

    def _check_extras(self) -> None:
        """Refuse a cache and a state where they make no sense. Raises BadValue."""
        if self.state and self.kind in JOBLESS:
            raise BadValue("wrong_kind", f"state does not belong to a task of kind {self.kind}; remove it.")
        if self.cache is not None:
            fields = [name for name in ("poke", "setup", "teardown") if getattr(self, name)]
            check_cache(self.cache, self.kind, fields=fields, arguments=self.arguments, mapping=self.map)

    def _no_templates_without_a_job(self) -> None:
        """Templates are rendered by the task's own process (docs/decisions/0009). Raises BadValue."""
        if self.kind not in JOBLESS or not self.template:
            return
        options = [getattr(self, name) for name in NEEDED[self.kind]]
        literals = [argument.value for argument in self.arguments.values()]
        found = next(texts([*literals, *(option.model_dump() for option in options if option is not None)]), None)
        if found is not None:
            raise BadValue(
                "wrong_kind",
                f"{describe(found)} looks like a template, but a task of kind {self.kind} has no job that could render "
                "it: give a parameter or the result of a task, or template: false to keep the text as it is.",
            )

    def definition(self) -> dict[str, Any]:
        """The task as it stands in a definition, with the edges that its arguments and setups imply."""
        rule = "all_done_setup_success" if self.teardown is not None else self.trigger_rule
        task: dict[str, Any] = {"id": self.id, "kind": self.kind, "trigger_rule": rule}
        for name in (*NEEDED[self.kind], *OPTIONAL.get(self.kind, ())):
            value = getattr(self, name)
            if value is not None:
                plain = value.model_dump(mode="json", exclude_defaults=True) if isinstance(value, Strict) else value
                task[name] = plain
        references = [*self.arguments.values(), *(self.map.sources.values() if self.map else ())]
        implied = {a.result for a in references if a.result is not None}
        if self.teardown is not None:
            implied |= set(self.teardown.setups)
            task["teardown"] = self.teardown.model_dump(mode="json", exclude_defaults=True)
        task["upstream"] = sorted({*self.upstream, *implied})
        if self.arguments:
            task["arguments"] = {name: a.model_dump(exclude_unset=True) for name, a in self.arguments.items()}
        if self.map:
            task["map"] = self.map.definition()
        for name in (
            "count", "min_count", "group", "setup", "ignore_downstream_trigger_rules", "template", "depends_on_past",
            "wait_for_downstream", "state",
        ):  # fmt: skip
            value = getattr(self, name)
            if value != type(self).model_fields[name].default:
                task[name] = value
        if self.cache is not None:
            task["cache"] = self.cache.model_dump(mode="json", exclude_defaults=True)
        for name in ("variables", "connections", "outlets"):
            if getattr(self, name):
                task[name] = sorted(set(getattr(self, name)))
        return task | limits_of(self, TASK_FIELDS) | said(self.notify, self.deadline) | self.given()


_KIND_FIELDS = sorted({name for fields in (*NEEDED.values(), *OPTIONAL.values()) for name in fields})


class WorkflowSpec(Strict):
    """A definition. Build it with `parse_workflow`, which refuses with a `SpecError` naming every fault."""

    model_config = ConfigDict(populate_by_name=True)

    schema_: Literal[1] = Field(default=1, alias="schema")
    name: Identifier
    description: str = Field(default="", max_length=10_000)
    schedule: Annotated[
        str | None,
        BeforeValidator(join_schedule, json_schema_input_type=str | list[str] | None),
        AfterValidator(check_schedule),
    ] = None
    timezone: Annotated[str, AfterValidator(check_timezone)] = "UTC"
    catchup: bool = False
    datasets: Annotated[
        Expression | None,
        BeforeValidator(check_expression, json_schema_input_type=str | list[Any] | dict[str, list[Any]] | None),
    ] = None
    start_date: Annotated[str | None, AfterValidator(check_date)] = None
    end_date: Annotated[str | None, AfterValidator(check_date)] = None
    max_active_runs: int = Field(default=16, ge=1, le=1000)
    max_active_tasks: int = Field(default=0, ge=0, le=MAX_TASKS)
    max_active_tasks_all_runs: Limit = None
    weight_rule: WeightRule | None = None
    notify: NotifyRules = Field(default_factory=list)
    deadline: Deadline | None = None
    # Of a run: it fails when it has gone on for so long. That of a job stands in `defaults` and in tasks.
    time_limit: Annotated[Seconds, Field(ge=1)] | None = None
    bundle: Digest | None = None
    params: dict[str, Any] = Field(default_factory=dict)
    defaults: JobFields = Field(default_factory=JobFields)
    groups: list[TaskGroupSpec] = Field(default_factory=list, max_length=MAX_TASKS)
    tasks: list[TaskSpec] = Field(min_length=1, max_length=MAX_TASKS)

    @field_validator("tasks", mode="before")
    @classmethod
    def _how_many(cls, tasks: Any) -> Any:
        if isinstance(tasks, list) and not tasks:
            raise BadValue("empty", "A workflow needs at least one task.")
        if isinstance(tasks, list) and len(tasks) > MAX_TASKS:
            raise BadValue("too_many", f"{len(tasks)} tasks; a workflow has at most {MAX_TASKS}.")
        return tasks

    @cached_property
    def definition(self) -> dict[str, Any]:
        """The canonical definition as JSON data: defaults of the workflow filled in, implied edges added."""
        definition: dict[str, Any] = {
            "schema": 1,
            "name": self.name,
            "description": self.description,
            "schedule": self.schedule,
            "timezone": self.timezone,
            "catchup": self.catchup,
            "start_date": self.start_date,
            "max_active_runs": self.max_active_runs,
            "max_active_tasks": self.max_active_tasks,
            "bundle": self.bundle,
            "params": self.params,
            "defaults": self.defaults.given(),
            **({"groups": [group.model_dump(exclude_defaults=True) for group in self.groups]} if self.groups else {}),
            "tasks": [task.definition() for task in self.tasks],
        }
        # Fields that came later stand there only where they say something: older versions keep their digest.
        if self.end_date is not None:
            definition["end_date"] = self.end_date
        if self.datasets is not None:
            definition["datasets"] = self.datasets
        if self.time_limit is not None:
            definition["time_limit"] = format_duration(self.time_limit)
        return definition | limits_of(self, WORKFLOW_FIELDS) | said(self.notify, self.deadline)

    def canonical(self) -> bytes:
        """The definition as canonical JSON: sorted keys, no blanks, UTF-8."""
        return canonical_json(self.definition)

    def digest(self) -> str:
        """SHA-256 of `canonical()`: the identity of the version."""
        return hashlib.sha256(self.canonical()).hexdigest()

    @cached_property
    def compiled(self) -> dict[str, CompiledTask]:
        """Every task by id, ready to make jobs cheaply. Raises SpecError when merged job fields are wrong."""
        compiled, errors = _compile(self.definition)
        if errors:
            raise SpecError(errors)
        return compiled


def _compile(definition: Mapping[str, Any]) -> tuple[dict[str, CompiledTask], list[FieldError]]:
    compiled: dict[str, CompiledTask] = {}
    errors: list[FieldError] = []
    cache: dict[bytes, dict[str, Any]] = {}
    for index, task in enumerate(definition["tasks"]):
        try:
            compiled[task["id"]] = compile_task(definition, task, cache)
        except SpecError as error:
            for fault in error.errors:
                inner = fault["field"].removeprefix("groups[0]").removeprefix(".")
                where = f"tasks[{index}].{inner}".removesuffix(".")
                errors.append(field_error(where, f"{fault['message']} (with defaults)", fault["code"]))
    return compiled, errors


def parse_workflow(data: Any) -> WorkflowSpec:
    """Validate a definition (parsed JSON). Raises SpecError naming every fault."""
    if not isinstance(data, Mapping):
        raise SpecError(
            [field_error("", f"A workflow is a JSON object, not {describe(data)}.", "wrong_type")]
        )
    data, errors = groups.written_out(data)
    spec = None
    try:
        spec = validated(WorkflowSpec, data)
    except SpecError as error:
        errors += error.errors
    schema = data.get("params")
    # A schema that is nested too deeply has been refused above; walking it could only overflow the stack.
    if isinstance(schema, Mapping) and not any(error["code"] == "too_deep" for error in errors):
        errors += params.schema_faults(schema)
    tasks = data.get("tasks")
    if not isinstance(tasks, list) or len(tasks) <= MAX_TASKS:
        errors += graph.faults(tasks, schema)
    if spec is not None:
        needy = next((i for i, task in enumerate(spec.tasks) if task.kind == "python"), None)
        if needy is not None and spec.bundle is None:
            message = "Python tasks need a bundle with their files: push the workflow with rmctl push."
            errors.append(field_error("bundle", message, "required"))
        if len(spec.canonical()) > DEFINITION_BYTES:
            errors.append(
                field_error("", "The definition has more than 8 MiB; move data into files.", "too_large")
            )
        elif not errors:
            # Kept on the instance: the portal compiles once for each version that it loads.
            errors += _checked_compile(spec)
    if errors and (spec is None or "compiled" not in vars(spec)) and not any(e["code"] == "too_deep" for e in errors):
        errors += faults_beside_others(data)
    if errors or spec is None:
        raise SpecError(errors)
    return spec


def _checked_compile(spec: WorkflowSpec) -> list[FieldError]:
    try:
        compiled = spec.compiled
    except SpecError as error:
        return error.errors
    templates = {name: task.template for name, task in compiled.items() if task.template is not None}
    faults = label_faults(spec.definition)
    if templates:
        faults += template_faults(spec.definition, templates) + cache_faults(spec.definition, compiled)
    return faults


def workflow_schema() -> dict[str, Any]:
    """JSON Schema of a workflow definition."""
    return WorkflowSpec.model_json_schema(by_alias=True)
