"""What jobs ask for, read once for all that ask for the same."""

from apps.jobs.models import Job
from apps.jobs.requests import cache


def know(equivalences: set[str]) -> None:
    """Read the requests of these jobs that this process has not met yet."""
    missing = cache().missing(equivalences)
    if missing:
        rows = Job.objects.filter(equivalence__in=missing).order_by("equivalence", "pk").distinct("equivalence")
        for equivalence, spec in rows.values_list("equivalence", "spec"):
            cache().add(equivalence, spec)
