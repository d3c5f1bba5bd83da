"""Places of tasks at limits over runs: slot pools, a task over all runs or in one, a workflow over all runs.

A ready task of a version with such limits makes a claim (a row) and waits; a claim that is `held` lets it start. The
pass that makes claims, or in which tasks with held ones end, decides nothing: afterwards `give_out` lets `engine.slots`
say whose turn it is, among all that waits in the tenant, and the runs concerned go on. What is held is the sum over the
claims; only `give_out` makes that larger, under a lock of the tenant, so it never exceeds a limit. A claim goes in the
transaction that ends its task, sends it back to wait, or takes it away.

Every few seconds `overdue` finds what a lost hint has left: so nothing that waits is forgotten, whoever was killed.

Lock order: runs → tasks → claims. `give_out` holds the lock of its tenant and waits for no row.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from django.db import transaction

from apps.core.durability import commit_without_waiting
from apps.core.locks import LockClass, lock_in_transaction
from apps.core.rows import fetch
from engine.slots import Claim, Gate, next_claims
from rmctl.spec import SpecError

from . import moved
from .limits import Known, TaskLimit
from .models import SlotClaim, SlotPool, Workflow
from .path_history import weights_of
from .plans import plan_of
from .states import TASK_IN_FLIGHT, TASK_TERMINAL, TaskState
from .unmade import Made

if TYPE_CHECKING:
    from .progress import Progress

# Claims of one kind (of the same task, for the same limits) that one round looks at.
ROUND = 200


# During a pass


def consider(limited: Collection["Progress"]) -> None:
    """Let runs keep those of their ready tasks that have their places, and note those that have to ask."""
    tasks = [pk for one in limited for pk in one.limiting.concerned(one.ready_rows())]
    rows = fetch(
        "SELECT c.task_id, c.held, t.state IN ('waiting', 'deferred') FROM workflows_slotclaim c "
        "JOIN workflows_task t ON t.id = c.task_id WHERE c.task_id = ANY(%s::bigint[])",
        [tasks],
    )
    known = {task: Known(held, waits) for task, held, waits in rows}
    names = {limit.pool for one in limited for limit in one.plan.limits.values() if limit.pool}
    pools: dict[int, dict[str, int]] = {}
    if names:
        tenants = {one.run.tenant_id for one in limited}
        found = SlotPool.objects.filter(tenant__in=tenants, name__in=names)
        for tenant, name, pk in found.values_list("tenant_id", "name", "pk"):
            pools.setdefault(tenant, {})[name] = pk
    for one in limited:
        one.limit(known, pools.get(one.run.tenant_id, {}))


def note_lines(made: Mapping[int, Mapping[str, Made]]) -> None:
    """Note how many of the instances of mapped tasks, by run and name, are in line for places."""
    rows = fetch(
        "SELECT c.run_id, c.name, count(*) FROM workflows_slotclaim c JOIN workflows_task t ON t.id = c.task_id "
        "WHERE c.run_id = ANY(%s) AND t.state = 'waiting' GROUP BY c.run_id, c.name",
        [list(made)],
    )
    for run, name, count in rows:
        if name in made[run]:
            made[run][name].in_line = count


def write(limited: Collection["Progress"], now: datetime) -> set[int]:
    """Store what the passes of these runs ask for and let go, after their tasks; the tenants in which that is."""
    gone = [row.pk for one in limited for row in one.touched if row.name in one.plan.limits and _lets_go(row)]
    tenants = _delete("task_id = ANY(%s)", [gone]) if gone else set()
    asked = [(one, row) for one in limited for row in one.limiting.asked if row.state not in TASK_TERMINAL]
    if asked:
        weights = {one.run.version_id: weights_of(one.run.version_id, one.plan) for one, _ in asked}
        SlotClaim.objects.bulk_create(
            [
                SlotClaim(
                    task_id=row.pk,
                    run_id=row.run,
                    tenant_id=one.run.tenant_id,
                    workflow_id=one.run.workflow_id,
                    name=row.name,
                    scope=row.run if one.plan.limits[row.name].max_active_per_run else 0,
                    pool_id=one.limiting.pools.get(one.plan.limits[row.name].pool),
                    count=one.plan.limits[row.name].count,
                    weight=weights[one.run.version_id][row.name],
                    since=now,
                )
                for one, row in asked
            ],
            ignore_conflicts=True,
        )
    return tenants | {one.run.tenant_id for one, _ in asked}


def _lets_go(row: Any) -> bool:
    return row.state in TASK_TERMINAL or (row.state == TaskState.DEFERRED and row.source in TASK_IN_FLIGHT)


# By people's acts and repairs


def _delete(condition: str, parameters: Iterable[Any]) -> set[int]:
    """Take claims away; the tenants that they were of."""
    return {
        tenant
        for (tenant,) in fetch(f"DELETE FROM workflows_slotclaim WHERE {condition} RETURNING tenant_id", parameters)
    }


def release(*, run: int | None = None, tasks: Collection[int] = ()) -> None:
    """Take the claims of a whole run or of some tasks away, and let those that wait go on once this has committed."""
    moved.tell_tenants(_delete("run_id = %s OR task_id = ANY(%s::bigint[])", [run, list(tasks)]))


def reset(run: int) -> None:
    """Let go what tasks of a run hold or wait for that are not in flight: those that are still ready ask anew."""
    condition = (
        "run_id = %s AND NOT EXISTS (SELECT 1 FROM workflows_task t "
        "WHERE t.id = task_id AND t.state IN ('queued', 'running'))"
    )
    moved.tell_tenants(_delete(condition, [run]))


def overdue() -> tuple[set[int], list[int]]:
    """Tenants in which something waits for places, and tasks that have theirs and have not started."""
    if not fetch("SELECT 1 FROM workflows_slotclaim LIMIT 1"):
        return set(), []
    tenants = _delete(
        "task_id IN (SELECT t.id FROM workflows_slotclaim c JOIN workflows_task t ON t.id = c.task_id "
        "WHERE t.state = ANY(%s))",
        [sorted(TASK_TERMINAL)],
    )
    tenants |= {tenant for (tenant,) in fetch("SELECT DISTINCT tenant_id FROM workflows_slotclaim WHERE NOT held")}
    late = fetch(
        "SELECT c.task_id FROM workflows_slotclaim c JOIN workflows_task t ON t.id = c.task_id "
        "WHERE c.held AND t.state IN ('waiting', 'deferred') ORDER BY c.task_id LIMIT 2000"
    )
    return tenants, [task for (task,) in late]


# Giving out

# Of each kind of claim the first ones: those behind them wait for the same, and come later in any case.
_FIRST = """
SELECT c.task_id, c.weight, c.run_id, c.workflow_id, c.name, c.pool_id, c.count FROM (
  SELECT DISTINCT workflow_id, name, scope, pool_id, count FROM workflows_slotclaim WHERE tenant_id = %s AND NOT held
) k CROSS JOIN LATERAL (
  SELECT * FROM workflows_slotclaim w
  WHERE w.tenant_id = %s AND NOT w.held AND w.workflow_id = k.workflow_id AND w.name = k.name AND w.scope = k.scope
    AND w.pool_id IS NOT DISTINCT FROM k.pool_id AND w.count = k.count
  ORDER BY w.weight DESC, w.run_id, w.task_id LIMIT %s
) c
"""
# What is being taken away just now is left: it needs nothing more.
_HOLD = """
UPDATE workflows_slotclaim SET held = true WHERE task_id IN (
  SELECT task_id FROM workflows_slotclaim WHERE task_id = ANY(%s) AND NOT held ORDER BY task_id FOR UPDATE SKIP LOCKED
) RETURNING task_id
"""


def give_out(tenants: Iterable[int]) -> list[int]:
    """Give free places to tasks that wait for them; the tasks that have theirs now."""
    found: list[int] = []
    for tenant in sorted(tenants):
        while True:
            some = _round(tenant)
            found += some
            if len(some) < ROUND:
                break
    return found


@transaction.atomic
def _round(tenant: int) -> list[int]:
    lock_in_transaction(LockClass.SLOTS, tenant)
    waiting = fetch(_FIRST, [tenant, tenant, ROUND])
    if not waiting:
        return []
    limits = LimitsNow({row[3] for row in waiting})
    claims = [
        Claim(task, weight, run, task, limits.takes(workflow, name, run, pool, count))
        for task, weight, run, workflow, name, pool, count in waiting
    ]
    granted = next_claims(gates_of(tenant, limits), claims)
    if not granted:
        return []
    # Lost, it is given out again; the job of who holds a place starts only behind its own grant.
    commit_without_waiting()
    return [task for (task,) in fetch(_HOLD, [[claim.key for claim in granted]])]


class GateKey(NamedTuple):
    """Which limit: the `pool` of this id, the `workflow`, the `task` of a workflow or of a `run` with this name."""

    kind: str
    owner: int
    name: str = ""


class LimitsNow:
    """The limits of workflows as their current versions have them, whatever version a run is of.

    One whose version is no longer accepted has none: its runs end with that reason.
    """

    def __init__(self, workflows: Collection[int]) -> None:
        self._tasks: dict[int, Mapping[str, TaskLimit]] = {}
        self._whole: dict[int, int | None] = {}
        # Of the gates that any task asked for passes, slot pools apart.
        self.sizes: dict[GateKey, int] = {}
        for pk, version in Workflow.objects.filter(pk__in=workflows).values_list("pk", "current_id"):
            try:
                plan = plan_of(version) if version is not None else None
            except SpecError:
                plan = None
            self._tasks[pk] = plan.limits if plan else {}
            self._whole[pk] = plan.max_active_tasks_all_runs if plan else None

    def takes(self, workflow: int, name: str, run: int, pool: int | None, count: int) -> list[tuple[GateKey, int]]:
        """What a task takes at which gate (see `engine.slots`), the narrowest first."""
        limit = self._tasks.get(workflow, {}).get(name, TaskLimit())
        gates: list[tuple[GateKey, int | None]] = [
            (GateKey("run", run, name), limit.max_active_per_run),
            (GateKey("task", workflow, name), limit.max_active),
            (GateKey("workflow", workflow), self._whole.get(workflow)),
        ]
        found = [key for key, size in gates if size is not None]
        self.sizes |= {key: size for key, size in gates if size is not None}
        return [*((key, 1) for key in found), *([(GateKey("pool", pool), count)] if pool is not None else [])]


def gates_of(tenant: int, limits: LimitsNow) -> dict[GateKey, Gate]:
    """The gates of the tenant's slot pools and those that were asked for, with what the ledger holds of them now."""
    held: Counter[GateKey] = Counter()
    rows = fetch(
        "SELECT workflow_id, run_id, name, pool_id, count(*), sum(count) FROM workflows_slotclaim "
        "WHERE tenant_id = %s AND held GROUP BY 1, 2, 3, 4",
        [tenant],
    )
    for workflow, run, name, pool, tasks, slots in rows:
        for key in (GateKey("run", run, name), GateKey("task", workflow, name), GateKey("workflow", workflow)):
            held[key] += tasks
        if pool is not None:
            held[GateKey("pool", pool)] += slots
    pools = SlotPool.objects.filter(tenant=tenant).values_list("pk", "size")
    sizes = limits.sizes | {GateKey("pool", pk): size for pk, size in pools}
    return {key: Gate(size, held[key]) for key, size in sizes.items()}
