"""Tasks that wait for the run before their own: `depends_on_past` and `wait_for_downstream`.

The task with `depends_on_past` of a run of the schedule or of a backfill starts once the same task of such a run
before it, by logical time, has succeeded or was skipped; with `wait_for_downstream` also what is directly behind that
task. The first run waits for none, nor does a task that the run before does not have, and neither do runs triggered
by hand.

What waits is a row of `PastWait`, so nothing looks through the history: a task that ends looks up the rows that name
its run, and every few seconds all of them are looked at, for what was changed by hand.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from django.db import connection

from apps.core.rows import fetch

from .models import PastWait, Task
from .states import TaskState

SHOWN = 5
GOOD = (TaskState.SUCCEEDED, TaskState.SKIPPED)


@dataclass(frozen=True, slots=True)
class Hold:
    """Why a task waits: the run before it, and the tasks of that run that must all come to a good end."""

    past: int
    names: tuple[str, ...]

    def __str__(self) -> str:
        more = f" and {len(self.names) - SHOWN} more" if len(self.names) > SHOWN else ""
        return f"Waits for {', '.join(self.names[:SHOWN])}{more} of the run before it, run {self.past}."


def holds(wanted: Mapping[int, Mapping[str, tuple[str, ...]]]) -> dict[int, dict[str, Hold]]:
    """By run and task, what holds it back. `wanted` names for each task those of the run before that must be good."""
    before = _runs_before(wanted)
    names = {name for tasks in wanted.values() for others in tasks.values() for name in others}
    rows = Task.objects.filter(run__in=set(before.values()), index=-1, name__in=names).exclude(state__in=GOOD)
    bad = set(rows.values_list("run_id", "name"))
    found: dict[int, dict[str, Hold]] = {}
    for run, tasks in wanted.items():
        past = before.get(run)
        if past is None:
            continue
        for task, others in tasks.items():
            if any((past, name) in bad for name in others):
                found.setdefault(run, {})[task] = Hold(past, others)
    return found


# By one step in an index for each run and kind.
_BEFORE = """
SELECT r.id, (SELECT p.id FROM (
    (SELECT id, logical_time FROM workflows_run WHERE workflow_id = r.workflow_id AND trigger = 'schedule'
     AND logical_time < r.logical_time ORDER BY logical_time DESC LIMIT 1)
    UNION ALL
    (SELECT id, logical_time FROM workflows_run WHERE workflow_id = r.workflow_id AND trigger = 'backfill'
     AND logical_time < r.logical_time ORDER BY logical_time DESC, id DESC LIMIT 1)
) p ORDER BY p.logical_time DESC, p.id DESC LIMIT 1)
FROM workflows_run r WHERE r.id = ANY(%s) AND r.trigger IN ('schedule', 'backfill')
"""


def _runs_before(runs: Iterable[int]) -> dict[int, int]:
    """The run of the schedule or of a backfill before each such run."""
    with connection.cursor() as cursor:
        cursor.execute(_BEFORE, [list(runs)])
        return {run: past for run, past in cursor.fetchall() if past is not None}


def store(held: Collection[tuple[int, int, Hold]], started: Collection[int]) -> None:
    """Remember which tasks (task, run, why) are held, and forget those that were and have started."""
    if started:
        PastWait.objects.filter(task__in=started).delete()
    if held:
        PastWait.objects.bulk_create(
            [PastWait(task_id=task, run_id=run, past_id=why.past, names=why.names) for task, run, why in held],
            update_conflicts=True,
            unique_fields=["task"],
            update_fields=["past", "names"],
        )


def awaited(runs: Collection[int]) -> list[int]:
    """Those of the runs that tasks of others wait for."""
    return [
        run
        for (run,) in fetch("SELECT DISTINCT past_id FROM workflows_pastwait WHERE past_id = ANY(%s)", [list(runs)])
    ]


def released(past: Collection[int] | None = None) -> list[int]:
    """Runs with a task that waits for nothing more; only those that waited for the runs `past`, if given."""
    with connection.cursor() as cursor:
        if past is None:
            cursor.execute(
                "DELETE FROM workflows_pastwait w USING workflows_task t "
                "WHERE t.id = w.task_id AND t.state <> 'waiting'"
            )
        cursor.execute(
            "SELECT DISTINCT w.run_id FROM workflows_pastwait w WHERE (%s::bigint[] IS NULL OR w.past_id = ANY(%s)) "
            "AND NOT EXISTS (SELECT 1 FROM workflows_task p WHERE p.run_id = w.past_id AND p.index = -1 "
            " AND p.state <> ALL(%s) AND p.name IN (SELECT jsonb_array_elements_text(w.names)))",
            [None if past is None else list(past), None if past is None else list(past), list(GOOD)],
        )
        return [run for (run,) in cursor.fetchall()]
