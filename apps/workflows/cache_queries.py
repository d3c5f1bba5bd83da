"""What pages and the API say of tasks with a cache: hit or miss, why, and how often."""

from dataclasses import dataclass
from typing import Any

from django.db import connection

from .models import CacheUse, Run, Workflow

# The latest starts of a workflow whose hits are counted.
COUNTED = 10_000
NAMED = 8


@dataclass(frozen=True, slots=True)
class Rate:
    """How often a task was spared, of all of its latest starts."""

    task: str
    hits: int
    misses: int
    bypasses: int

    @property
    def percent(self) -> int:
        """Hits of those starts that asked."""
        asked = self.hits + self.misses
        return round(100 * self.hits / asked) if asked else 0


def latest_use(run: Run, name: str, index: int) -> CacheUse | None:
    """What the task or instance did with its cache when it started last."""
    rows = CacheUse.objects.filter(run=run, name=name, index=index).select_related("source__job")
    return rows.order_by("-pk").first()


def previous_use(use: CacheUse) -> CacheUse | None:
    """The start of the same task, or instance, of the workflow before this one."""
    same = CacheUse.objects.filter(workflow=use.workflow_id, name=use.name, index=use.index, pk__lt=use.pk)
    return same.order_by("-pk").first()


def changed(before: CacheUse, after: CacheUse) -> list[str]:
    """The parts of the key that differ, by their names."""
    names = before.parts.keys() | after.parts.keys()
    return sorted(name for name in names if before.parts.get(name) != after.parts.get(name))


def explained(use: CacheUse) -> str:
    """Why a start found nothing, or what it found, in a sentence."""
    if use.outcome == CacheUse.Outcome.HIT:
        source = use.source
        if source is None:
            return "It took an earlier result, whose run is gone."
        return f"It took the result of run {source.run_id}, of {_moment(source.stored_at)}."
    if use.outcome == CacheUse.Outcome.BYPASS:
        return "The run was started without the cache."
    before = previous_use(use)
    if before is None:
        return "It is the first start of this task with a cache."
    names = changed(before, use)
    if names:
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        return f"Changed since run {before.run_id}: {', '.join(names[:NAMED])}{more}."
    same = CacheUse.objects.filter(tenant=use.tenant_id, key=use.key, pk__lt=use.pk, stored_at__lte=use.at)
    stored = same.order_by("-stored_at").first()
    if stored is None:
        return f"Nothing has changed since run {before.run_id}, but there the task had not succeeded by then."
    if stored.expires_at is not None and stored.expires_at > use.at:
        return f"The result of run {stored.run_id} was older than this version allows."
    return f"The result of run {stored.run_id}, of {_moment(stored.stored_at)}, was too old, or made anew by a clear."


def hit_rates(workflow: Workflow) -> list[Rate]:
    """The tasks of a workflow that have a cache, by name, with how their latest starts went."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT name, count(*) FILTER (WHERE outcome = 'hit'), count(*) FILTER (WHERE outcome = 'miss'), "
            "count(*) FILTER (WHERE outcome = 'bypass') FROM ("
            " SELECT u.name, u.outcome FROM (SELECT id FROM workflows_run WHERE workflow_id = %s ORDER BY id DESC"
            "  LIMIT 100) r JOIN workflows_cacheuse u ON u.run_id = r.id LIMIT %s) latest GROUP BY name ORDER BY name",
            [workflow.pk, COUNTED],
        )
        return [Rate(*row) for row in cursor.fetchall()]


def _moment(at: Any) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC" if at is not None else "an unknown time"
