"""Reads of workflows, runs and tasks, for the API and the pages; each costs a fixed number of statements."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Count, OuterRef, Q, QuerySet, Subquery

from apps.core.actors import Actor
from apps.core.errors import Invalid, NotFound
from apps.tenants.models import Tenant

from . import policies
from .deadline_models import Deadline
from .models import Backfill, Run, Task, Workflow, WorkflowVersion
from .plans import plan_of
from .slot_queries import say_why
from .states import RUN_ACTIVE, TASK_ACTIVE, TaskState
from .unmade import count_units, with_missing

# A run without one of them has one of these as its worst; the page colours an expanded task by it.
Counts = dict[str, int]


def list_workflows(actor: Actor) -> QuerySet[Workflow]:
    """Workflows with tenant, current version, and the id, state and time of their latest run."""
    latest = Run.objects.filter(workflow=OuterRef("pk")).order_by("-id")
    return (
        policies.workflows.visible(actor)
        .select_related("tenant", "current")
        .defer("current__definition")
        .annotate(
            latest_run_id=Subquery(latest.values("pk")[:1]),
            latest_run_state=Subquery(latest.values("state")[:1]),
            latest_run_at=Subquery(latest.values("created_at")[:1]),
        )
    )


def workflow_of(actor: Actor, workflow_id: int) -> Workflow:
    """One workflow as lists show it. Raises NotFound."""
    found = list_workflows(actor).filter(pk=workflow_id).first()
    if found is None:
        raise NotFound(f"There is no workflow {workflow_id} that you can see.")
    return found


def workflow_named(actor: Actor, tenant: Tenant | None, name: str) -> str:
    """The name of a workflow that the tenant has and the actor sees, as a budget names it. Raises Invalid."""
    if tenant is None:
        raise Invalid.field("workflow", "name the tenant that the workflow belongs to as well.", "required")
    if not policies.workflows.visible(actor).filter(tenant=tenant, name=name).exists():
        raise Invalid.field("workflow", f"tenant {tenant.slug} has no workflow {name!r} that you can see.", "unknown")
    return name


def list_versions(actor: Actor, workflow_id: int) -> QuerySet[WorkflowVersion]:
    """Versions of one workflow, without their definitions."""
    workflow = policies.workflows.get(actor, pk=workflow_id)
    return workflow.versions.select_related("owner").defer("definition")


def version_of(actor: Actor, workflow_id: int, number: int) -> WorkflowVersion:
    """One version with its definition. Raises NotFound."""
    workflow = policies.workflows.get(actor, pk=workflow_id)
    found = workflow.versions.select_related("owner").filter(number=number).first()
    if found is None:
        raise NotFound(f"Workflow {workflow.name} has no version {number}.")
    return found


def list_runs(actor: Actor) -> QuerySet[Run]:
    """Runs with workflow, tenant, version and owner."""
    return (
        policies.runs.visible(actor)
        .select_related("workflow", "tenant", "version", "owner", "note_by")
        .defer("version__definition")
    )


def run_of(actor: Actor, run_id: int) -> Run:
    """One run as lists show it. Raises NotFound."""
    found = list_runs(actor).filter(pk=run_id).first()
    if found is None:
        raise NotFound(f"There is no run {run_id} that you can see.")
    return found


def list_backfills(actor: Actor) -> QuerySet[Backfill]:
    """Backfills with workflow, tenant, version and owner."""
    return (
        policies.backfills.visible(actor)
        .select_related("workflow", "tenant", "version", "owner")
        .defer("version__definition")
    )


def with_counts(backfills: Iterable[Backfill]) -> list[Backfill]:
    """The same with `counts`: how many of their runs are in each state."""
    found = list(backfills)
    counts: dict[int, Counts] = {backfill.pk: {} for backfill in found}
    rows = Run.objects.filter(backfill__in=list(counts)).order_by().values_list("backfill", "state")
    for pk, state, count in rows.annotate(count=Count("pk")):
        counts[pk][state] = count
    for backfill in found:
        backfill.counts = counts[backfill.pk]  # type: ignore[attr-defined]
    return found


def backfill_of(actor: Actor, backfill_id: int) -> Backfill:
    """One backfill as lists show it, with `counts`. Raises NotFound."""
    found = with_counts(list_backfills(actor).filter(pk=backfill_id))
    if not found:
        raise NotFound(f"There is no backfill {backfill_id} that you can see.")
    return found[0]


def list_tasks(actor: Actor, run_id: int) -> QuerySet[Task]:
    """Tasks and instances of one run with their jobs, in the order of their ids."""
    run = policies.runs.get(actor, pk=run_id)
    return run_tasks(run)


def run_tasks(run: Run) -> QuerySet[Task]:
    """The same for a run that was found already."""
    return run.tasks.select_related("job", "wait").defer("job__spec", "job__result", "job__tried")


def count_states(runs: Iterable[int]) -> dict[int, Counts]:
    """How many units of work each run has in each state: tasks, and the instances of expanded ones."""
    found: dict[int, Counts] = {run: {} for run in runs}
    for run, state, count in count_units(found):
        found[run][state] = count
    return found


@dataclass(frozen=True, slots=True)
class WorkflowDetail:
    """A workflow for its page."""

    workflow: Workflow
    definition: dict[str, Any]
    recent: list[Run]
    active: int


def workflow_detail(actor: Actor, workflow_id: int, *, recent: int = 20) -> WorkflowDetail:
    """The workflow with the definition of its current version, its latest runs, and how many are active."""
    workflow = workflow_of(actor, workflow_id)
    definition = (
        WorkflowVersion.objects.values_list("definition", flat=True).get(pk=workflow.current_id)
        if workflow.current_id
        else {}
    )
    runs = list_runs(actor).filter(workflow=workflow)
    active = Run.objects.filter(workflow=workflow, state__in=sorted(RUN_ACTIVE)).count()
    return WorkflowDetail(workflow, definition, list(runs.order_by("-id")[:recent]), active)


@dataclass(frozen=True, slots=True)
class RunDetail:
    """A run for its page; `counts` as in `count_states`, `done` and `total` for a progress bar."""

    run: Run
    counts: Counts
    done: int
    total: int
    failures: list[Task]


def run_detail(actor: Actor, run_id: int) -> RunDetail:
    """The run with the states of its tasks, and the first tasks that failed with what they say."""
    run = run_of(actor, run_id)
    counts = count_states([run.pk])[run.pk]
    active = sum(counts.get(state, 0) for state in TASK_ACTIVE)
    total = sum(counts.values())
    failures = run_tasks(run).filter(state=TaskState.FAILED, width__isnull=True).order_by("ended_at", "id")
    return RunDetail(run, counts, total - active, total, list(failures[:20]))


def run_graph(run: Run) -> dict[str, Any]:
    """The run as a graph: {"nodes": […], "edges": [{"source", "target"}], "levels": [[task, …], …]}.

    A node has `id kind role decides group rule mapped state job detail started_at ended_at`, of its task row also
    `task`, and for a mapped task `width` and `counts` (instances by state).
    """
    plan = plan_of(run.version_id)
    instances: defaultdict[str, Counts] = defaultdict(dict)
    counted = run.tasks.filter(index__gte=0).order_by().values_list("name", "state").annotate(count=Count("pk"))
    for name, state, count in counted:
        instances[name][state] = count
    nodes = []
    for task in say_why(list(run.tasks.filter(index=-1).order_by("id"))):
        node: dict[str, Any] = {
            "id": task.name,
            "task": task.pk,
            "kind": plan.tasks[task.name].kind,
            "role": plan.graph.tasks[task.name].role,
            "decides": plan.tasks[task.name].decides,
            "group": plan.owners.get(task.name),
            "rule": plan.graph.tasks[task.name].rule,
            "mapped": plan.tasks[task.name].mapped,
            "state": task.state,
            "job": task.job_id,
            "detail": task.detail,
            "width": task.width,
            "counts": with_missing(instances[task.name], task.state, task.width),
            "started_at": _text(task.started_at),
            "ended_at": _text(task.ended_at),
        }
        nodes.append(node)
    return {"nodes": nodes, **version_graph(run.version_id)}


def version_graph(version_id: int) -> dict[str, Any]:
    """Edges, levels and groups of a version: {"edges": …, "levels": …, "groups": …}."""
    plan = plan_of(version_id)
    graph = plan.graph
    edges = [{"source": upstream, "target": name} for name in graph.order for upstream in graph.tasks[name].upstream]
    return {"edges": edges, "levels": [list(level) for level in graph.levels], "groups": plan.group_list}


def version_nodes(version_id: int) -> list[dict[str, Any]]:
    """Tasks of a version as nodes without a state, for the page of a workflow that has not run."""
    plan = plan_of(version_id)
    return [
        {
            "id": name,
            "kind": plan.tasks[name].kind,
            "rule": plan.graph.tasks[name].rule,
            "mapped": plan.tasks[name].mapped,
        }
        for name in plan.graph.order
    ]


@dataclass(frozen=True, slots=True)
class Grid:
    """The latest runs of a workflow against its tasks; `cells[task][run id]` is (state, task row's id)."""

    runs: list[Run]
    tasks: list[str]
    cells: Mapping[str, Mapping[int, tuple[str, int]]]


def run_grid(actor: Actor, workflow: Workflow, *, limit: int = 30, tasks_max: int = 500) -> Grid:
    """The last runs, oldest first, by tasks in topological order (the current version's, then former ones)."""
    runs: Sequence[Run] = list(list_runs(actor).filter(workflow=workflow).order_by("-id")[:limit])[::-1]
    current = list(plan_of(workflow.current_id).graph.order) if workflow.current_id else []
    cells: dict[str, dict[int, tuple[str, int]]] = {name: {} for name in current[:tasks_max]}
    rows = Task.objects.filter(run__in=runs, index=-1).filter(Q(name__in=current[:tasks_max]) | ~Q(name__in=current))
    for run_id, name, state, pk in rows.order_by("id").values_list("run_id", "name", "state", "pk"):
        if name in cells or len(cells) < tasks_max:
            cells.setdefault(name, {})[run_id] = (state, pk)
    return Grid(list(runs), list(cells), cells)


def _text(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment is not None else None


def missed_deadlines(run: Any) -> QuerySet[Deadline]:
    """The deadlines and the time limit of a run (or, in a subquery, of each) that have passed while it went on."""
    return Deadline.objects.filter(run=run, missed_at__isnull=False)
