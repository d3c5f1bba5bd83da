"""Serializer bases: unknown fields are refused, and nothing that PostgreSQL cannot store gets through."""

import difflib
import math
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

from rest_framework import exceptions, serializers
from rest_framework.parsers import JSONParser

from rmctl.spec.errors import FAULTS_TOLD

from .errors import FieldError, Invalid

MAX_DEPTH = 64
MAX_INTEGER = 2**63 - 1
MIN_INTEGER = -(2**63)


def suggestion(name: str, known: Iterable[str]) -> str:
    """`did you mean 'x'?` for a name that is nearly one of the known ones, else what is accepted."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"accepted: {', '.join(known)}." if known else "none is accepted here."


def unknown_field(name: str, known: Iterable[str]) -> FieldError:
    """The error for a field that nobody asked for."""
    return FieldError(
        field=name, message=f"There is no such field; {suggestion(name, known)}", code="unknown_field"
    )


def check_text(field: str, value: str) -> None:
    """Refuse what PostgreSQL text cannot hold: NUL, and halves of surrogate pairs."""
    if "\x00" in value:
        raise Invalid.field(field, "must not contain the character NUL.", "null_character")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Invalid.field(
            field, "contains half of a surrogate pair, which is no character.", "bad_unicode"
        ) from None


def check_json(value: Any, path: str = "", depth: int = 0) -> None:
    """Refuse values inside a JSON document that could not be stored or read back the same."""
    if depth > MAX_DEPTH:
        raise Invalid.field(path, f"is nested deeper than {MAX_DEPTH} levels.", "too_deep")
    if isinstance(value, str):
        check_text(path, value)
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            check_text(path or "body", name)
            check_json(inner, f"{path}.{name}" if path else name, depth + 1)
    elif isinstance(value, list):
        for position, inner in enumerate(value):
            check_json(inner, f"{path or 'body'}[{position}]", depth + 1)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise Invalid.field(path, "is not a finite number.", "not_finite")
    elif isinstance(value, int) and not isinstance(value, bool) and not MIN_INTEGER <= value <= MAX_INTEGER:
        raise Invalid.field(path, "does not fit in 64 bits.", "out_of_range")


class StrictJsonParser(JSONParser):
    """JSON whose nesting the interpreter can follow; all of it passes `check_json`."""

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Any = None) -> Any:
        try:
            data = super().parse(stream, media_type, parser_context)
        except RecursionError:
            raise exceptions.ParseError("JSON parse error: nested too deeply.") from None
        check_json(data)
        return data


class StrictSerializer(serializers.Serializer[Any]):
    """A serializer that refuses unknown fields and says which one was probably meant."""

    def to_internal_value(self, data: Any) -> Any:
        problems: dict[str, Any] = {}
        values: Any = None
        try:
            values = super().to_internal_value(data)
        except serializers.ValidationError as error:
            if not isinstance(data, Mapping) or not isinstance(error.detail, dict):
                raise
            problems.update(error.detail)
        accepted = {name for name, field in self.fields.items() if not field.read_only}
        for name in islice((name for name in data if name not in accepted), FAULTS_TOLD):
            found = unknown_field(str(name), accepted)
            problems[str(name)] = [exceptions.ErrorDetail(found["message"], code="unknown_field")]
        if problems:
            raise serializers.ValidationError(problems)
        return values


class Integer(serializers.IntegerField):
    """A JSON integer of at most 64 bits: no strings, no booleans, no 1.0."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("min_value", MIN_INTEGER)
        options.setdefault("max_value", MAX_INTEGER)
        super().__init__(**options)

    def to_internal_value(self, data: Any) -> int:
        if isinstance(data, bool) or not isinstance(data, int):
            self.fail("invalid")
        return data


class Text(serializers.CharField):
    """A JSON string; numbers are not taken for text."""

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return str(super().to_internal_value(data))


class ReasonBody(StrictSerializer):
    """The body of a verb that may be given a reason, which its event keeps."""

    reason = Text(max_length=1000, default="", allow_blank=True)


class Nothing(StrictSerializer):
    """The body of a mutation that takes none: absent, empty or `{}`."""
