"""What tasks let other apps do: a kind of task that begins something elsewhere, and waits for its end as a row.

Apps beside this one are not imported. Whoever joins the two (rmportal/deployments.py) puts an `External` here for each
kind when all apps are ready, and calls `happened` when something has ended. That is a hint, as every wake is: a wait is
looked at again every LOOK_AGAIN without it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

from apps.core.errors import Conflict

from . import moved
from .models import Run, Wait

LOOK_AGAIN = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class Begun:
    """What was begun: its number there, and what the task says meanwhile."""

    reference: int
    detail: str


@dataclass(frozen=True, slots=True)
class Seen:
    """How far it is: `good` is None while it goes on."""

    good: bool | None
    detail: str
    result: Any


class External(Protocol):
    """One kind of task."""

    def begin(self, run: Run, options: Any, inputs: Mapping[str, Any]) -> Begun:
        """Begin it in the present transaction. Raises DomainError when that is refused."""

    def look(self, reference: int) -> Seen:
        """How far it is."""


EXTERNALS: dict[str, External] = {}


def of_kind(kind: str) -> External:
    """Who does this kind of task. Raises Conflict where nobody does."""
    found = EXTERNALS.get(kind)
    if found is None:
        raise Conflict(f"This portal does not offer tasks of kind {kind}.", code="not_offered")
    return found


def happened(reference: int) -> None:
    """Once the present transaction has committed, look at the tasks that wait for this."""
    tasks = list(Wait.objects.filter(kind=Wait.Kind.EXTERNAL, reference=reference).values_list("pk", flat=True))
    if tasks:
        moved.tell_waits(tasks)
