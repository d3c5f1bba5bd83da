"""Scores by name, and their weighted sum."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.fleet import Fleet, Float64, Request

Nodes = npt.NDArray[np.intp]
Term = Callable[[Fleet, Request, Nodes], Float64 | None]

# What all goals of a job together weigh: as much as all its preferences.
GOALS = 1e7


@dataclass(frozen=True, slots=True)
class Score:
    """A named term and its weight; a term without one is a goal, which weighs what a job says."""

    name: str
    term: Term
    weight: float | None
    place: int


SCORES: dict[str, Score] = {}


def score(name: str, *, place: int, weight: float | None = None) -> Callable[[Term], Term]:
    """Register a term under a new name; `place` orders the record. It returns None when it has nothing to say.

    What it says of a node may change only with that node, as it is not asked again before.
    """

    def register(term: Term) -> Term:
        if name in SCORES:
            raise ValueError(f"there is a score {name!r} already")
        SCORES[name] = Score(name, term, weight, place)
        ordered = sorted(SCORES.values(), key=lambda item: (item.place, item.name))
        SCORES.clear()
        SCORES.update((item.name, item) for item in ordered)
        return term

    return register


def weight_of(item: Score, request: Request) -> float:
    """What the term counts for this request; 0 for a goal that it does not have."""
    if item.weight is not None:
        return item.weight
    if not request.goals:
        return 0.0
    wanted = dict(request.goals)
    return GOALS * wanted.get(item.name, 0.0) / sum(wanted.values())


def left_free(fleet: Fleet, request: Request, nodes: Nodes) -> Float64:
    """The mean part of cpu and memory that stays free after placing the request."""
    cpu = (fleet.cpu[nodes] - request.cpu) * fleet.per_cpu[nodes]
    memory = (fleet.memory[nodes] - request.memory) * fleet.per_memory[nodes]
    return (cpu + memory) * 0.5


def total_score(fleet: Fleet, request: Request, nodes: Nodes) -> Float64:
    """The weighted sum of all terms for the nodes given."""
    total = np.zeros(len(nodes))
    for item in SCORES.values():
        weight = weight_of(item, request)
        value = item.term(fleet, request, nodes) if weight else None
        if value is not None:
            total += weight * value
    return total


def terms(fleet: Fleet, request: Request, node: int) -> dict[str, float]:
    """Each term and the total of one node, for the record."""
    nodes = np.array([node], dtype=np.intp)
    record, total = {}, 0.0
    for name, item in SCORES.items():
        weight = weight_of(item, request)
        value = item.term(fleet, request, nodes) if weight else None
        if value is not None:
            record[name] = round(float(value[0]), 6)
            total += weight * record[name]
    record["total"] = round(total, 6)
    return record
