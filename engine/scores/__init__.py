"""Which of the fitting nodes is best: a file per score, each a small function over arrays, found by being here.

A score lies between 0 (worst) and 1 (best). The weights are steps: what the owner of a job prefers goes before
what is good for the fleet, cards before cpu and memory, and the smallest step of one that says anything outweighs
all after it.
"""

from engine.filters.registry import load
from engine.scores.registry import GOALS, SCORES, score, terms, total_score, weight_of

__all__ = ["GOALS", "SCORES", "score", "terms", "total_score", "weight_of"]

load(__name__, __path__)
