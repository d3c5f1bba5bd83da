"""Reads of slot pools: lists, who holds and who waits, and why a task waits for its places, in a sentence."""

from collections.abc import Iterable
from dataclasses import dataclass

from django.db import connection
from django.db.models import Count, IntegerField, OuterRef, Q, QuerySet, Subquery, Sum
from django.db.models.functions import Coalesce

from apps.core.actors import Actor
from apps.core.errors import NotFound
from engine.slots import Gate, out_of_reach, stops_at

from . import policies
from .claims import GateKey, LimitsNow, gates_of
from .limits import ASKS
from .models import SlotClaim, SlotPool, Task
from .states import TaskState

# Holders that a sentence names, and those among which it looks for them.
NAMED = 2
HOLDERS_SEEN = 2000


def list_slot_pools(actor: Actor) -> QuerySet[SlotPool]:
    """Slot pools with their tenant, how many slots are held, and how many tasks hold or wait for some."""
    claims = SlotClaim.objects.filter(pool=OuterRef("pk")).order_by().values("pool")

    def counted(condition: Q, what: Count | Sum) -> Coalesce:
        return Coalesce(Subquery(claims.filter(condition).annotate(n=what).values("n")), 0, output_field=IntegerField())

    return (
        policies.slot_pools.visible(actor)
        .select_related("tenant")
        .annotate(
            held=counted(Q(held=True), Sum("count")),
            holders=counted(Q(held=True), Count("pk")),
            waiting=counted(Q(held=False), Count("pk")),
        )
    )


def slot_pool_of(actor: Actor, pool_id: int) -> SlotPool:
    """One slot pool as lists show it. Raises NotFound."""
    found = list_slot_pools(actor).filter(pk=pool_id).first()
    if found is None:
        raise NotFound(f"There is no slot pool {pool_id} that you can see.")
    return found


def claims_of(pool: SlotPool, *, held: bool) -> QuerySet[SlotClaim]:
    """The tasks that hold slots of a pool, those that have them longest first, or those that wait, in their order."""
    rows = SlotClaim.objects.filter(pool=pool, held=held).select_related("task", "workflow")
    return rows.order_by("since", "pk") if held else rows.order_by("-weight", "run_id", "pk")


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A claim that waits; `places` in line at each kind of limit."""

    tenant: int
    workflow: int
    workflow_name: str
    name: str
    run: int
    pool: int | None
    pool_name: str
    count: int
    held: bool
    places: dict[str, int]


# Where the claims of a tenant stand in line: at their slot pool, their workflow, their task, and that of their run.
_IN_LINE = """
SELECT * FROM (
  SELECT c.task_id, c.tenant_id, c.workflow_id, w.name, c.name, c.run_id, c.pool_id, coalesce(p.name, ''),
         c.count, c.held,
         row_number() OVER (PARTITION BY c.held, c.pool_id ORDER BY c.weight DESC, c.run_id, c.task_id),
         row_number() OVER (PARTITION BY c.held, c.workflow_id ORDER BY c.weight DESC, c.run_id, c.task_id),
         row_number() OVER (PARTITION BY c.held, c.workflow_id, c.name ORDER BY c.weight DESC, c.run_id, c.task_id),
         row_number() OVER (PARTITION BY c.held, c.run_id, c.name ORDER BY c.weight DESC, c.run_id, c.task_id)
  FROM workflows_slotclaim c JOIN workflows_workflow w ON w.id = c.workflow_id
  LEFT JOIN workflows_slotpool p ON p.id = c.pool_id
  WHERE c.tenant_id IN (SELECT tenant_id FROM workflows_slotclaim WHERE task_id = ANY(%s))
) line WHERE task_id = ANY(%s)
"""


def why_waiting(tasks: Iterable[int]) -> dict[int, str]:
    """For those of the tasks that wait for places: the limit, who has its places, and where they stand in line."""
    asked = list(tasks)
    if not asked:
        return {}
    with connection.cursor() as cursor:
        cursor.execute(_IN_LINE, [asked, asked])
        rows = {
            row[0]: _Waiting(*row[1:10], dict(zip(("pool", "workflow", "task", "run"), row[10:], strict=True)))
            for row in cursor.fetchall()
        }
    found: dict[int, str] = {}
    for tenant in {row.tenant for row in rows.values()}:
        own = {task: row for task, row in rows.items() if row.tenant == tenant}
        limits = LimitsNow({row.workflow for row in own.values()})
        takes = {task: limits.takes(row.workflow, row.name, row.run, row.pool, row.count) for task, row in own.items()}
        gates, holders = gates_of(tenant, limits), _holders(tenant)
        for task, row in own.items():
            if not row.held:
                found[task] = _sentence(row, takes[task], gates, holders)
    return found


def say_why(tasks: list[Task]) -> list[Task]:
    """The same tasks; the `detail` of those that wait for places says where they stand just now."""
    waiting = [task.pk for task in tasks if may_wait(task.state, task.detail)]
    found = why_waiting(waiting)
    for task in tasks:
        task.detail = found.get(task.pk, task.detail)
    return tasks


def may_wait(state: str, detail: str) -> bool:
    """Whether a task with this state and detail waits for places; nothing is looked up for others."""
    return state in (TaskState.WAITING, TaskState.DEFERRED) and ASKS.match(detail) is not None


def _holders(tenant: int) -> dict[GateKey, list[str]]:
    """Who holds places at each gate, as far as a sentence may name them."""
    rows = SlotClaim.objects.filter(tenant=tenant, held=True).order_by("since", "pk").values_list(
        "workflow_id", "run_id", "name", "task__index", "pool_id"
    )  # fmt: skip
    found: dict[GateKey, list[str]] = {}
    for workflow, run, name, index, pool in rows[:HOLDERS_SEEN]:
        text = f"{name if index < 0 else f'{name}[{index}]'} of run {run}"
        keys = [GateKey("run", run, name), GateKey("task", workflow, name), GateKey("workflow", workflow)]
        for key in (*keys, *([GateKey("pool", pool)] if pool is not None else [])):
            found.setdefault(key, []).append(text)
    return found


def _sentence(
    row: _Waiting,
    takes: list[tuple[GateKey, int]],
    gates: dict[GateKey, Gate],
    holders: dict[GateKey, list[str]],
) -> str:
    if not takes:
        return "Starts with the next pass."
    if (beyond := out_of_reach(gates, takes)) is not None:
        gate = gates[beyond]
        if gate.size == 0:
            return f"{row.pool_name} has size 0: what takes its slots starts when an admin gives it some."
        return f"Wants {row.count} slots of {row.pool_name}, which has only {gate.size}: an admin can give it more."
    # With room everywhere it is another's turn: at its last gate, as far as can be said.
    key = stops_at(gates, takes) or takes[-1][0]
    gate = gates[key]
    names = holders.get(key, [])
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    who = f": {', '.join(names[:NAMED])}{more}" if names else ""
    if key.kind == "pool":
        wanted = "a slot" if row.count == 1 else f"{row.count} slots"
        said = f"Waits for {wanted} of {row.pool_name}; {gate.held} of {gate.size} are held{who}."
    elif key.kind == "workflow":
        tasks = f"{gate.size} {'task' if gate.size == 1 else 'tasks'}"
        said = f"At most {tasks} of {row.workflow_name} at once over all runs (now {gate.held}{who})."
    else:
        where = "over all runs" if key.kind == "task" else "in a run"
        said = f"At most {gate.size} of {row.name} at once {where} (now {gate.held}{who})."
    return f"{said} Number {row.places[key.kind]} in line."
