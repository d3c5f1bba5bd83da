"""Running jobs that it stays away from, or that stay away from it."""

from engine.filters.registry import filter
from engine.fleet import Fleet, Mask, Request


def _words(request: Request) -> str:
    others = [f"no {one}" for one in request.bonds.away_needs] if request.bonds is not None else []
    return " and ".join([*others, "nobody who stays away from it"])


@filter("away", _words, place=204)
def _away(fleet: Fleet, request: Request) -> Mask | None:
    if fleet.company is None or request.bonds is None:
        return None
    return fleet.company.away(request.bonds)
