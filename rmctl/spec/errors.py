"""What is wrong with a spec, as fields with messages; made from pydantic's errors."""

import difflib
import types
import typing
from collections.abc import Iterable
from typing import Any, TypedDict

from pydantic import BaseModel, ValidationError


class FieldError(TypedDict):
    """One fault: where it is (`groups[0].resources.cpu`), what would be right, and a stable code."""

    field: str
    message: str
    code: str


# Of thousands of faults so many are told: finding what was meant takes time for each, and words many times its size.
FAULTS_TOLD = 100


class SpecError(ValueError):
    """A job or workflow was refused; `errors` names every fault that was found, not only the first, but
    of those in the shape of what was given FAULTS_TOLD at most."""

    def __init__(self, errors: list[FieldError]) -> None:
        # What was sent may hold half surrogate pairs; whoever reports it has to be able to encode it.
        self.errors = errors = [
            field_error(_encodable(error["field"]), _encodable(error["message"]), error["code"])
            for error in errors
        ]
        first = errors[0]
        text = f"{first['field']}: {first['message']}" if first["field"] else first["message"]
        if len(errors) > 1:
            text += f" ({len(errors) - 1} more)"
        super().__init__(text)


class BadValue(ValueError):
    """Raised by a field's own check: a stable code and a message for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def field_error(field: str, message: str, code: str) -> FieldError:
    """One entry of `SpecError.errors`."""
    return {"field": field, "message": message, "code": code}


def _encodable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def path(parts: Iterable[int | str]) -> str:
    """`("groups", 0, "env")` as `groups[0].env`."""
    text = ""
    for part in parts:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` Did you mean x?` or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {close[0]}?" if close else ""


_KINDS = {
    "string_type": "a string",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
}

_LIMITS = {
    "greater_than_equal": ("at least", "ge"),
    "greater_than": ("more than", "gt"),
    "less_than_equal": ("at most", "le"),
    "less_than": ("less than", "lt"),
    "too_long": ("of at most", "max_length"),
    "too_short": ("of at least", "min_length"),
    "string_too_long": ("of at most", "max_length"),
    "string_too_short": ("of at least", "min_length"),
}


def from_validation(error: ValidationError, model: type[BaseModel]) -> SpecError:
    """Turn pydantic's errors into ours."""
    errors = []
    for item in error.errors(include_url=False)[:FAULTS_TOLD]:
        # A dict key that was refused carries a "[key]" marker behind it; people know only the key.
        location = [part for part in item["loc"] if part != "[key]"]
        message, code = _explain(item, location, model)
        errors.append(field_error(path(location), message, code))
    return SpecError(errors)


def _explain(item: Any, location: list[int | str], model: type[BaseModel]) -> tuple[str, str]:
    kind, context, given = item["type"], item.get("ctx") or {}, item.get("input")
    cause = context.get("error")
    if isinstance(cause, BadValue):
        return cause.message, cause.code
    if kind == "extra_forbidden":
        known = _fields_at(model, location[:-1])
        hint = did_you_mean(str(location[-1]), known)
        return f"Unknown field.{hint} Accepted here: {', '.join(known)}.", "unknown_field"
    if kind == "missing":
        return "This field is required.", "required"
    if kind in _KINDS:
        hint = " Put it in quotes." if kind == "string_type" and isinstance(given, int | float) else ""
        return f"Must be {_KINDS[kind]}, not {describe(given)}.{hint}", "wrong_type"
    if kind in _LIMITS:
        words, key = _LIMITS[kind]
        unit = {"string": " characters", "too": " items"}.get(kind.split("_")[0], "")
        return f"Must be {words} {context[key]}{unit}.", "out_of_range"
    if kind == "literal_error":
        return f"Must be one of {context['expected']}, not {describe(given)}.", "not_a_choice"
    return f"{item['msg']}.", kind


def describe(value: object) -> str:
    """A value as JSON's name of its type, with short scalars spelled out."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"the number {str(value)[:40]}"
    if isinstance(value, str):
        return f'"{value[:40]}{"…" if len(value) > 40 else ""}"'
    return {"list": "a list", "tuple": "a list", "dict": "an object"}.get(
        type(value).__name__, type(value).__name__
    )


def _fields_at(model: type[BaseModel], location: list[int | str]) -> list[str]:
    """The field names a location accepts, found by walking the model's annotations."""
    current: type[BaseModel] | None = model
    annotation: Any = model
    for part in location:
        if (
            current is not None
            and isinstance(part, str)
            and part in {f.alias or n for n, f in _named(current)}
        ):
            annotation = next(f.annotation for n, f in _named(current) if part == (f.alias or n))
        current = _model_in(annotation)
    return [field.alias or name for name, field in _named(current)] if current else []


def _named(model: type[BaseModel]) -> Iterable[tuple[str, Any]]:
    return model.model_fields.items()


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The first model inside `list[M]`, `dict[str, M]`, `M | None` or `M`."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return annotation if issubclass(annotation, BaseModel) else None
    for argument in typing.get_args(annotation):
        found = _model_in(argument)
        if found is not None:
            return found
    return None
