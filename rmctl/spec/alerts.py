"""Who hears of what becomes of a run or a task, and until when it must have ended."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from .quantities import Seconds
from .values import StoredName, Strict

Occasion = Literal["failure", "success", "retry", "deadline", "approval"]
OCCASIONS: tuple[Occasion, ...] = ("failure", "success", "retry", "deadline", "approval")
MAX_RULES = 20


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


_Occasions = Annotated[list[Occasion], Field(min_length=1, max_length=len(OCCASIONS))]
_Destinations = Annotated[list[StoredName], Field(min_length=1, max_length=MAX_RULES)]


class Notify(Strict):
    """On these occasions the destinations with these names are told. In a workflow failure, success and deadline are
    the run's, retry and approval those of any task; in a task all are that task's."""

    on: Annotated[_Occasions, BeforeValidator(_listed, json_schema_input_type=Occasion | _Occasions)]
    to: Annotated[_Destinations, BeforeValidator(_listed, json_schema_input_type=StoredName | _Destinations)]

    def definition(self) -> dict[str, Any]:
        """The rule as it stands in a definition."""
        return {"on": sorted(set(self.on)), "to": sorted(set(self.to))}


class DeadlineSpec(Strict):
    """How long after the run's start, or after the time that its schedule made it for, something must have ended."""

    after: Annotated[Seconds, Field(ge=1, json_schema_extra={"examples": ["2h"]})]
    from_: Literal["start", "scheduled"] = Field(default="start", alias="from")

    def definition(self) -> dict[str, Any]:
        """The deadline as it stands in a definition."""
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True)


def _deadline(value: Any) -> Any:
    return value if value is None or isinstance(value, dict | DeadlineSpec) else {"after": value}


NotifyRules = Annotated[list[Notify], Field(max_length=MAX_RULES)]
Deadline = Annotated[
    DeadlineSpec,
    BeforeValidator(_deadline, json_schema_input_type=str | float | DeadlineSpec),
]


def said(notify: list[Notify], deadline: DeadlineSpec | None) -> dict[str, Any]:
    """The fields of a workflow or a task that say something; the others do not stand in its definition."""
    fields: dict[str, Any] = {}
    if notify:
        fields["notify"] = [rule.definition() for rule in notify]
    if deadline is not None:
        fields["deadline"] = deadline.definition()
    return fields
