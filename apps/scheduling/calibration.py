"""Estimated starts that were told, and what came of them: new estimates are stretched by how wrong these were.

Once a minute each job that waits and has no estimate yet gets one that is kept (housekeep), so what is learnt does
not depend on who looks. The rule is engine.calibration.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from django.db import connection

from engine.calibration import WINDOW, Earlier, Stretch, stretch_of
from engine.forecast import Start

from .models import EstimatedStart

# Kept beyond what is learnt from, so that people can look back.
KEEP = 5 * WINDOW

EARLIER = (
    "SELECT extract(epoch FROM e.made_at)::float8, extract(epoch FROM e.p50)::float8, "
    "extract(epoch FROM e.p90)::float8, extract(epoch FROM e.told_p50)::float8, "
    "extract(epoch FROM e.told_p90)::float8, extract(epoch FROM coalesce(a.at, j.ended_at, %s))::float8, "
    "a.at IS NOT NULL FROM (SELECT * FROM scheduling_estimatedstart ORDER BY made_at DESC, job_id DESC LIMIT %s) e "
    "JOIN jobs_job j ON j.id = e.job_id CROSS JOIN LATERAL ("
    " SELECT min(created_at) AS at FROM jobs_attempt WHERE job_id = e.job_id AND created_at >= e.made_at) a"
)


@dataclass(frozen=True, slots=True)
class Learnt:
    """The stretch for new estimates, and how many of those that were told have proved right.

    `by_p50` and `by_p90` are parts of the estimates that can be judged by now; None when there is none yet.
    """

    stretch: Stretch
    judged: int = 0
    by_p50: float | None = None
    by_p90: float | None = None

    @property
    def words(self) -> str:
        """`of 143 earlier estimates 51 % had started by the first time, 91 % by the second`, or nothing."""
        if self.by_p50 is None or self.by_p90 is None:
            return ""
        parts = f"{self.by_p50:.0%} had started by the first time and {self.by_p90:.0%} by the second"
        return f"of {self.judged} earlier estimates {parts}".replace("%", " %")


def learnt(now: datetime) -> Learnt:
    """What the latest estimates teach."""
    with connection.cursor() as cursor:
        cursor.execute(EARLIER, [now, WINDOW])
        rows = cursor.fetchall()
    stretch = stretch_of([Earlier(made, p50, p90, seen, began) for made, p50, p90, _, _, seen, began in rows])
    # Whether a start was in time is known once it has come, or the time has passed.
    judged = [(seen, told50, told90) for _, _, _, told50, told90, seen, began in rows if began or seen > told90]
    if not judged:
        return Learnt(stretch)
    by_p50, by_p90 = (sum(row[0] <= row[place] for row in judged) / len(judged) for place in (1, 2))
    return Learnt(stretch, len(judged), by_p50, by_p90)


def keep(made: Mapping[int, Start], told: Mapping[int, Start], now: datetime) -> int:
    """Keep the first estimate of each of these jobs, as it was made and as it was told; returns how many are new."""
    known = set(EstimatedStart.objects.filter(job__in=list(made)).values_list("job_id", flat=True))
    rows = [
        EstimatedStart(
            job_id=job,
            made_at=now,
            p50=_time(start.p50),
            p90=_time(start.p90),
            told_p50=_time(told[job].p50),
            told_p90=_time(told[job].p90),
        )
        for job, start in sorted(made.items())
        if job not in known
    ]
    EstimatedStart.objects.bulk_create(rows, ignore_conflicts=True)
    oldest = EstimatedStart.objects.order_by("-made_at", "-job_id").values_list("made_at", flat=True)[KEEP : KEEP + 1]
    for made_at in oldest:
        EstimatedStart.objects.filter(made_at__lt=made_at).delete()
    return len(rows)


def _time(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)
