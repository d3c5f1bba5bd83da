"""The loop of services: replicas are started, stopped and replaced as their jobs move."""

from django.utils import timezone

import apps.scheduling.tasks  # noqa: F401 - registers the loop that follows this one
from apps.core import loops

from .advance import advance_services, next_due


@loops.loop("services")
def services() -> bool:
    """Look at the services whose replicas have moved or that are due, and come back when the next one is."""
    now = timezone.now()
    advanced = advance_services(now)
    if advanced.ended:
        # The ends of jobs that a loop has made do not wake the scheduler; this also saves the new ones a trip.
        loops.follow("schedule")
    due = next_due(now)
    if due is not None:
        loops.wake_at("services", due)
    return advanced.more
