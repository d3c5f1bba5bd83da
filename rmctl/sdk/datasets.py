"""Datasets in a DAG file: `DAG(schedule=Dataset("s3://a") & Dataset("s3://b"))`, `@task(outlets=[Dataset("s3://c")])`.

Loaded by DAG files that name datasets; imports nothing.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Condition:
    """Datasets joined by `&` (all of them) and `|` (any of them)."""

    __slots__ = ("items", "kind")

    def __init__(self, kind: str, *items: "Condition") -> None:
        self.kind = kind
        self.items = items

    def __and__(self, other: "Condition") -> "Condition":
        return _joined("all", self, other)

    def __or__(self, other: "Condition") -> "Condition":
        return _joined("any", self, other)

    def expression(self) -> "Any":
        """The condition as a definition has it."""
        return {self.kind: [item.expression() for item in self.items]}


class Dataset(Condition):
    """A dataset of the tenant, named by its URI."""

    __slots__ = ("uri",)

    def __init__(self, uri: str) -> None:
        super().__init__("all", self)
        self.uri = uri

    def expression(self) -> "Any":
        return self.uri

    def __repr__(self) -> str:
        return f"Dataset({self.uri!r})"


def expression(given: "Any") -> "Any":
    """What a definition says for a dataset, datasets that were joined, a name, or a list of these."""
    if isinstance(given, list | tuple):
        return [expression(item) for item in given]
    return given.expression() if isinstance(given, Condition) else given


def _joined(kind: str, *parts: "Condition") -> "Condition":
    """`a & b & c` as one list of three."""
    items = []
    for part in parts:
        items += part.items if part.kind == kind and not isinstance(part, Dataset) else [part]
    return Condition(kind, *items)
