"""Running jobs that have to be near."""

from engine.filters.registry import filter
from engine.fleet import Fleet, Mask, Request


def _words(request: Request) -> str:
    return " and ".join(map(str, request.bonds.near_needs)) if request.bonds is not None else ""


@filter("near", _words, place=203)
def _near(fleet: Fleet, request: Request) -> Mask | None:
    if fleet.company is None or request.bonds is None:
        return None
    return fleet.company.near(request.bonds)
