"""Parameters of a workflow: a small part of JSON Schema, checked without regular expressions of strangers."""

from collections.abc import Mapping
from itertools import islice
from typing import Any

from .errors import FAULTS_TOLD, FieldError, SpecError, describe, did_you_mean, field_error
from .values import VARIABLE, json_faults

_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}
_KEYWORDS = (
    "type", "title", "description", "default", "enum", "items",
    "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems",
)  # fmt: skip
_BOUNDS = _KEYWORDS[6:]
_TOP = ("type", "properties", "required", "additionalProperties", "title", "description")
MAX_PARAMS = 200


def schema_faults(schema: Mapping[str, Any]) -> list[FieldError]:
    """What is wrong with the `params` of a definition; fields start with `params`."""
    faults = [_unknown("params", key, _TOP) for key in schema if key not in _TOP]
    if schema.get("type", "object") != "object":
        faults.append(
            field_error("params.type", 'Must be "object": parameters are given by name.', "bad_schema")
        )
    if schema.get("additionalProperties", False) is not False:
        faults.append(
            field_error(
                "params.additionalProperties", "Must be false: unknown parameters are refused.", "bad_schema"
            )
        )
    properties = schema.get("properties", {})
    if not isinstance(properties, Mapping):
        return [*faults, field_error("params.properties", "Must be an object: name → schema.", "wrong_type")]
    if len(properties) > MAX_PARAMS:
        faults.append(
            field_error("params.properties", f"A workflow has at most {MAX_PARAMS} parameters.", "too_many")
        )
    for name, inner in properties.items():
        where = f"params.properties.{name}"
        if not VARIABLE.fullmatch(str(name)):
            faults.append(field_error(where, f"{name!r} is not a name: use letters, digits and _.", "bad_id"))
        faults += _property_faults(where, inner)
    required = schema.get("required", [])
    if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
        return [*faults, field_error("params.required", "Must be a list of names.", "wrong_type")]
    faults += [
        field_error(
            "params.required",
            f"There is no parameter {name}.{did_you_mean(name, properties)}",
            "unknown_param",
        )
        for name in required
        if name not in properties
    ]
    return faults


def _unknown(where: str, key: str, known: tuple[str, ...]) -> FieldError:
    message = f"Unknown keyword.{did_you_mean(str(key), known)} Accepted here: {', '.join(known)}."
    return field_error(f"{where}.{key}", message, "unknown_field")


def _property_faults(where: str, schema: Any) -> list[FieldError]:
    if not isinstance(schema, Mapping):
        return [
            field_error(
                where,
                f'Must be a schema such as {{"type": "integer"}}, not {describe(schema)}.',
                "wrong_type",
            )
        ]
    faults = [_unknown(where, key, _KEYWORDS) for key in schema if key not in _KEYWORDS]
    kinds = schema.get("type", [])
    kinds = kinds if isinstance(kinds, list) else [kinds]
    bad = [kind for kind in kinds if not isinstance(kind, str) or kind not in _TYPES]
    if bad:
        faults.append(field_error(f"{where}.type", f"Must be one of {', '.join(_TYPES)}.", "not_a_choice"))
    for key in _BOUNDS:
        bound = schema.get(key, 0)
        if isinstance(bound, bool) or not isinstance(bound, int | float):
            faults.append(
                field_error(f"{where}.{key}", f"Must be a number, not {describe(bound)}.", "wrong_type")
            )
    if not isinstance(schema.get("enum", []), list):
        faults.append(field_error(f"{where}.enum", "Must be a list of the accepted values.", "wrong_type"))
    if "items" in schema:
        faults += _property_faults(f"{where}.items", schema["items"])
    if not faults and "default" in schema:
        faults += [
            field_error(f"{where}.default", fault["message"], fault["code"])
            for fault in _value_faults("", schema["default"], schema)
        ]
    return faults


def check_params(schema: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a run with defaults filled in. Raises SpecError; fields start with `params`."""
    if not isinstance(given, Mapping):
        raise SpecError([field_error("params", f"Must be an object, not {describe(given)}.", "wrong_type")])
    properties = schema.get("properties", {})
    faults = [
        field_error(
            f"params.{name}",
            f"There is no such parameter.{did_you_mean(str(name), properties)}",
            "unknown_param",
        )
        for name in islice((name for name in given if name not in properties), FAULTS_TOLD)
    ]
    faults += [field_error(f"params.{f['field']}", f["message"], f["code"]) for f in json_faults(dict(given))]
    values: dict[str, Any] = {}
    for name, inner in properties.items():
        if name in given:
            values[name] = given[name]
            faults += _value_faults(f"params.{name}", given[name], inner)
        elif "default" in inner:
            values[name] = inner["default"]
        elif name in schema.get("required", []):
            faults.append(field_error(f"params.{name}", "This parameter is required.", "required"))
    if faults:
        raise SpecError(faults)
    return values


def _value_faults(where: str, value: Any, schema: Mapping[str, Any]) -> list[FieldError]:
    kinds = schema.get("type", [])
    kinds = kinds if isinstance(kinds, list) else [kinds]
    if kinds and not any(_is(value, kind) for kind in kinds):
        return [
            field_error(where, f"Must be of type {' or '.join(kinds)}, not {describe(value)}.", "wrong_type")
        ]
    faults = []
    if "enum" in schema and not any(
        value == choice and type(value) is type(choice) for choice in schema["enum"]
    ):
        choices = ", ".join(describe(choice) for choice in schema["enum"])
        faults.append(field_error(where, f"Must be one of {choices}.", "not_a_choice"))
    measures: list[tuple[str, str, float | None]] = [
        ("minimum", "maximum", value if _is(value, "number") else None),
        ("minLength", "maxLength", len(value) if isinstance(value, str) else None),
        ("minItems", "maxItems", len(value) if isinstance(value, list) else None),
    ]
    for low, high, size in measures:
        if size is not None and low in schema and size < schema[low]:
            faults.append(field_error(where, f"{low} is {schema[low]}, not {size}.", "out_of_range"))
        if size is not None and high in schema and size > schema[high]:
            faults.append(field_error(where, f"{high} is {schema[high]}, not {size}.", "out_of_range"))
    if isinstance(value, list) and "items" in schema:
        for index, item in enumerate(value):
            faults += _value_faults(f"{where}[{index}]", item, schema["items"])
    return faults


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool) and kind != "boolean":
        return False
    return isinstance(value, _TYPES[kind])
