"""The starts that are kept for jobs that wait, stored as the latest cycle reserved them."""

from collections.abc import Mapping
from datetime import UTC, datetime

from django.db import transaction

from .models import Reservation

# A start that moves by less than this, or than this part of what is left until then, is left as it is stored.
MOVES_SECONDS = 10.0
MOVES_PART = 0.05

# Whether this process knows that none is stored, so that a cycle in which nobody waits asks for nothing.
_none = False


def reserve(starts: Mapping[int, float], now: datetime) -> set[int]:
    """Store the reserved starts (job → epoch seconds) in place of those before.

    A start so near that it is over before anybody reads of it is not stored; short tasks would have a new one in each
    cycle. Returns the jobs whose start is new, has moved so far that people should know, or is reserved no more.
    """
    global _none
    far = {job for job, at in starts.items() if at - now.timestamp() > MOVES_SECONDS}
    if _none and not far:
        return set()
    with transaction.atomic():
        stored = {job: at.timestamp() for job, at in Reservation.objects.values_list("job_id", "starts_at")}
        starts = {job: at for job, at in starts.items() if job in stored or job in far}
        moved = {job for job, at in starts.items() if job not in stored or _moves(stored[job], at, now.timestamp())}
        gone = stored.keys() - starts.keys()
        if moved:
            Reservation.objects.bulk_create(
                (Reservation(job_id=job, starts_at=datetime.fromtimestamp(starts[job], UTC)) for job in sorted(moved)),
                update_conflicts=True,
                unique_fields=["job"],
                update_fields=["starts_at"],
            )
        if gone:
            Reservation.objects.filter(job__in=gone).delete()
    _none = not starts
    return moved | gone


def _moves(before: float, after: float, now: float) -> bool:
    return abs(after - before) > max(MOVES_SECONDS, MOVES_PART * (before - now))
