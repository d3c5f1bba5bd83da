"""Field rules that the fleet's commands share; each raises Invalid naming the field."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from apps.core.errors import Invalid
from apps.core.serializers import unknown_field
from rmctl.names import JURISDICTION, LABEL_KEY, LABEL_VALUE

NODE_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,198}[A-Za-z0-9])?")
MAX_LABELS = 64
MAX_TAINTS = 32
MAX_VALUES = 100
MAX_JURISDICTIONS = 50
TAINT_EFFECTS = ("NoSchedule", "NoExecute")


def checked_whole(field: str, value: Any, low: int, high: int) -> int:
    """A whole number from `low` to `high`."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise Invalid.field(field, f"a whole number from {low} to {high}.")
    return value


def checked_names(field: str, given: Mapping[str, Any], names: Sequence[str]) -> None:
    """An object with no other names than these."""
    for name in given:
        if name not in names:
            raise Invalid.field(f"{field}.{name}", unknown_field(str(name), names)["message"], "unknown_field")


def checked_label(field: str, key: Any, value: Any) -> None:
    """One label: key and value of at most 63 characters."""
    if not isinstance(key, str) or not LABEL_KEY.fullmatch(key):
        raise Invalid.field(field, f"{key!r} is not a label key: 1 to 63 letters, digits and inner _ . / -")
    if not isinstance(value, str) or not LABEL_VALUE.fullmatch(value):
        message = f"{value!r} is not a label value: up to 63 letters, digits and inner _ . -"
        raise Invalid.field(f"{field}.{key}", message)


def checked_labels(labels: Any) -> dict[str, str]:
    """Labels of a node."""
    if not isinstance(labels, Mapping) or len(labels) > MAX_LABELS:
        raise Invalid.field("labels", f"an object of at most {MAX_LABELS} labels.")
    for key, value in labels.items():
        checked_label("labels", key, value)
    return dict(labels)


def checked_taints(taints: Any) -> list[dict[str, str]]:
    """Taints of a node: `{"key", "value", "effect"}`, each (key, effect) once."""
    if not isinstance(taints, Sequence) or isinstance(taints, str) or len(taints) > MAX_TAINTS:
        raise Invalid.field("taints", f"a list of at most {MAX_TAINTS} taints.")
    found: dict[tuple[str, str], dict[str, str]] = {}
    for position, taint in enumerate(taints):
        field = f"taints[{position}]"
        if not isinstance(taint, Mapping):
            raise Invalid.field(field, "an object with key, value and effect.")
        checked_names(field, taint, ("key", "value", "effect"))
        key, value = taint.get("key"), taint.get("value", "")
        checked_label(field, key, value)
        effect = taint.get("effect", "NoSchedule")
        if effect not in TAINT_EFFECTS:
            message = f"{effect!r} is not an effect: {', '.join(TAINT_EFFECTS)}."
            raise Invalid.field(f"{field}.effect", message)
        if (key, effect) in found:
            raise Invalid.field(field, f"{key} with {effect} is there twice.")
        found[str(key), effect] = {"key": str(key), "value": value, "effect": effect}
    return list(found.values())


def checked_node_name(name: str) -> str:
    """The name of a node, like a host name."""
    if not NODE_NAME.fullmatch(name):
        raise Invalid.field("name", f"{name!r} is not a node name: 1 to 200 letters, digits and inner . _ -")
    return name


def checked_query(field: str, query: Any, *, flavor: bool = False) -> dict[str, Any]:
    """The query of a pool, or with `flavor` the narrower match of a flavor."""
    names = ("labels", "gpu_models") if flavor else (
        "clusters", "domains", "labels", "regions", "gpu_models", "trust"
    )  # fmt: skip
    if not isinstance(query, Mapping):
        raise Invalid.field(field, f"an object with any of {', '.join(names)}.")
    checked_names(field, query, names)
    for key, value in query.items():
        here = f"{field}.{key}"
        if key == "trust":
            checked_whole(here, value, 0, 100)
        elif key == "labels":
            _label_query(here, value)
        else:
            _texts(here, value)
    return dict(query)


def _label_query(field: str, value: Any) -> None:
    if not isinstance(value, Mapping) or len(value) > MAX_LABELS:
        raise Invalid.field(field, "an object: label key → list of accepted values.")
    for key, values in value.items():
        for item in _texts(f"{field}.{key}", values):
            checked_label(field, key, item)


def _texts(field: str, value: Any) -> list[str]:
    fits = isinstance(value, list) and 1 <= len(value) <= MAX_VALUES
    if not fits or not all(isinstance(item, str) and 0 < len(item) <= 100 for item in value):
        raise Invalid.field(field, f"a list of 1 to {MAX_VALUES} texts of at most 100 characters.")
    return list(value)


def checked_jurisdictions(names: Any) -> list[str]:
    """Jurisdictions such as EU, DE or US-CA, each once."""
    if not isinstance(names, Sequence) or isinstance(names, str) or len(names) > MAX_JURISDICTIONS:
        raise Invalid.field("jurisdictions", f"a list of at most {MAX_JURISDICTIONS} jurisdictions.")
    for name in names:
        if not isinstance(name, str) or not JURISDICTION.fullmatch(name):
            raise Invalid.field("jurisdictions", f"{name!r} is not a jurisdiction: capital letters as in EU or US-CA.")
    return sorted(set(names))
