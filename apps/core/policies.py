"""The base of every app's policy object: one answer for the console, the API and the sockets.

Unknown means no: an action without a rule is refused, and an object outside `visible()` does not exist.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Generic, TypeVar

from django.db.models import Model, QuerySet

from .actors import Actor
from .errors import Forbidden, NotFound

M = TypeVar("M", bound=Model)
Rule = Callable[[Actor, Any], bool]


class Policy(Generic[M]):
    """Who may see and do what with objects of one model.

    Subclasses give `model`, `noun`, `visible()` and `rules`: action → predicate(actor, object). `scopes`
    names the token scope that an action needs where it is not `write`.
    """

    model: type[M]
    noun: ClassVar[str]
    rules: ClassVar[Mapping[str, Rule]] = {}
    scopes: ClassVar[Mapping[str, str]] = {}

    def visible(self, actor: Actor, queryset: QuerySet[M] | None = None) -> QuerySet[M]:
        """The rows that the actor may know of; default deny."""
        rows = self.model._default_manager.all() if queryset is None else queryset
        if not actor.has_scope("read"):
            return rows.none()
        return rows if actor.system else self._visible(actor, rows)

    def _visible(self, actor: Actor, rows: QuerySet[M]) -> QuerySet[M]:
        return rows.all() if actor.operator else rows.none()

    def allows(self, actor: Actor, action: str, obj: Any) -> bool:
        """Whether the actor may do `action` on `obj` (for `create`: on the parent it would be made in)."""
        rule = self.rules.get(action)
        if rule is None:
            return False
        if actor.system:
            return True
        return actor.has_scope(self.scopes.get(action, "write")) and rule(actor, obj)

    def require(self, actor: Actor, action: str, obj: Any) -> None:
        """Raise Forbidden unless allowed."""
        if not self.allows(actor, action, obj):
            raise Forbidden(f"{actor.label} may not {action.replace('_', ' ')} {self.noun} {obj}.")

    def get(self, actor: Actor, action: str | None = None, *, lock: bool = False, **lookup: Any) -> M:
        """The object, if it is visible and the action is allowed; NotFound for strangers, Forbidden for members."""
        rows = self.visible(actor).filter(**lookup)
        found = (rows.select_for_update(of=("self",)) if lock else rows).first()
        if found is None:
            named = ", ".join(str(value) for value in lookup.values())
            raise NotFound(f"There is no {self.noun} {named} that you can see.")
        if action is not None:
            self.require(actor, action, found)
        return found


def operator(actor: Actor, _obj: Any) -> bool:
    """Operators only."""
    return actor.operator
