"""Forms as data: what was typed, what the field is called, and what the command said about it."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.http import QueryDict

from apps.core.errors import DomainError, FieldError


@dataclass(slots=True)
class Field:
    """One input with its label, value and error."""

    name: str
    label: str
    kind: str = "text"
    value: Any = ""
    help: str = ""
    placeholder: str = ""
    optional: bool = False
    mono: bool = False
    rows: int = 4
    choices: Sequence[tuple[str, str]] = ()
    error: str = ""
    focus: bool = False


@dataclass(slots=True)
class Form:
    """Fields by name, and what is wrong with none of them in particular."""

    fields: dict[str, Field]
    problems: list[str] = field(default_factory=list)

    def __getitem__(self, name: str) -> Field:
        return self.fields[name]

    def fill(self, values: Mapping[str, Any]) -> None:
        """Take over what was typed."""
        for name, item in self.fields.items():
            if item.kind == "check":
                item.value = name in values
            elif item.kind == "checks":
                item.value = several(values, name)
                item.choices = [*item.choices, *_strangers(item)]
            elif name in values:
                item.value = values[name]

    def refuse(self, error: DomainError, paths: Mapping[str, str]) -> None:
        """Put each fault beside its field; what no field stands for goes on top. A name is what is taken."""
        field = "name" if error.code == "exists" else ""
        faults: Iterable[FieldError] = error.errors or [
            FieldError(field=field, message=error.detail, code=error.code)
        ]
        for fault in faults:
            name = owner(fault["field"], paths)
            if name in self.fields:
                self.fields[name].error = fault["message"]
            else:
                self.problems.append(fault["message"])


def several(values: Mapping[str, Any], name: str) -> list[str]:
    """All values of a field that takes several, without the character that PostgreSQL can't hold."""
    found = values.getlist(name) if isinstance(values, QueryDict) else values.get(name, ())
    return [text for value in found if (text := value.replace("\x00", "").strip())]


def _strangers(item: Field) -> list[tuple[str, str]]:
    """Chosen values that are not (or no longer) among the choices: they stay until somebody takes them away."""
    known = {value for value, _ in item.choices}
    return [(value, value) for value in item.value if value not in known]


def owner(path: str, paths: Mapping[str, str]) -> str:
    """The form field that stands for a path of the input: the longest match; "" when none does."""
    found = [name for name, known in paths.items() if path == known or path.startswith((f"{known}.", f"{known}["))]
    return max(found, key=lambda name: len(paths[name]), default="")


class Reader:
    """Reads typed values; every fault is kept with the path (of `paths`) that the command would name."""

    def __init__(
        self, values: Mapping[str, str], errors: list[FieldError], paths: Mapping[str, str]
    ) -> None:
        self.values = values
        self.errors = errors
        self.paths = paths

    def text(self, name: str) -> str:
        return self.values.get(name, "").replace("\x00", "").strip()

    @staticmethod
    def present(**values: str) -> dict[str, Any]:
        return {name: value for name, value in values.items() if value}

    def fault(self, name: str, message: str) -> None:
        self.errors.append(FieldError(field=self.paths[name], message=message, code="invalid"))

    def integer(self, name: str, default: int) -> int:
        raw = self.text(name)
        if not raw:
            return default
        digits = raw.removeprefix("-")
        if digits.isascii() and digits.isdigit() and len(digits) < 19:
            return int(raw)
        self.fault(name, f"{raw!r} is not a whole number.")
        return default

    def number(self, name: str) -> float:
        """A decimal number that is not negative; 0 beside the fault."""
        raw = self.text(name)
        whole, _, part = raw.partition(".")
        if raw.isascii() and whole.isdigit() and (part.isdigit() or "." not in raw) and len(raw) < 19:
            return float(raw)
        self.fault(name, f"{raw!r} is not a number such as 2.50.")
        return 0.0

    def listed(self, name: str) -> list[str]:
        return [part.strip() for part in self.text(name).split(",") if part.strip()]

    def argv(self, name: str) -> list[str]:
        try:
            return shlex.split(self.text(name))
        except ValueError as error:
            self.fault(name, f"It cannot be split into words: {error}.")
            return []

    def pairs(self, name: str, shape: str = "NAME=value") -> dict[str, str]:
        """Lines of the shape, each name once."""
        found: dict[str, str] = {}
        for line in self.lines(name):
            key, equals, value = (part.strip() for part in line.partition("="))
            if not equals or not key:
                self.fault(name, f"{line!r} is not {shape}.")
            elif key in found:
                self.fault(name, f"{key} is there twice.")
            else:
                found[key] = value
        return found

    def lines(self, name: str) -> list[str]:
        """The lines that are not empty."""
        return [line.strip() for line in self.text(name).splitlines() if line.strip()]
