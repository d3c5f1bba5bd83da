"""Which of the fitting nodes is best: small functions by name, each from 0 (worst) to 1 (best)."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from engine.fleet import WHOLE_CARD, Fleet, Float64, Request
from engine.fragmentation import STEP, Mix, growth

Nodes = npt.NDArray[np.intp]
Term = Callable[[Fleet, Request, Nodes], Float64 | None]

SCORES: dict[str, Term] = {}
# What the owner of a job prefers goes before what is good for the fleet, cards before cpu and memory: the smallest
# step of one that says anything outweighs all after it.
WEIGHTS = {"prefer": 1e7, "fragmentation": 1e5, "gpu_fit": 2.0, "pack": 1.0, "spread": 1.0}


def score(name: str) -> Callable[[Term], Term]:
    """Register a term under a name that WEIGHTS has. It returns None when it has nothing to say."""

    def register(term: Term) -> Term:
        if name in SCORES or name not in WEIGHTS:
            raise ValueError(f"the score {name!r} is there already or has no weight")
        SCORES[name] = term
        return term

    return register


def _left(fleet: Fleet, request: Request, nodes: Nodes) -> Float64:
    """The mean part of cpu and memory that stays free after placing the request."""
    cpu = (fleet.cpu[nodes] - request.cpu) * fleet.per_cpu[nodes]
    memory = (fleet.memory[nodes] - request.memory) * fleet.per_memory[nodes]
    return (cpu + memory) * 0.5


@score("prefer")
def _prefer(fleet: Fleet, request: Request, nodes: Nodes) -> Float64 | None:
    """The weighted part of the preferences that a node meets; a negative weight avoids."""
    total = sum(abs(weight) for _, _, weight in request.prefer)
    if not total:
        return None
    met = np.zeros(len(nodes))
    for label, values, weight in request.prefer:
        matches = fleet.label_mask(label, values)[nodes]
        met += (matches if weight >= 0 else ~matches) * (abs(weight) / total)
    return met


@score("fragmentation")
def _fragmentation(fleet: Fleet, request: Request, nodes: Nodes) -> Float64 | None:
    """How little more idle GPU is lost to the work that is expected (`engine.fragmentation`); 1 is least."""
    if request.strategy != "pack" or not isinstance(fleet.mix, Mix):
        return None
    more, cards = growth(fleet, fleet.mix, fleet.may_run, request, nodes)
    width = max(1, fleet.gpu_free.shape[1])
    free = fleet.gpu_free[nodes]
    # Among equals the card, or the node, with the least to spare: it counts for less than a step.
    if request.gpu_count == 1 and request.gpu_milli < WHOLE_CARD:
        spare = (free[np.arange(len(nodes)), cards] - request.gpu_milli) / WHOLE_CARD
    else:
        spare = np.maximum(free, 0).sum(axis=1) / (WHOLE_CARD * width)
    most = 2.0 * WHOLE_CARD * width
    return np.asarray(np.clip(0.5 - (more + 0.9 * STEP * spare) / most, 0.0, 1.0), dtype=np.float64)


@score("gpu_fit")
def _gpu_fit(fleet: Fleet, request: Request, nodes: Nodes) -> Float64 | None:
    """Keep whole cards whole: shares go where they leave least, whole cards where few are left over.

    Work without a GPU stays away from nodes with free cards.
    """
    width = fleet.gpu_free.shape[1]
    if request.strategy != "pack" or not width or isinstance(fleet.mix, Mix):
        return None  # The fragmentation score says it better.
    free = fleet.gpu_free[nodes]
    if not request.gpu_count:
        idle: Float64 = np.maximum(free, 0).sum(axis=1) / (WHOLE_CARD * width)
        return np.where(fleet.cards[nodes] == 0, 1.0, 0.5 - 0.5 * idle)
    if request.gpu_milli == WHOLE_CARD or request.gpu_count > 1:
        over = np.count_nonzero(free >= request.gpu_milli, axis=1) - request.gpu_count
        return np.asarray(1.0 - over / width, dtype=np.float64)
    fitting = np.where(free >= request.gpu_milli, free, WHOLE_CARD + request.gpu_milli)
    return np.asarray(1.0 - (fitting.min(axis=1) - request.gpu_milli) / WHOLE_CARD, dtype=np.float64)


@score("pack")
def _pack(fleet: Fleet, request: Request, nodes: Nodes) -> Float64 | None:
    """Best fit: the node that is left fullest.

    Of nodes with cards that the fragmentation score finds equal the first one is best: one node after the other.
    """
    if request.strategy != "pack":
        return None
    fullest = 1.0 - _left(fleet, request, nodes)
    return np.where(fleet.cards[nodes] > 0, 0.0, fullest) if isinstance(fleet.mix, Mix) else fullest


@score("spread")
def _spread(fleet: Fleet, request: Request, nodes: Nodes) -> Float64 | None:
    """The node with the most room and the fewest tasks."""
    if request.strategy != "spread":
        return None
    return 0.5 * _left(fleet, request, nodes) + 0.5 / (1.0 + fleet.tasks[nodes])


def total_score(fleet: Fleet, request: Request, nodes: Nodes) -> Float64:
    """The weighted sum of all terms for the nodes given."""
    total = np.zeros(len(nodes))
    for name, term in SCORES.items():
        value = term(fleet, request, nodes)
        if value is not None:
            total += WEIGHTS[name] * value
    return total


def terms(fleet: Fleet, request: Request, node: int) -> dict[str, float]:
    """Each term and the total of one node, for the record."""
    nodes = np.array([node], dtype=np.intp)
    found = {name: term(fleet, request, nodes) for name, term in SCORES.items()}
    record = {name: round(float(value[0]), 6) for name, value in found.items() if value is not None}
    record["total"] = round(sum(WEIGHTS[name] * value for name, value in record.items()), 6)
    return record
