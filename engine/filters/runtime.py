"""Something that starts images."""

from engine.filters.registry import filter
from engine.fleet import Fleet, Mask, Request


@filter("runtime", lambda request: "a container runtime for its image", static=True, place=60)
def _runtime(fleet: Fleet, request: Request) -> Mask | None:
    return fleet.containers if request.image else None
