"""The loop of services: replicas are started, stopped and replaced as their jobs move."""

from django.utils import timezone

from apps.core import loops

from .advance import advance_services, next_due


@loops.loop("services")
def services() -> bool:
    """Look at the services whose replicas have moved or that are due, and come back when the next one is."""
    now = timezone.now()
    more = advance_services(now)
    due = next_due(now)
    if due is not None:
        loops.wake_at("services", due)
    return more
