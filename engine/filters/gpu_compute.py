"""The compute capability of the cards."""

from engine.constraints import version
from engine.filters.registry import filter
from engine.fleet import Fleet, Mask, Request


@filter(
    "gpu_compute",
    lambda request: f"a compute capability of {request.hardware.gpu_compute} or more",
    static=True,
    place=81,
)
def _gpu_compute(fleet: Fleet, request: Request) -> Mask | None:
    least = version(request.hardware.gpu_compute)
    return fleet.fact_mask(lambda facts: version(facts.gpu_compute) >= least) if least else None
