"""Scores of all nodes for one kind of request, kept while the fleet changes node by node."""

import numpy as np

from engine.fleet import Fleet, Float64, Mask, Request
from engine.scores import total_score


class Ranking:
    """The score of every node that fitted when it was last looked at; only nodes that changed are scored again.

    Equal requests share one ranking, so a thousand equal jobs cost one full scoring.
    """

    __slots__ = ("_company", "_fleet", "_known", "_request", "_scores", "_seen")

    def __init__(self, fleet: Fleet, request: Request) -> None:
        self._fleet, self._request = fleet, request
        self._scores: Float64 = np.zeros(len(fleet))
        self._known: Mask = np.zeros(len(fleet), dtype=np.bool_)
        self._seen = len(fleet.changes)
        # Company counts by domain, so one member changes the scores of many nodes.
        self._company = _company(fleet, request)

    def fork(self, fleet: Fleet) -> "Ranking":
        """The same for a fork of the fleet, with scores of its own."""
        twin = Ranking.__new__(Ranking)
        twin._fleet, twin._request, twin._seen = fleet, self._request, self._seen
        twin._scores, twin._known, twin._company = self._scores.copy(), self._known.copy(), self._company
        return twin

    def belongs_to(self, fleet: Fleet) -> bool:
        """Whether it follows this very fleet."""
        return self._fleet is fleet

    def best(self, fitting: Mask) -> int:
        """The best of the nodes that fit now (at least one), the first among equals."""
        changed = self._fleet.changes[self._seen :]
        if changed:
            self._known[changed] = False
            self._seen = len(self._fleet.changes)
        company = _company(self._fleet, self._request)
        if company != self._company:
            self._company = company
            self._known[:] = False
        missing = np.flatnonzero(fitting & ~self._known)
        if len(missing):
            self._scores[missing] = total_score(self._fleet, self._request, missing)
            self._known[missing] = True
        return int(np.argmax(np.where(fitting, self._scores, -np.inf)))


def _company(fleet: Fleet, request: Request) -> int | None:
    """The state of the company, where the request looks at it."""
    return None if fleet.company is None or request.bonds is None else fleet.company.version


def ranking(fleet: Fleet, request: Request) -> Ranking:
    """The fleet's ranking for requests like this one."""
    kept = fleet.rankings.get(request)
    if not isinstance(kept, Ranking):
        kept = Ranking(fleet, request)
    elif not kept.belongs_to(fleet):
        kept = kept.fork(fleet)
    fleet.keep_ranking(request, kept)
    return kept
