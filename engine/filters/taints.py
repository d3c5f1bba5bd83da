"""Nodes repel work by taints; requests tolerate some."""

from collections.abc import Mapping

import numpy as np

from engine.filters.registry import filter
from engine.fleet import Fleet, Mask, Request


def _tolerates(toleration: Mapping[str, str], taint: Mapping[str, str]) -> bool:
    """An absent key, value or effect of a toleration stands for any."""
    if toleration.get("effect") and toleration["effect"] != taint.get("effect"):
        return False
    if toleration.get("key") and toleration["key"] != taint.get("key"):
        return False
    value = toleration.get("value")
    return toleration.get("operator") == "Exists" or not value or value == taint.get("value", "")


def tolerated(request: Request, taints: list[dict[str, str]]) -> bool:
    """Whether every taint that keeps work away is tolerated."""
    return all(
        taint.get("effect") not in ("NoSchedule", "NoExecute")
        or any(_tolerates(toleration, taint) for toleration in request.tolerations)
        for taint in taints
    )


@filter("taints", lambda request: "having no taint that is not tolerated", static=True, place=20)
def _taints(fleet: Fleet, request: Request) -> Mask | None:
    codes, distinct = fleet.taint_sets
    table = np.array([tolerated(request, taints) for taints in distinct], dtype=np.bool_)
    return None if table.all() else table[codes]
