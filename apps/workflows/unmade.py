"""How far mapped tasks are expanded, by their rows: which of their instances are not made yet.

Instances are made in the order of their indices and deleted only all together, so that the highest index says how many
there are; both are looked up in the index of (run, name, index).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from django.db import connection

from .states import TASK_ACTIVE, TaskState

# As many instances of one task as have not started are there, or as many as run if that is more: few enough that other
# work does not queue behind thousands, and more the larger the fleet that takes them. Below half of it more are made.
WINDOW = 64
UNFINISHED_MAX = 100
ENDED_BEFORE = "Its task ended before it was made."

# A fence: the planner is to look up the few that are active in the partial index, not to read all instances by name.
ACTIVE_OF = (
    "(SELECT * FROM workflows_task a WHERE a.run_id = {}.run_id "
    "AND a.state IN ('waiting', 'queued', 'running') OFFSET 0) t"
)
_MADE = "coalesce((SELECT max(t.index) + 1 FROM workflows_task t WHERE t.run_id = g.run_id AND t.name = g.name), 0)"
_ACTIVE = "g.index = -1 AND g.state IN ('deferred', 'queued', 'running') AND NOT g.restart AND g.width IS NOT NULL"


@dataclass(slots=True)
class Made:
    """How many instances of a mapped task have been made, and how many of them wait (for a place, or as they were
    cleared), are queued and run, by the database. Of those that wait, `in_line` have asked for places at limits over
    runs and are told when they have them."""

    count: int = 0
    waiting: int = 0
    queued: int = 0
    running: int = 0
    in_line: int = 0

    @property
    def window(self) -> int:
        """How many that have not started there should be."""
        return max(WINDOW, self.running)


def made(wanted: Mapping[int, Iterable[str]]) -> dict[int, dict[str, Made]]:
    """The state of expansion of mapped tasks in flight, by run and name; none of those that are being cleared."""
    pairs = [(run, name) for run, names in wanted.items() for name in names]
    found: dict[int, dict[str, Made]] = {run: {} for run in wanted}
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT g.run_id, g.name, {_MADE}, active.waiting, active.queued, active.running "
            "FROM unnest(%s::bigint[], %s::text[]) AS w(run_id, name) "
            f"JOIN workflows_task g ON g.run_id = w.run_id AND g.name = w.name AND {_ACTIVE} CROSS JOIN LATERAL ("
            "SELECT count(*) FILTER (WHERE t.state = 'waiting') AS waiting, "
            "count(*) FILTER (WHERE t.state = 'queued') AS queued, "
            f"count(*) FILTER (WHERE t.state = 'running') AS running FROM {ACTIVE_OF.format('g')} "
            "WHERE t.name = g.name AND t.index >= 0) AS active",
            [[run for run, _ in pairs], [name for _, name in pairs]],
        )
        for run, name, *counts in cursor.fetchall():
            found[run][name] = Made(*counts)
    return found


def unfinished() -> list[int]:
    """Running runs with a mapped task of which more instances are to be made and none has yet to start."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT DISTINCT g.run_id FROM workflows_run r JOIN workflows_task g ON g.run_id = r.id "
            f"WHERE r.state = 'running' AND {_ACTIVE} AND g.width > %s AND {_MADE} < g.width "
            f"AND NOT EXISTS (SELECT 1 FROM {ACTIVE_OF.format('g')} WHERE t.name = g.name AND t.index >= 0 "
            "AND t.state IN ('waiting', 'queued')) ORDER BY g.run_id LIMIT %s",
            [WINDOW, UNFINISHED_MAX],
        )
        return [run for (run,) in cursor.fetchall()]


def write_out(groups: Iterable[int]) -> int:
    """Make the missing instances of mapped tasks that have ended, given by their rows, as having ended with them;
    returns how many. So they keep that end when others of the instances run again or are marked."""
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO workflows_task (run_id, name, index, state, succeeded, failed, skipped, detail, ended_at) "
            "SELECT g.run_id, g.name, i, g.state, 0, 0, 0, %s, g.ended_at "
            "FROM workflows_task g, generate_series(0, g.width - 1) AS i WHERE g.id = ANY(%s) AND NOT EXISTS ("
            "SELECT 1 FROM workflows_task t WHERE t.run_id = g.run_id AND t.name = g.name AND t.index = i)",
            [ENDED_BEFORE, list(groups)],
        )
        return cursor.rowcount


def count_units(runs: Iterable[int]) -> list[tuple[int, str, int]]:
    """(run, state, how many) of the units of work of runs: tasks, and the instances of expanded ones. Those that are
    not made wait while their task goes on, and count as having ended with it."""
    asked = list(runs)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT run_id, state, sum(units)::int FROM ("
            "SELECT t.run_id, t.state, count(*) AS units FROM workflows_task t "
            "WHERE t.run_id = ANY(%s) AND t.width IS NULL GROUP BY t.run_id, t.state UNION ALL "
            "SELECT g.run_id, CASE WHEN g.state IN ('deferred', 'queued', 'running') THEN 'waiting' ELSE g.state END, "
            f"g.width - {_MADE} FROM workflows_task g WHERE g.run_id = ANY(%s) AND g.index = -1 AND g.width > 0"
            ") AS counted WHERE units > 0 GROUP BY run_id, state",
            [asked, asked],
        )
        return [(run, state, count) for run, state, count in cursor.fetchall()]


def with_missing(counts: dict[str, int], state: str, width: int | None) -> dict[str, int]:
    """The instances of a mapped task by state, with those that are not made, as `count_units` counts them."""
    more = (width or 0) - sum(counts.values())
    if more > 0:
        its = TaskState.WAITING.value if state in TASK_ACTIVE else state
        counts[its] = counts.get(its, 0) + more
    return counts
