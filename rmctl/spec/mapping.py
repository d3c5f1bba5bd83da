"""Mapped tasks: which instances the lists of a `map` make, and what each of them gets.

The item of an instance is computed from its index; a product is never written out. Pure, and shared by the checks of a
definition, the portal and whatever runs a workflow elsewhere.
"""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, model_validator

from . import arguments
from .arguments import ARGUMENT_NAME, Argument, ArgumentError, ArgumentName, Arguments
from .errors import BadValue, describe, did_you_mean
from .labels import check_label
from .values import Strict

MAX_MAP = 10_000
# How a mapped task is expanded: by fields of `map`, of which it has exactly one.
KINDS = ("over", "zip", "kwargs")


class MapSpec(Strict):
    """The instances of a task: one for each combination of items of the lists in `over` (the last list varies
    fastest), one for each place of the lists in `zip` (equally long, or filled up with `fill`), or one for each object
    of the list `kwargs`, which gives arguments by name, those of `accepts` only if that is there. Stored JSON has no
    order of names: `order` keeps that of `over`."""

    over: Arguments | None = None
    order: list[ArgumentName] | None = None
    zip: Arguments | None = None
    fill: Any = None
    kwargs: Argument | None = None
    accepts: list[ArgumentName] | None = Field(default=None, max_length=1000)
    # What an instance is called, from its own arguments.
    label: Annotated[str, AfterValidator(check_label)] | None = None
    limit: int = Field(default=1000, ge=1, le=MAX_MAP)

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        given = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            there = " and ".join(given) or "none of them"
            raise BadValue("bad_map", f"Give exactly one of over, zip and kwargs; there is {there}.")
        for name, kind in (("order", "over"), ("fill", "zip"), ("accepts", "kwargs")):
            if name in self.model_fields_set and given != [kind]:
                raise BadValue("bad_map", f"{name} belongs to {kind}; remove it.")
        if self.order is not None and sorted(self.order) != sorted(self.over or ()):
            raise BadValue("bad_map", "order must name each argument of over once.")
        if not self.sources:
            raise BadValue("bad_map", f"{given[0]} is empty: give at least one argument with a list to map over.")
        self._check_literals()
        return self

    def _check_literals(self) -> None:
        """What can be known already: lists that are literal, and how many instances they make if all are."""
        literal = {name: each.value for name, each in self.sources.items() if "value" in each.model_fields_set}
        plain = self.definition()
        try:
            if len(literal) == len(self.sources):
                expand(plain, {name: literal[name] for name in self.sources})
            for name, value in literal.items():
                _list(name, value)
        except ArgumentError as error:
            raise BadValue("bad_map", str(error)) from None

    @property
    def sources(self) -> dict[str, Argument]:
        """Where the lists come from, by argument (that of `kwargs` stands for any)."""
        if self.over is not None:
            return {name: self.over[name] for name in self.order or self.over}
        return dict(self.zip or ({"kwargs": self.kwargs} if self.kwargs is not None else {}))

    @property
    def names(self) -> set[str]:
        """The arguments that instances get from it, as far as the definition says."""
        if self.kwargs is None:
            return set(self.sources)
        items = self.kwargs.value if isinstance(self.kwargs.value, list) else []
        return {name for item in items if isinstance(item, Mapping) for name in item}

    @property
    def open(self) -> bool:
        """Whether instances may get arguments that the definition does not name: those of a result or parameter."""
        return self.kwargs is not None and "value" not in self.kwargs.model_fields_set

    def definition(self) -> dict[str, Any]:
        """The map as it stands in a definition."""
        plain: dict[str, Any] = {}
        for kind, lists in (("over", self.over), ("zip", self.zip)):
            if lists is not None:
                plain[kind] = {name: each.model_dump(exclude_unset=True) for name, each in lists.items()}
        if self.over is not None and len(self.over) > 1:
            plain["order"] = list(self.order or self.over)
        if self.kwargs is not None:
            plain["kwargs"] = self.kwargs.model_dump(exclude_unset=True)
            if self.accepts is not None:
                plain["accepts"] = sorted(set(self.accepts))
        if "fill" in self.model_fields_set:
            plain["fill"] = self.fill
        if self.label is not None:
            plain["label"] = self.label
        return plain | {"limit": self.limit}


