"""Arguments of a workflow task: a value, another task's result, or a parameter of the run."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import AfterValidator, field_validator, model_validator

from .errors import BadValue, describe
from .values import Identifier, Line, Strict

ARGUMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")


class ArgumentError(ValueError):
    """An argument cannot be resolved from the results and parameters at hand; the message says why."""


class Argument(Strict):
    """Exactly one of `{"value": …}`, `{"result": task, "key": …}` and `{"param": name}`."""

    value: Any = None
    result: Identifier | None = None
    key: Any = None
    param: Line | None = None

    @field_validator("key")
    @classmethod
    def _usable_key(cls, key: Any) -> Any:
        if key is not None and (isinstance(key, bool) or not isinstance(key, str | int)):
            raise BadValue("bad_key", f"A key is a name or a position, not {describe(key)}.")
        return key

    @model_validator(mode="before")
    @classmethod
    def _an_object(cls, given: Any) -> Any:
        if not isinstance(given, Mapping | cls):
            raise BadValue(
                "wrong_type", f'Give {{"value": …}}, {{"result": task}} or {{"param": name}}, not {describe(given)}.'
            )
        return given

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = self.model_fields_set & {"value", "result", "param"}
        if len(given) != 1:
            raise BadValue(
                "bad_argument", 'Give exactly one of {"value": …}, {"result": task} and {"param": name}.'
            )
        if "key" in self.model_fields_set and "result" not in given:
            raise BadValue("bad_argument", "key picks a part of a result; give it together with result only.")
        return self


def _argument_name(name: str) -> str:
    if not ARGUMENT_NAME.fullmatch(name):
        raise BadValue("bad_id", f'"{name[:60]}" is not the name of an argument: use letters, digits and _.')
    return name


ArgumentName = Annotated[str, AfterValidator(_argument_name)]
Arguments = dict[ArgumentName, Argument]


def resolve(argument: Mapping[str, Any], results: Mapping[str, Any], params: Mapping[str, Any]) -> Any:
    """The value of an argument of a definition. Raises ArgumentError.

    The result of a mapped task is the list of its results; a name as key then picks from each of them.
    """
    if "param" in argument:
        return params.get(argument["param"])
    if "result" not in argument:
        return argument.get("value")
    task = argument["result"]
    result = results.get(task)
    key = argument.get("key")
    if key is None:
        return result
    if isinstance(result, list) and isinstance(key, str):
        return [_pick(item, key, f"{task}[{index}]") for index, item in enumerate(result)]
    return _pick(result, key, task)


def _pick(result: Any, key: str | int, name: str) -> Any:
    if isinstance(result, dict) and str(key) in result:
        return result[str(key)]
    if isinstance(result, list) and isinstance(key, int) and -len(result) <= key < len(result):
        return result[key]
    if isinstance(result, dict):
        there = f"it has {', '.join(map(str, list(result)[:10])) or 'no keys'}"
    elif isinstance(result, list):
        there = f"it is a list of {len(result)}"
    else:
        there = f"it is {describe(result)}"
    raise ArgumentError(f"The result of {name} has no {key!r}: {there}.")
