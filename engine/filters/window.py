"""When nodes are lent: the time limit has to end before the window does."""

from engine.amounts import duration_text
from engine.filters.registry import filter
from engine.fleet import Fleet, Mask, Request


def _words(request: Request) -> str:
    return f"being lent for {duration_text(request.limit)} at a time, and so much of it at once"


@filter("lending", _words, static=True, place=95)
def _lending(fleet: Fleet, request: Request) -> Mask | None:
    if fleet.terms is None or request.consumer is None:
        return None
    return fleet.terms.possible(request.consumer, request.limit, request.held)


@filter("window", lambda request: f"being lent from now on for {duration_text(request.limit)}", place=201)
def _window(fleet: Fleet, request: Request) -> Mask | None:
    if fleet.terms is None or request.consumer is None or fleet.terms.now is None:
        return None
    return fleet.terms.open(request.consumer, request.limit)
