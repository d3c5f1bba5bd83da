"""What tasks may be beyond scripts, functions and joints: those that decide the way, and those that wait.

A task that waits has no job and holds no place: it stands as a row until its time, a run or a person ends it. A
sensor is a task with `poke`: a short job at each due time, and nothing between.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from rmctl.runner import FAIL_STATUS, RESULT_STATUS, SKIP_STATUS

from . import params
from .arguments import Argument
from .datasets import Expression, check_some
from .errors import BadValue
from .moments import parse_moment
from .quantities import Seconds, parse_seconds
from .service import DeployService
from .values import Identifier, Line, Strict

Kind = Literal[
    "bash", "python", "empty", "wait_until", "wait_for", "wait_for_run", "wait_for_dataset", "trigger_run", "approval",
    "service",
]
# Fields of each kind: what it needs, and what else it may have.
NEEDED: dict[str, tuple[str, ...]] = {
    "bash": ("script",),
    "python": ("file", "function"),
    "empty": (),
    "wait_until": (),
    "wait_for": (),
    "wait_for_run": ("wait_for_run",),
    "wait_for_dataset": ("wait_for_dataset",),
    "trigger_run": ("trigger_run",),
    "approval": ("approval",),
    "service": ("service",),
}
OPTIONAL: dict[str, tuple[str, ...]] = {"bash": ("decides", "poke"), "python": ("decides", "returns", "poke")}
# Arguments of the kinds whose arguments mean something: what each needs, and what else it may have.
ARGUMENTS: dict[str, tuple[set[str], set[str]]] = {
    "empty": (set(), set()),
    "wait_until": ({"time"}, set()),
    "wait_for": ({"duration"}, set()),
    "wait_for_run": (set(), {"logical_time", "before"}),
    "wait_for_dataset": (set(), {"since", "before"}),
}
JOBLESS = frozenset(NEEDED) - {"bash", "python"}
# Exit statuses by which a task says how it ended; none is tried again.
FINAL_STATUSES = (RESULT_STATUS, FAIL_STATUS, SKIP_STATUS)

EndState = Literal["succeeded", "failed", "cancelled"]
Decides = Literal["branch", "short_circuit"]
WEEK = 7 * 86400


class Poke(Strict):
    """How a sensor is poked: every `interval` × `factor`^n, at most `max_interval`; failed after `timeout`, or skipped
    if `soft_fail`."""

    interval: Seconds = Field(default=60, json_schema_extra={"default": "1m"})
    factor: float = Field(default=1.0, ge=1, le=100)
    max_interval: Seconds = Field(default=3600, json_schema_extra={"default": "1h"})
    timeout: Seconds = Field(default=WEEK, json_schema_extra={"default": "7d"})
    soft_fail: bool = False


class _RunWait(Strict):
    """Another workflow of the tenant, and which ends of its run are good or bad."""

    workflow: Identifier
    allowed: list[EndState] = Field(default=["succeeded"], min_length=1)
    failed: list[EndState] = Field(default=["failed", "cancelled"])
    timeout: Seconds = Field(default=WEEK, json_schema_extra={"default": "7d"})
    soft_fail: bool = False

    @model_validator(mode="after")
    def _apart(self) -> Self:
        both = sorted(set(self.allowed) & set(self.failed))
        if both and "failed" in self.model_fields_set:
            raise BadValue("bad_states", f"{', '.join(both)}: stands in both allowed and failed; keep one.")
        return self

    def ends(self, state: str) -> str:
        """`good`, `bad` or `wait` for the state of the run that is waited for."""
        return "good" if state in self.allowed else "bad" if state in self.failed else "wait"


class WaitForRun(_RunWait):
    """Wait for the run of a workflow with a logical time: the argument `logical_time`, else the own one, minus the
    duration `before`."""


Since = Literal["data_interval_end", "data_interval_start", "triggered"]


class WaitForDataset(Strict):
    """Wait until datasets of the tenant have been updated since a moment: the argument `since`, else one of the run,
    minus the duration `before`. A run without a data interval counts from when it was triggered."""

    datasets: Annotated[
        Expression, BeforeValidator(check_some, json_schema_input_type=str | list[Any] | dict[str, list[Any]])
    ]
    since: Since = "data_interval_end"
    timeout: Seconds = Field(default=WEEK, json_schema_extra={"default": "7d"})
    soft_fail: bool = False


class TriggerRun(_RunWait):
    """Start a run of a workflow; the task's arguments are its parameters. With `wait` the task ends as that run does,
    and cancelling the task's run cancels it. Its logical time is that of the start (`now`) or the `own` one. With
    `no_cache`, or in a run without the cache, its tasks take no earlier results."""

    wait: bool = False
    logical_time: Literal["now", "own"] = "now"
    no_cache: bool = False


def _form(schema: dict[str, Any]) -> dict[str, Any]:
    faults = params.schema_faults(schema)
    if faults:
        field = faults[0]["field"].removeprefix("params").removeprefix(".")
        raise BadValue("bad_schema", f"{field + ': ' if field else ''}{faults[0]['message']}")
    return schema


class Approval(Strict):
    """A question to people: one of `options` is chosen and a form filled in. Asked are the named users and the roles in
    the tenant (`member` and `admin` by default). After `timeout` it is answered with `default`, and without one it
    fails, or is skipped if `soft_fail`. `reject` names the options that skip what is behind the task."""

    subject: Line
    text: str = Field(default="", max_length=10_000)
    options: list[Line] = Field(default=["approve", "reject"], min_length=1, max_length=20)
    reject: list[Line] = Field(default=["reject"])
    form: Annotated[dict[str, Any], AfterValidator(_form)] = Field(default_factory=dict)
    users: list[Line] = Field(default_factory=list, max_length=100)
    roles: list[Literal["member", "admin"]] = Field(default_factory=list)
    timeout: Seconds = Field(default=WEEK, json_schema_extra={"default": "7d"})
    default: Line | None = None
    soft_fail: bool = False

    @model_validator(mode="after")
    def _known_options(self) -> Self:
        if len(set(self.options)) < len(self.options):
            raise BadValue("bad_options", "An option stands twice; keep one.")
        if self.default is not None and self.default not in self.options:
            raise BadValue("bad_options", f'The default "{self.default}" is not one of the options.')
        if "reject" in self.model_fields_set and (unknown := [o for o in self.reject if o not in self.options]):
            raise BadValue("bad_options", f'reject: "{unknown[0]}" is not one of the options.')
        return self

    @property
    def asked_roles(self) -> list[str]:
        """Roles in the tenant that may answer; nobody by role when users are named and no role is."""
        return list(self.roles) if self.roles or self.users else ["member", "admin"]


class Teardown(Strict):
    """The task cleans up behind `setups`: it runs when one of them succeeded, whatever happened between. Its own
    failure fails the run only with `fails_run`."""

    setups: list[Identifier] = Field(default_factory=list, max_length=1000)
    fails_run: bool = False


Options = Poke | WaitForRun | WaitForDataset | TriggerRun | Approval | DeployService
OPTIONS: dict[str, type[Options]] = {
    "poke": Poke,
    "wait_for_run": WaitForRun,
    "wait_for_dataset": WaitForDataset,
    "trigger_run": TriggerRun,
    "approval": Approval,
    "service": DeployService,
}


def check_kind(kind: str, given: set[str], arguments: Mapping[str, Argument], *, mapped: bool) -> None:
    """Refuse fields and arguments that a task of this kind does not have, and missing ones. Raises BadValue."""
    needed = set(NEEDED[kind])
    for name in sorted(given - needed - set(OPTIONAL.get(kind, ()))):
        raise BadValue("wrong_kind", f"{name} does not belong to a task of kind {kind}; remove it.")
    for name in sorted(needed - given):
        raise BadValue("required", f"A task of kind {kind} needs {name}.")
    if {"decides", "poke"} <= given or {"decides", "returns"} <= given or {"poke", "returns"} <= given:
        raise BadValue("wrong_kind", "Give only one of decides, poke and returns.")
    if mapped and "decides" in given:
        raise BadValue(
            "bad_map", "A task that decides the way is not mapped: which of its instances should decide?"
        )
    if kind == "service" and mapped:
        raise BadValue("bad_map", "A task that deploys a service is not mapped: the last deployment would win.")
    if kind not in ARGUMENTS:
        return
    if mapped:
        raise BadValue("bad_map", f"A task of kind {kind} is not mapped; map what is behind it.")
    least, more = ARGUMENTS[kind]
    for name in sorted(arguments.keys() - least - more):
        accepted = f"it takes {', '.join(sorted(least | more))}" if least | more else "it takes no arguments"
        raise BadValue("wrong_kind", f"A task of kind {kind} has no argument {name}: {accepted}.")
    for name in sorted(least - arguments.keys()):
        raise BadValue("required", f"A task of kind {kind} needs the argument {name}.")
    for name, argument in arguments.items():
        if "value" in argument.model_fields_set:
            _check_value(name, argument.value)


def _check_value(name: str, value: Any) -> None:
    if name in ("duration", "before"):
        parse_seconds(value)
    else:
        parse_moment(value)
