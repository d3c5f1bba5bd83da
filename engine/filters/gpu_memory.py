"""Memory of one card."""

from engine.amounts import bytes_text
from engine.filters.registry import filter
from engine.fleet import Fleet, Mask, Request


@filter("gpu_memory", lambda request: f"GPU memory of {bytes_text(request.gpu_memory)}", static=True, place=80)
def _gpu_memory(fleet: Fleet, request: Request) -> Mask | None:
    return fleet.gpu_memory >= request.gpu_memory if request.gpu_count and request.gpu_memory else None
