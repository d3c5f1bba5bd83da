"""What a task is mapped over. Like dag.py it imports nothing heavy."""

from rmctl.sdk.options import SdkError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

_NOTHING = object()


class Over:
    """The lists that make the instances of a task, and how: all combinations (`over`), place by place (`zip`), or one
    list of objects that give arguments by name (`kwargs`)."""

    __slots__ = ("extra", "kind", "lists")

    def __init__(self, kind: str, lists: "Mapping[str, Any]", extra: "Mapping[str, Any] | None" = None) -> None:
        self.kind = kind
        self.lists = dict(lists)
        # Further fields of `map`.
        self.extra = dict(extra or {})

    def names(self) -> "set[str]":
        """The arguments that instances get from it, as far as they are known."""
        if self.kind != "kwargs":
            return set(self.lists)
        rows = self.lists["kwargs"]
        rows = rows if isinstance(rows, list | tuple) else ()
        return {name for row in rows if isinstance(row, dict) for name in row}

    def definition(self, arguments: "Mapping[str, Any]") -> "dict[str, Any]":
        """As `map` of a definition; `arguments` are the lists as these are written there."""
        return {self.kind: arguments["kwargs"] if self.kind == "kwargs" else dict(arguments), **self.extra}


def zipped(*, fillvalue: "Any" = _NOTHING, **lists: "Any") -> Over:
    """For `expand=`: an instance for each place of the lists, which are of the same length unless there is a
    `fillvalue` for what the shorter ones lack."""
    if not lists:
        raise SdkError("zipped needs at least one list to map over: zipped(a=[1, 2], b=[3, 4]).")
    return Over("zip", lists, {} if fillvalue is _NOTHING else {"fill": fillvalue})


def kwargs(rows: "Any", accepts: "Iterable[str] | None" = None) -> Over:
    """An instance for each object of a list, which gives it arguments by name, none but those of `accepts`."""
    return Over("kwargs", {"kwargs": rows}, {} if accepts is None else {"accepts": sorted(accepts)})


def over_of(where: str, expand: "Any") -> "Over | None":
    """What `expand=` means: an object of lists is their product, a list (or what gives one) has objects of arguments.
    Raises SdkError."""
    if expand is None or isinstance(expand, Over):
        return expand
    if not isinstance(expand, dict):
        return kwargs(expand)
    if not expand:
        raise SdkError(f"{where}: expand needs at least one argument with a list to map over.")
    return Over("over", expand)
