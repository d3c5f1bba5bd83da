"""Whose law the data lies under."""

from engine.filters.registry import filter
from engine.fleet import Fleet, Mask, Request


def _words(request: Request) -> str:
    return f"a jurisdiction among {', '.join(sorted(request.jurisdictions))}"


@filter("jurisdiction", _words, static=True, place=41)
def _jurisdiction(fleet: Fleet, request: Request) -> Mask | None:
    return fleet.sites.under(request.jurisdictions) if request.jurisdictions else None
