"""The packages that the node's Python can import."""

from engine.filters.registry import filter
from engine.fleet import Fleet, Mask, Request


@filter(
    "packages",
    lambda request: f"the Python packages {', '.join(sorted(request.hardware.packages))}",
    static=True,
    place=64,
)
def _packages(fleet: Fleet, request: Request) -> Mask | None:
    wanted = request.hardware.packages
    return fleet.fact_mask(lambda facts: wanted <= facts.packages) if wanted else None
