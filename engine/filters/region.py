"""Where a node stands."""

from engine.filters.registry import filter
from engine.fleet import Fleet, Mask, Request, coded_mask


@filter("region", lambda request: f"a region among {', '.join(sorted(request.regions))}", static=True, place=40)
def _region(fleet: Fleet, request: Request) -> Mask | None:
    return coded_mask(fleet.regions, list(request.regions)) if request.regions else None
