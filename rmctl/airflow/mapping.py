"""What Airflow's mapped tasks are mapped over, as `map` of a definition."""

from collections.abc import Mapping
from typing import Any

from rmctl.spec.errors import BadValue
from rmctl.spec.labels import missing

from .checks import is_template
from .dag import Dag, identifier
from .findings import Unportable
from .schedule import holds_objects

# As Airflow's `max_map_length` is unless it is set.
MAX_MAP = 1024


def argument(name: str, value: Any) -> dict[str, Any]:
    """A value of the facts as an argument of a definition. Raises Unportable for what is not JSON."""
    if isinstance(value, Mapping) and "$xcom" in value:
        key = {} if value["key"] == "return_value" else {"key": value["key"]}
        return {"result": identifier(value["$xcom"]), **key}
    if holds_objects(value):
        raise Unportable(f"its argument {name} is not JSON, nor the result of one task")
    return {"value": value}


def listed(name: str, value: Any) -> dict[str, Any]:
    """A list to map over: literal, or the result of a task. Raises Unportable."""
    found = argument(name, value)
    if "value" in found and not isinstance(value, list):
        raise Unportable("it is mapped over something that is not a list")
    return found


def pairs(value: Any) -> Any:
    """The items of a literal object, as Airflow maps over it; anything else as it is."""
    if isinstance(value, Mapping) and not any(str(key).startswith("$") for key in value):
        return [[key, item] for key, item in value.items()]
    return value


def product(lists: Mapping[str, Any]) -> dict[str, Any]:
    """An instance for each combination; in Airflow too the last list varies fastest. Raises Unportable."""
    over = {name: listed(name, value) for name, value in lists.items()}
    return {"over": over, **({"order": list(over)} if len(over) > 1 else {}), "limit": MAX_MAP}


def plain(mapping: dict[str, Any]) -> dict[str, Any]:
    """A `map` in which nothing would be rendered. Raises Unportable."""
    if is_template([mapping.get("over"), mapping.get("kwargs")]):
        raise Unportable("it is mapped over templates")
    return mapping


def of_function(task: Mapping[str, Any]) -> dict[str, Any]:
    """The `map` of a function's task, whose instances differ in its arguments. Raises Unportable."""
    mapping = task["map"]
    value = mapping["value"]
    if mapping["kind"] == "objects":
        return _rows(value)
    if task["type"].startswith("_"):
        return plain(product(value))
    # Of a classic operator the arguments of the function are in one of its own.
    if set(value) != {"op_kwargs"}:
        raise Unportable(f"it is mapped over {', '.join(value)}")
    return _rows(value["op_kwargs"])


def _rows(value: Any) -> dict[str, Any]:
    rows = listed("kwargs", value)
    if "value" in rows and not all(isinstance(row, Mapping) for row in rows["value"]):
        raise Unportable("it is mapped over something else than objects of arguments")
    return plain({"kwargs": rows, "limit": MAX_MAP})


def labelled(dag: Dag, task: Mapping[str, Any], *, native: bool) -> dict[str, Any]:
    """The names of its instances, where they only look up what is known before an instance runs."""
    text = task["map"]["label"]
    try:
        faults = [message for message, _ in missing(text, (), dag.params)]
        if not native and "op_kwargs" in text:
            faults.append("the arguments of the operator are known only as it runs.")
    except BadValue as error:
        faults = [error.message]
    if faults:
        dag.note("lost", f"map_index_template {text}: {faults[0]} Instances go by their numbers", task["id"])
        return {}
    return {"label": text}


def given(mapping: Mapping[str, Any]) -> tuple[set[str], bool]:
    """The arguments that every instance gets from a `map`, and whether it may get others that nobody knows yet."""
    if "kwargs" not in mapping:
        return set(mapping["over"]), False
    rows = mapping["kwargs"].get("value")
    if rows is None:
        return set(), True
    return set.intersection(*(set(row) for row in rows)) if rows else set(), False


def taken(mapping: Mapping[str, Any]) -> set[str]:
    """The arguments that some instance gets from a `map`, as far as they are known."""
    if "kwargs" in mapping:
        return {name for row in mapping["kwargs"].get("value") or () for name in row}
    return set(mapping.get("over", ()))
