"""What tasks usually take: for versions whose tasks weigh by the critical path, and for whoever looks at a run.

For weights computed now and then by the timetable loop, never by a pass that advances runs: that one reads the stored
times at most once a minute for each version.
"""

import time
from datetime import datetime, timedelta

from django.db import connection
from django.db.models import F, Q

from .limits import BY_HISTORY, weight_rules
from .models import PathHistory, WorkflowVersion
from .plans import Plan

# Latest runs that are looked at; the median over them is what counts.
RUNS_SEEN = 20
RENEW = timedelta(minutes=5)
KEPT_SECONDS = 60.0
KEPT_MAX = 1000
# Rows of tasks that a look for a page reads at most.
ROWS_SEEN = 20_000
# Between two looks for what is to be renewed, and how many versions one look renews.
LOOK_SECONDS = 30.0
VERSIONS_MAX = 20

_MEDIANS = """
WITH latest AS (
  SELECT id FROM workflows_run WHERE workflow_id = %s AND ended_at IS NOT NULL ORDER BY id DESC LIMIT %s
)
SELECT t.name, percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM t.ended_at - t.started_at))
FROM latest JOIN workflows_task t ON t.run_id = latest.id
WHERE t.index = -1 AND t.state = 'succeeded' AND t.started_at IS NOT NULL AND t.ended_at >= t.started_at
GROUP BY t.name
"""

_kept: dict[int, tuple[float, dict[str, float]]] = {}
_usual: dict[int, tuple[float, dict[str, float]]] = {}
_looked_at = float("-inf")


def usual_seconds(workflow_id: int, tasks: int) -> dict[str, float]:
    """What the tasks of a workflow of so many usually take, for pages: read at most once a minute."""
    at, found = _usual.get(workflow_id, (float("-inf"), {}))
    if time.monotonic() - at > KEPT_SECONDS:
        found = _medians(workflow_id, max(1, min(RUNS_SEEN, ROWS_SEEN // max(1, tasks))))
        if len(_usual) > KEPT_MAX:
            forget()
        _usual[workflow_id] = time.monotonic(), found
    return found


def _medians(workflow_id: int, runs: int) -> dict[str, float]:
    with connection.cursor() as cursor:
        cursor.execute(_MEDIANS, [workflow_id, runs])
        return dict(cursor.fetchall())


def weights_of(version_id: int, plan: Plan) -> dict[str, float]:
    """The weights of a version's tasks."""
    if not plan.weighing.by_history:
        return plan.weighing.fixed
    at, found = _kept.get(version_id, (float("-inf"), {}))
    if time.monotonic() - at > KEPT_SECONDS:
        seconds = PathHistory.objects.filter(pk=version_id).values_list("seconds", flat=True).first()
        found = plan.weighing.weights(seconds or {})
        if len(_kept) > KEPT_MAX:
            forget()
        _kept[version_id] = time.monotonic(), found
    return found


def forget() -> None:
    """Read the stored times again with the next question."""
    _kept.clear()
    _usual.clear()


def watch(version: WorkflowVersion) -> None:
    """Let the history of a version that was pushed be computed, if any of its tasks weighs by it."""
    if BY_HISTORY in weight_rules(version.definition).values():
        PathHistory.objects.get_or_create(version=version)


def renew(now: datetime, *, at_once: bool = False) -> None:
    """Compute anew what is older than some minutes, of the versions that workflows have now; looks now and then only,
    unless `at_once`."""
    global _looked_at
    if not at_once and time.monotonic() - _looked_at < LOOK_SECONDS:
        return
    _looked_at = time.monotonic()
    old = PathHistory.objects.filter(
        Q(at__isnull=True) | Q(at__lt=now - RENEW), pk=F("version__workflow__current")
    ).select_related("version")
    for history in old.order_by(F("at").asc(nulls_first=True))[:VERSIONS_MAX]:
        history.seconds = _medians(history.version.workflow_id, RUNS_SEEN)
        history.at = now
        history.save(update_fields=["seconds", "at"])
