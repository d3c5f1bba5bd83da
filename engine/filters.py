"""Which nodes can take a member: small functions by name, asked in the order in which they stand here.

Static filters look at what does not change while a cycle runs, capacity filters at what is free. A filter
returns None when the request asks nothing of it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from engine.amounts import amount_text, bytes_text
from engine.fleet import Fleet, Int16, Mask, Request, coded_mask

Check = Callable[[Fleet, Request], Mask | None]
Words = Callable[[Request], str]


@dataclass(frozen=True, slots=True)
class Filter:
    """A named test; `words` says for people what it asks for."""

    name: str
    check: Check
    static: bool
    words: Words


FILTERS: dict[str, Filter] = {}


def filter(name: str, words: Words, *, static: bool = False) -> Callable[[Check], Check]:
    """Register a filter under a new name; its place is behind those registered before."""

    def register(check: Check) -> Check:
        if name in FILTERS:
            raise ValueError(f"there is a filter {name!r} already")
        FILTERS[name] = Filter(name, check, static, words)
        return check

    return register


def static_filters() -> list[Filter]:
    """The filters on what does not change, in order."""
    return [item for item in FILTERS.values() if item.static]


def capacity_filters() -> list[Filter]:
    """The filters on what is free, in order."""
    return [item for item in FILTERS.values() if not item.static]


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


@filter("ready", lambda request: "being ready", static=True)
def _ready(fleet: Fleet, request: Request) -> Mask | None:
    return fleet.ready


@filter("taints", lambda request: "having no taint that is not tolerated", static=True)
def _taints(fleet: Fleet, request: Request) -> Mask | None:
    codes, distinct = fleet.taint_sets
    table = np.array([tolerated(request, taints) for taints in distinct], dtype=np.bool_)
    return None if table.all() else table[codes]


@filter("trust", lambda request: f"a trust of at least {request.trust}", static=True)
def _trust(fleet: Fleet, request: Request) -> Mask | None:
    return fleet.trust >= request.trust if request.trust else None


@filter("region", lambda request: f"a region among {', '.join(sorted(request.regions))}", static=True)
def _region(fleet: Fleet, request: Request) -> Mask | None:
    return coded_mask(fleet.regions, list(request.regions)) if request.regions else None


def _label_words(request: Request) -> str:
    return "the labels " + " and ".join(
        f"{label}={'|'.join(values)}" for label, values in sorted(request.labels.items())
    )


@filter("labels", _label_words, static=True)
def _labels(fleet: Fleet, request: Request) -> Mask | None:
    if not request.labels:
        return None
    mask = np.ones(len(fleet), dtype=np.bool_)
    for label, values in request.labels.items():
        mask &= fleet.label_mask(label, values)
    return mask


@filter("runtime", lambda request: "a container runtime for its image", static=True)
def _runtime(fleet: Fleet, request: Request) -> Mask | None:
    return fleet.containers if request.image else None


def _model_words(request: Request) -> str:
    return f"a GPU of model {' or '.join(sorted(request.gpu_models))}" if request.gpu_models else "having a GPU"


@filter("gpu_model", _model_words, static=True)
def _gpu_model(fleet: Fleet, request: Request) -> Mask | None:
    if not request.gpu_count:
        return None
    mask = fleet.cards > 0
    if request.gpu_models:
        wanted = [code for code, model in enumerate(fleet.models) if model in request.gpu_models]
        mask = mask & np.isin(fleet.gpu_model, wanted)
    return mask


@filter("gpu_memory", lambda request: f"GPU memory of {bytes_text(request.gpu_memory)}", static=True)
def _gpu_memory(fleet: Fleet, request: Request) -> Mask | None:
    return fleet.gpu_memory >= request.gpu_memory if request.gpu_count and request.gpu_memory else None


@filter("cpu", lambda request: amount_text("cpu", request.cpu))
def _cpu(fleet: Fleet, request: Request) -> Mask | None:
    return fleet.cpu >= request.cpu


@filter("memory", lambda request: amount_text("memory", request.memory))
def _memory(fleet: Fleet, request: Request) -> Mask | None:
    return fleet.memory >= request.memory


@filter("storage", lambda request: amount_text("storage", request.storage))
def _storage(fleet: Fleet, request: Request) -> Mask | None:
    return fleet.storage >= request.storage if request.storage else None


def _gpu_words(request: Request) -> str:
    if request.gpu_milli == 1000:
        return amount_text("gpu", request.gpu_count * 1000)
    share = f"{request.gpu_milli / 1000:g} of a GPU"
    return share if request.gpu_count == 1 else f"{share} on each of {request.gpu_count} cards"


@filter("gpu", _gpu_words)
def _gpu(fleet: Fleet, request: Request) -> Mask | None:
    if not request.gpu_count:
        return None
    return cards_with(fleet, request.gpu_milli) >= request.gpu_count


def cards_with(fleet: Fleet, milli: int) -> Int16:
    """For each node, on how many cards so many thousandths are free."""
    count: Int16 = (fleet.gpu_free >= milli).sum(axis=1, dtype=np.int16)
    return count
