"""What was observed of runs whose tasks people have cleared or marked, once more under the lock of their rows.

Between the observation and the lock a task may have been cleared: what its former job did must not count. And a task
that waits for its former job to stop waits anew when that has ended. Runs that nobody has touched pay nothing.
"""

from collections.abc import Iterable, Mapping

from django.db import connection

from . import claims
from .models import Run
from .observe import Work
from .states import RunState, TaskState

# How a task is that has been cleared.
CLEARED = (
    "state = 'waiting', job_id = NULL, restart = false, succeeded = 0, failed = 0, skipped = 0, detail = '', "
    "result = NULL, queued_at = NULL, started_at = NULL, ended_at = NULL"
)


def fenced(runs: Iterable[Run], work: Mapping[int, Work]) -> Mapping[int, Work]:
    """The work of locked runs without what no longer holds; restarts tasks whose former jobs have stopped."""
    edited = {run.pk: run for run in runs if run.edits}
    if not edited:
        return work
    seen = [item.row.pk for pk in edited for item in work[pk].news]
    seen += [row.pk for pk in edited for row, _ in work[pk].due]
    present = _present(seen)
    result = dict(work)
    stopped: dict[int, list[int]] = {}
    for pk, run in edited.items():
        held = [item for item in work[pk].news if (item.row.state, item.row.job) == present.get(item.row.pk, ())[:2]]
        restarts = [item.row.pk for item in held if present[item.row.pk][2] and item.job_state != "running"]
        if restarts:
            stopped[pk] = restarts
        result[pk] = Work(
            news=[item for item in held if not present[item.row.pk][2]],
            due=[item for item in work[pk].due if present.get(item[0].pk, ("",))[0] == TaskState.DEFERRED],
            granted=work[pk].granted,
            start=work[pk].start,
            review=bool(restarts) or work[pk].review or (work[pk].start and run.state == RunState.QUEUED),
        )
    if stopped:
        _restart(stopped)
    return result


def _present(tasks: list[int]) -> dict[int, tuple[str, int | None, bool]]:
    if not tasks:
        return {}
    with connection.cursor() as cursor:
        cursor.execute("SELECT id, state, job_id, restart FROM workflows_task WHERE id = ANY(%s)", [tasks])
        return {pk: (state, job, restart) for pk, state, job, restart in cursor.fetchall()}


def _restart(stopped: Mapping[int, list[int]]) -> None:
    """Let the tasks wait anew. The instances of a mapped task that is cleared as a whole go; it waits once the last
    of them has."""
    tasks = [pk for pks in stopped.values() for pk in pks]
    claims.release(tasks=tasks)
    with connection.cursor() as cursor:
        cursor.execute(
            "DELETE FROM workflows_task t USING workflows_task g WHERE t.id = ANY(%s) AND t.index >= 0 "
            "AND g.run_id = t.run_id AND g.name = t.name AND g.index = -1 "
            "AND g.restart AND g.state IN ('queued', 'running')",
            [tasks],
        )
        cursor.execute(f"UPDATE workflows_task SET {CLEARED} WHERE id = ANY(%s)", [tasks])
        cursor.execute(
            f"UPDATE workflows_task g SET {CLEARED}, width = NULL "
            "WHERE g.run_id = ANY(%s) AND g.index = -1 AND g.restart AND g.state IN ('queued', 'running') "
            "AND g.width IS NOT NULL AND NOT EXISTS (SELECT 1 FROM workflows_task t "
            "WHERE t.run_id = g.run_id AND t.name = g.name AND t.index >= 0)",
            [list(stopped)],
        )
