"""The driver of the cards."""

from engine.constraints import version
from engine.filters.registry import filter
from engine.fleet import Fleet, Mask, Request


@filter(
    "gpu_driver", lambda request: f"a GPU driver {request.hardware.gpu_driver} or newer", static=True, place=82
)
def _gpu_driver(fleet: Fleet, request: Request) -> Mask | None:
    least = version(request.hardware.gpu_driver)
    return fleet.fact_mask(lambda facts: version(facts.gpu_driver) >= least) if least else None
