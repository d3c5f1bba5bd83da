"""Checks shared by jobs and workflows: names, variables, and JSON that every store can keep."""

import json
import math
import re
from collections.abc import Iterator
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from rmctl.names import DATASET, JURISDICTION, LABEL_KEY, LABEL_VALUE

from .errors import BadValue, FieldError, SpecError, field_error, from_validation, path

IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,199}")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}")
IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]{0,499}")
SHA256 = re.compile(r"[0-9a-f]{64}")
SECRET = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
SLUG = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")

# Linux gives one argument or variable of a process at most 128 KiB.
ARGUMENT_BYTES = 120 * 1024
SCRIPT_BYTES = ARGUMENT_BYTES
MAX_DEPTH = 64


class Strict(BaseModel):
    """Base of every part of a spec: unknown fields are refused, nothing is converted silently."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def _matching(pattern: re.Pattern[str], code: str, message: str) -> AfterValidator:
    def check(value: str) -> str:
        if not pattern.fullmatch(value):
            raise BadValue(code, f'"{value[:60]}" {message}')
        return value

    return AfterValidator(check)


_ID_RULE = "is not an id: start with a letter or _, then letters, digits, _ . or -, at most 200 in all."
Identifier = Annotated[
    str,
    _matching(IDENTIFIER, "bad_id", _ID_RULE),
    Field(json_schema_extra={"pattern": f"^{IDENTIFIER.pattern}$"}),
]
STORED = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
StoredName = Annotated[
    str, _matching(STORED, "bad_id", "is not a name: letters, digits, _ . and -, at most 100 in all.")
]
Image = Annotated[
    str, _matching(IMAGE, "bad_image", "is not an image reference such as docker.io/library/python:3.12.")
]
Digest = Annotated[
    str,
    _matching(
        SHA256, "bad_digest", "is not the SHA-256 of an uploaded bundle: 64 lower-case hexadecimal digits."
    ),
    Field(json_schema_extra={"pattern": f"^{SHA256.pattern}$"}),
]
Slug = Annotated[
    str, _matching(SLUG, "bad_slug", "is not a slug: lower-case letters, digits and -, at most 63.")
]
Dataset = Annotated[
    str,
    _matching(DATASET, "bad_dataset", "is not the name of a dataset: 1 to 63 letters, digits and inner _ . -"),
]
Jurisdiction = Annotated[
    str, _matching(JURISDICTION, "bad_jurisdiction", "is not a jurisdiction: capital letters as in EU, DE or US-CA.")
]
JobLabels = Annotated[
    dict[
        Annotated[
            str,
            _matching(LABEL_KEY, "bad_label", "is not a label key: 1 to 63 letters, digits and inner _ . / -"),
        ],
        Annotated[
            str,
            _matching(LABEL_VALUE, "bad_label", "is not a label value: up to 63 letters, digits and inner _ . -"),
        ],
    ],
    Field(max_length=64),
]
Line = Annotated[str, StringConstraints(min_length=1, max_length=200)]


def _variable(name: str) -> str:
    if not VARIABLE.fullmatch(name):
        raise BadValue("bad_variable", f'"{name[:60]}" is not a variable name: use letters, digits and _.')
    if name.startswith("RM_"):
        raise BadValue(
            "reserved_variable", f"{name}: names that start with RM_ are set by the portal; use another."
        )
    return name


def _variable_value(value: str) -> str:
    if len(value.encode()) > ARGUMENT_BYTES:
        raise BadValue(
            "too_large", "A variable holds at most 120 KiB; put larger data into a file of the bundle."
        )
    return value


Variable = Annotated[str, AfterValidator(_variable)]
Environment = dict[Variable, Annotated[str, AfterValidator(_variable_value)]]
Secrets = dict[
    Variable, Annotated[str, _matching(SECRET, "bad_secret", "is not the name of a secret of the tenant.")]
]


def check_variables(env: dict[str, str], secrets: dict[str, str]) -> None:
    """Refuse a variable that is given both a value and a secret. Raises BadValue."""
    both = sorted(env.keys() & secrets.keys())
    if both:
        raise BadValue("variable_twice", f"{', '.join(both)}: given in both env and secrets; keep one.")


def check_script(script: str) -> str:
    """Refuse an empty script and one that a process cannot be started with. Raises BadValue."""
    if not script.strip():
        raise BadValue("empty", "The script is empty; give the commands to run.")
    if len(script.encode()) > SCRIPT_BYTES:
        raise BadValue(
            "too_large", "A script has at most 120 KiB; put longer ones into a file of the bundle."
        )
    return script


Script = Annotated[str, AfterValidator(check_script)]


def canonical_json(value: Any) -> bytes:
    """Sorted keys, no blanks, UTF-8: equal values give equal bytes."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


Model = TypeVar("Model", bound=BaseModel)


def validated(model: type[Model], data: Any) -> Model:
    """An instance of the model. Raises SpecError with the model's errors and what cannot be kept as JSON."""
    errors: list[FieldError] = []
    parsed = None
    try:
        parsed = model.model_validate(data)
    except ValidationError as error:
        errors = from_validation(error, model).errors
    except UnicodeError:
        # Pydantic stops at half a surrogate pair; below it is named.
        errors = []
    named = {error["field"] for error in errors}
    errors += [fault for fault in json_faults(data) if fault["field"] not in named]
    if errors or parsed is None:
        raise SpecError(errors)
    return parsed


def plain_number(value: float) -> int | float:
    """A whole number as an int."""
    return int(value) if float(value).is_integer() else value


def json_faults(value: Any) -> list[FieldError]:
    """What keeps a value from being stored as JSON everywhere: NaN, NUL, lone surrogates, odd keys, depth."""
    return [field_error(path(where), message, code) for where, message, code in _walk(value, (), 0)]


def _walk(
    value: Any, where: tuple[int | str, ...], depth: int
) -> Iterator[tuple[tuple[int | str, ...], str, str]]:
    if depth > MAX_DEPTH:
        yield where, f"Nested deeper than {MAX_DEPTH} levels.", "too_deep"
    elif isinstance(value, str):
        if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
            yield where, "Contains a NUL character or half of a surrogate pair; remove it.", "bad_character"
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                yield where, f"The key {key!r} is not a string; put it in quotes.", "bad_key"
            elif "\0" in key or not key.isprintable():
                yield where, f"The key {key!r} contains a control character; remove it.", "bad_character"
            else:
                yield from _walk(item, (*where, key), depth + 1)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _walk(item, (*where, index), depth + 1)
    elif isinstance(value, float):
        if not math.isfinite(value):
            yield where, f"{value} is not a JSON number; give a finite one.", "not_finite"
    elif isinstance(value, int) and not isinstance(value, bool):
        if abs(value) > 2**63:
            yield where, "The number is absurdly large; give one below 2**63.", "absurd_quantity"
    elif value is not None and not isinstance(value, bool):
        yield (
            where,
            f"A {type(value).__name__} is not JSON; give text, numbers, lists and objects.",
            "not_json",
        )