def sources(mapping: Any) -> Iterator[tuple[str, Any]]:
    """(field, argument) of everything that a `map` takes lists from, also of one that has the wrong shape."""
    if not isinstance(mapping, Mapping):
        return
    for kind in ("over", "zip"):
        lists = mapping.get(kind)
        for name, argument in lists.items() if isinstance(lists, Mapping) else ():
            yield f"{kind}.{name}", argument
    if mapping.get("kwargs") is not None:
        yield "kwargs", mapping["kwargs"]


@dataclass(frozen=True, slots=True)
class Expansion:
    """The lists of a mapped task as they are in a run; `width` is how many instances they make."""

    kind: str
    lists: Mapping[str, Sequence[Any]]
    width: int
    fill: Any = None

    def item(self, index: int) -> dict[str, Any]:
        """The arguments of one instance by name. Raises IndexError for one that there is not."""
        if not 0 <= index < self.width:
            raise IndexError(index)
        if self.kind == "kwargs":
            return dict(self.lists["kwargs"][index])
        if self.kind == "zip":
            return {name: items[index] if index < len(items) else self.fill for name, items in self.lists.items()}
        found: dict[str, Any] = {}
        for name, items in reversed(self.lists.items()):
            index, place = divmod(index, len(items))
            found[name] = items[place]
        return {name: found[name] for name in self.lists}

    def repeats(self, name: str) -> int:
        """In how many instances each item of a list is."""
        return self.width // len(self.lists[name]) if self.kind == "over" and self.width else 1


def resolved(mapping: Mapping[str, Any], results: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, Any]:
    """What a `map` of a definition is expanded over in a run, by argument. Raises ArgumentError."""
    found = {field.partition(".")[2] or field: argument for field, argument in sources(mapping)}
    return {name: arguments.resolve(found[name], results, params) for name in mapping.get("order") or found}


def expand(mapping: Mapping[str, Any], lists: Mapping[str, Any], given: Collection[str] = ()) -> Expansion:
    """The instances that these values of its lists make. Raises ArgumentError for what is not a list, too many
    instances, lists of a zip that differ in length, and objects of kwargs that give what they may not, such as what is
    `given` to all instances alike."""
    checked = {name: _list(name, value) for name, value in lists.items()}
    kind = next(kind for kind in KINDS if kind in mapping)
    lengths = [len(items) for items in checked.values()]
    width = math.prod(lengths) if kind == "over" else max(lengths)
    if kind == "zip" and "fill" not in mapping and len(set(lengths)) > 1:
        there = ", ".join(f"{name} has {len(items):,} items" for name, items in checked.items())
        raise ArgumentError(
            f"the lists of a zip are of different lengths: {there}. Make them equally long, or give a fill."
        )
    if width > mapping["limit"]:
        raise ArgumentError(_too_many(checked, width, mapping["limit"], product=kind == "over"))
    if kind == "kwargs":
        _check_kwargs(checked["kwargs"], mapping.get("accepts"), given)
    return Expansion(kind, checked, width, mapping.get("fill"))


def _list(name: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ArgumentError(f"only a list can be mapped over, and {name} is {describe(value)}.")
    return value


def _too_many(lists: Mapping[str, Sequence[Any]], width: int, limit: int, *, product: bool) -> str:
    if product and len(lists) > 1:
        factors = " × ".join(f"{len(items):,} ({name})" for name, items in lists.items())
        there = f"{factors} are {width:,} instances"
    else:
        there = f"{next(iter(lists))} has {width:,} items"
    way = f"Raise map.limit (at most {MAX_MAP:,}) or map over fewer."
    if limit == MAX_MAP:
        way = "Map over fewer, and let each instance do more of the work."
    return f"{there}; its limit is {limit:,}. {way}"


def _check_kwargs(items: Sequence[Any], accepts: Sequence[str] | None, given: Collection[str]) -> None:
    for index, item in enumerate(items):
        if not isinstance(item, Mapping):
            raise ArgumentError(f"item {index} of kwargs must be an object of arguments by name, not {describe(item)}.")
        for name in item:
            if not ARGUMENT_NAME.fullmatch(name):
                raise ArgumentError(f'item {index} of kwargs has "{name[:60]}", which is not the name of an argument.')
            if accepts is not None and name not in accepts:
                there = ", ".join(accepts[:20]) or "none"
                hint = did_you_mean(name, accepts)
                raise ArgumentError(f"item {index} of kwargs has the unknown argument {name}; there are {there}.{hint}")
            if name in given:
                raise ArgumentError(f"item {index} of kwargs gives {name}, which all instances get already; keep one.")
