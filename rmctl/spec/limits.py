"""Limits of tasks over runs, and in which order tasks get what is free."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from .errors import BadValue
from .kinds import JOBLESS
from .values import Identifier, Strict

WeightRule = Literal["downstream", "upstream", "absolute", "critical_path"]
MAX_SLOTS = 1_000_000
MAX_WEIGHT = 1_000_000

# Fields of a task that speak of its jobs; a task without a job takes no place anywhere.
OF_JOBS = ("slots", "max_active", "max_active_per_run")
# The fields of a task and of a workflow that stand in a definition only where they were given.
TASK_FIELDS = (*OF_JOBS, "weight", "weight_rule")
WORKFLOW_FIELDS = ("max_active_tasks_all_runs", "weight_rule")


class Slots(Strict):
    """What a task takes of a slot pool of its tenant while it is queued or runs."""

    name: Identifier
    count: int = Field(default=1, ge=1, le=MAX_SLOTS)


def _short(value: Any) -> Any:
    """`slots: warehouse` means one of them."""
    return {"name": value} if isinstance(value, str) else value


SlotsField = Annotated[Slots | None, BeforeValidator(_short, json_schema_input_type=str | Slots | None)]
Limit = Annotated[int | None, Field(ge=1, le=10_000)]
Weight = Annotated[int | None, Field(ge=0, le=MAX_WEIGHT)]


def check_limits(kind: str, given: Mapping[str, Any]) -> None:
    """Refuse limits of a task that has no job. Raises BadValue."""
    if kind not in JOBLESS:
        return
    for name in OF_JOBS:
        if given.get(name) is not None:
            raise BadValue("wrong_kind", f"A task of kind {kind} has no job and takes no place: remove {name}.")


def limits_of(source: Any, names: tuple[str, ...]) -> dict[str, Any]:
    """Those of the fields that were given, as they stand in a definition."""
    found = {name: getattr(source, name) for name in names}
    return {
        name: value.model_dump() if isinstance(value, Slots) else value
        for name, value in found.items()
        if value is not None
    }
