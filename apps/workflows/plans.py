"""A version ready to run: its graph and its compiled tasks, kept in memory by version."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Any
from zoneinfo import ZoneInfo

from apps.core.errors import Conflict
from engine.dag import Graph, TaskNode
from rmctl.spec import CompiledTask, SpecError, WorkflowSpec, parse_workflow
from rmctl.spec.kinds import Approval
from rmctl.spec.mapping import sources
from rmctl.spec.schedule import CONTINUOUS

from .limits import Weighing, task_limits
from .models import WorkflowVersion

# A task of a plan takes one or two KiB.
TASKS_KEPT = 30_000


@dataclass(frozen=True, slots=True)
class Timing:
    """A deadline of a run or of a task, or (`limit`) the time limit of a run."""

    seconds: int
    task: str = ""
    scheduled: bool = False
    limit: bool = False


class Plan:
    """What the advance loop needs of one version; immutable, shared by all of its runs."""

    def __init__(self, spec: WorkflowSpec) -> None:
        definition = spec.definition
        self.tasks: dict[str, CompiledTask] = spec.compiled
        self.graph = Graph(
            {
                task["id"]: TaskNode(
                    rule=task["trigger_rule"],
                    upstream=tuple(task["upstream"]),
                    mapped="map" in task,
                    role="setup" if task.get("setup") else "teardown" if "teardown" in task else "",
                    fails_run=task.get("teardown", {}).get("fails_run", False),
                )
                for task in definition["tasks"]
            }
        )
        self.name: str = definition["name"]
        self.params: dict[str, Any] = definition["params"]
        self.max_active_runs: int = definition["max_active_runs"]
        self.max_active_tasks: int = definition["max_active_tasks"]
        self.max_active_tasks_all_runs: int | None = definition.get("max_active_tasks_all_runs")
        self.zone = ZoneInfo(definition["timezone"])
        self.continuous = definition["schedule"] == CONTINUOUS
        # Tasks whose results each task reads, in its arguments and templates or as the list that it is mapped over.
        self.references = {name: _references(task) for name, task in self.tasks.items()}
        # Tasks of which the loop reads what they returned: it decides the way, or says whether a sensor is done.
        self.answering = frozenset(name for name, task in self.tasks.items() if task.decides or task.poked)
        # Questions with answers that let nothing behind them run.
        self.asking = frozenset(
            name for name, task in self.tasks.items() if isinstance(task.options, Approval) and task.options.reject
        )
        # Tasks whose results may come from earlier ones.
        self.labelled = any("label" in task.map for task in self.tasks.values())
        self.cached = frozenset(name for name, task in self.tasks.items() if task.cache is not None)
        # Tasks that may have a row of what they wait for.
        self.waiting = frozenset(
            name for name, task in self.tasks.items() if task.poked or (task.jobless and task.kind != "empty")
        )
        # Groups with their tasks, those of inner groups included.
        self.groups = _groups(definition)
        self.group_list = [{"parent": None, "description": "", **group} for group in definition.get("groups", [])]
        self.owners: dict[str, str] = {task["id"]: task["group"] for task in definition["tasks"] if "group" in task}
        # The datasets that the success of a task updates.
        self.outlets: dict[str, list[str]] = {t["id"]: t["outlets"] for t in definition["tasks"] if "outlets" in t}
        # For each task that depends on the past, the tasks of the run before that must have come to a good end.
        self.past = {task["id"]: past for task in definition["tasks"] if (past := self._past(task))}
        self.watched = frozenset().union(*self.past.values())
        # What tasks need besides a place in their run, and who goes first.
        self.limits = task_limits(definition)
        self.weighing = Weighing(definition, self.graph)
        self.deadlines = _timings(spec)
        # Who hears of what, by task; under no name what concerns the whole run.
        self.notify: dict[str, list[dict[str, list[str]]]] = {
            part.get("id", ""): part["notify"] for part in (definition, *definition["tasks"]) if "notify" in part
        }
        self._reach: dict[str, frozenset[str]] = {}

    def _past(self, task: Mapping[str, Any]) -> tuple[str, ...]:
        if task.get("wait_for_downstream"):
            return (task["id"], *self.graph.downstream[task["id"]])
        return (task["id"],) if task.get("depends_on_past") else ()

    def reach(self, name: str) -> frozenset[str]:
        """The tasks whose counters move when `name` succeeds: those behind it, and through empty tasks further."""
        known = self._reach.get(name)
        if known is None:
            known = self._reach[name] = frozenset(self._walk(self.graph.downstream[name]))
        return known

    def at_start(self) -> set[str]:
        """The tasks that the start of a run touches."""
        return self._walk(self.graph.initial)

    def _walk(self, names: Iterable[str]) -> set[str]:
        found: set[str] = set()
        pending = list(names)
        while pending:
            name = pending.pop()
            if name in found:
                continue
            found.add(name)
            if self.tasks[name].kind == "empty":
                pending.extend(self.graph.downstream[name])
        return found


def _references(task: CompiledTask) -> frozenset[str]:
    read: list[Mapping[str, Any]] = [*task.arguments.values(), *(argument for _, argument in sources(task.map))]
    pulled = task.template.needs.results if task.template is not None else frozenset()
    return pulled.union(source["result"] for source in read if "result" in source)


def _timings(spec: WorkflowSpec) -> tuple[Timing, ...]:
    parts = [("", spec.deadline), *((task.id, task.deadline) for task in spec.tasks)]
    found = [Timing(one.after, task, one.from_ == "scheduled") for task, one in parts if one is not None]
    return tuple(found if spec.time_limit is None else [*found, Timing(spec.time_limit, limit=True)])


def _groups(definition: Mapping[str, Any]) -> dict[str, list[str]]:
    parents = {group["id"]: group.get("parent") for group in definition.get("groups", [])}
    found: dict[str, list[str]] = {name: [] for name in parents}
    for task in definition["tasks"]:
        owner = task.get("group")
        while owner is not None:
            found[owner].append(task["id"])
            owner = parents[owner]
    return found


class _Plans:
    """Plans by version, the latest used ones as far as they have at most TASKS_KEPT tasks together."""

    def __init__(self) -> None:
        self._kept: OrderedDict[int, Plan] = OrderedDict()
        self._tasks = 0
        self._lock = Lock()

    def get(self, version_id: int) -> Plan | None:
        with self._lock:
            plan = self._kept.get(version_id)
            if plan is not None:
                self._kept.move_to_end(version_id)
            return plan

    def keep(self, version_id: int, plan: Plan) -> None:
        with self._lock:
            if version_id not in self._kept:
                self._kept[version_id] = plan
                self._tasks += len(plan.tasks)
            while self._tasks > TASKS_KEPT and len(self._kept) > 1:
                _, dropped = self._kept.popitem(last=False)
                self._tasks -= len(dropped.tasks)

    def clear(self) -> None:
        with self._lock:
            self._kept.clear()
            self._tasks = 0


plans = _Plans()


class NotAccepted(SpecError, Conflict):
    """This release no longer accepts the definition of a version. A refusal to people; loops end its runs with it."""

    def __init__(self, name: str, number: int, refused: SpecError) -> None:
        SpecError.__init__(self, refused.errors)
        detail = f"Version {number} of {name} is no longer accepted: {refused} Push the workflow again."
        Conflict.__init__(self, detail, code="version_not_accepted", errors=self.errors)


def plan_of(version_id: int) -> Plan:
    """The plan of a version. Raises NotAccepted."""
    plan = plans.get(version_id)
    if plan is None:
        definition, number = WorkflowVersion.objects.values_list("definition", "number").get(pk=version_id)
        try:
            plan = Plan(parse_workflow(definition))
        except SpecError as error:
            raise NotAccepted(str(definition.get("name")), number, error) from None
        plans.keep(version_id, plan)
    return plan
