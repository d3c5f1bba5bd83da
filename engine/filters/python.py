"""The Python that the node starts scripts with."""

from engine.constraints import version
from engine.filters.registry import filter
from engine.fleet import Fleet, Mask, Request


@filter("python", lambda request: f"Python {request.hardware.python} or newer", static=True, place=63)
def _python(fleet: Fleet, request: Request) -> Mask | None:
    least = version(request.hardware.python)
    return fleet.fact_mask(lambda facts: version(facts.python) >= least) if least else None
