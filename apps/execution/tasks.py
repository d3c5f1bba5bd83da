"""The recovery loop: silence is noticed, leases end, drained nodes are emptied."""

from django.utils import timezone

from apps.core.loops import loop

from .backends import BACKENDS, FakeBackend
from .commands import expire
from .commands.intake import AT_ONCE, drain_nodes


@loop("recover")
def recover() -> bool:
    """One pass; asks for another when it found so much that it stopped at a limit."""
    now = timezone.now()
    _, ended = expire(now=now)
    drain_nodes()
    for backend in BACKENDS.values():
        if isinstance(backend, FakeBackend):
            backend.pump(now)
    return ended >= AT_ONCE
