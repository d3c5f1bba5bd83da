"""What a clear would do, from the rows as they are: the preview that people see is what `clear` then carries out."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from apps.core.errors import Conflict, Invalid
from apps.jobs.states import JOB_ACTIVE
from engine.clearing import behind, failing, selected
from engine.dag import FAILING, TERMINAL
from engine.dag import TaskState as EngineState
from rmctl.spec.errors import did_you_mean

from .models import Run, Task, TaskTry, WorkflowVersion
from .plans import Plan, plan_of
from .states import TASK_IN_FLIGHT, RunState, TaskState

_INSTANCE = re.compile(r"(.+)\[(\d{1,9})\]")


@dataclass(frozen=True, slots=True)
class Choice:
    """What to clear: tasks (`train`) and instances of mapped ones (`train[3]`), none for the whole run.

    With `only_failed` only those of them that failed, were cancelled or never ran because of such a one, and of a
    mapped task the instances that did not succeed. `upstream` and `downstream` add what these depend on and what
    depends on them, however it ended. `newest`: on the newest version of the workflow instead of the run's own.
    """

    tasks: tuple[str, ...] = ()
    upstream: bool = False
    downstream: bool = True
    only_failed: bool = False
    newest: bool = False
    # Whether tasks with a cache may end with what they had made before; otherwise that is made anew.
    from_cache: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """A task or an instance (`index` from 0) of the run; `stopping`: its job that has not ended. An instance that was
    not made before its task ended has no row: its `pk` is 0."""

    pk: int
    name: str
    index: int
    state: str
    width: int | None
    job: int | None
    restart: bool
    stopping: int | None
    label: str | None = None

    def __str__(self) -> str:
        return self.name if self.index < 0 else f"{self.name}[{self.index}]"

    @property
    def expanded(self) -> bool:
        """Whether it stands for a mapped task as a whole, whose instances are there."""
        return self.width is not None


@dataclass(frozen=True, slots=True)
class ClearPlan:
    """What would be cleared: `whole` tasks in the order of the work, some `instances` of others, and their `rows`.

    With another version: tasks that it adds (they run), has no more (they leave the run; how they ended is kept in
    its history), defines otherwise, and those that had to be cleared because they are mapped in only one of both.
    """

    run: Run
    version: WorkflowVersion
    whole: tuple[str, ...]
    instances: Mapping[str, tuple[int, ...]]
    rows: tuple[Row, ...]
    # Mapped tasks of which only `instances` are cleared.
    groups: tuple[Row, ...] = ()
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    remapped: tuple[str, ...] = ()
    # Of mapped tasks that failed and go on, how many instances they never got to.
    to_come: Mapping[str, int] = field(default_factory=dict)

    @property
    def settled(self) -> list[int]:
        """Rows of mapped tasks that have ended, whose instances that were not made keep that end, although others of
        them are cleared."""
        return [
            row.pk
            for row in self.groups
            if row.state in TERMINAL and row.name not in self.to_come
        ]

    @property
    def units(self) -> list[Row]:
        """The rows without those that stand for the instances beside them."""
        return [row for row in self.rows if not row.expanded]

    @property
    def in_flight(self) -> int:
        """How many are queued or run, and would be stopped first."""
        return sum(row.state in TASK_IN_FLIGHT for row in self.units)


def rows_of(run: Run) -> list[Row]:
    """Every task and instance of a run, in the order of their ids."""
    active = sorted(JOB_ACTIVE)
    # A task that was marked while it ran has let go of its job, which may still be stopping.
    stopping = {
        (name, index): job
        for name, index, job in TaskTry.objects.filter(run=run, job__state__in=active).values_list(
            "name", "index", "job_id"
        )
    }
    found = []
    columns = ("pk", "name", "index", "state", "width", "job_id", "restart", "label", "job__state")
    for pk, name, index, state, width, job, restart, label, job_state in (
        Task.objects.filter(run=run).order_by("pk").values_list(*columns)
    ):
        own = job if job_state in active else None
        found.append(Row(pk, name, index, state, width, job, restart, own or stopping.get((name, index)), label))
    return found + _unmade(found)


def _unmade(rows: Sequence[Row]) -> list[Row]:
    """The instances that mapped tasks which have ended never got to: they count as having ended with them."""
    indices: dict[str, set[int]] = {row.name: set() for row in rows if row.expanded and row.state in TERMINAL}
    for row in rows:
        if row.index >= 0 and row.name in indices:
            indices[row.name].add(row.index)
    return [
        Row(0, row.name, index, row.state, None, None, False, None)
        for row in rows
        if row.index < 0 and row.name in indices
        for index in sorted(set(range(row.width or 0)) - indices[row.name])
    ]


def plan_clear(run: Run, choice: Choice) -> ClearPlan:
    """What `choice` means for a run now. Raises Invalid naming a task or an instance that is not there, Conflict when
    the run has not started or nothing of it is to be cleared."""
    if run.state == RunState.QUEUED and not run.edits:
        raise Conflict(f"Run {run.pk} has not started yet: there is nothing to clear.", code="not_started")
    version = _version(run, choice)
    plan = plan_of(version.pk)
    rows = rows_of(run)
    own = {row.name: row for row in rows if row.index < 0}
    names, instances = _named(choice.tasks, rows, own, plan, version)
    if choice.only_failed:
        names, instances = _only_failed(names, instances, rows, own, plan)
    whole = selected(plan.graph, names, upstream=choice.upstream, downstream=choice.downstream)
    if instances:
        beside = selected(plan.graph, instances, upstream=choice.upstream, downstream=choice.downstream)
        whole = selected(plan.graph, {*whole, *beside} - (instances.keys() - names))
    differences: dict[str, tuple[str, ...]] = {}
    if version.pk != run.version_id:
        differences = _differences(plan_of(run.version_id), plan, version, run, own)
        remapped = selected(plan.graph, differences["remapped"], downstream=choice.downstream)
        whole = selected(plan.graph, {*whole, *remapped})
    # The list of a mapped task may change when something before it runs again: then all of it has to, as where it was
    # being cleared as a whole when its run was stopped.
    below = behind(plan.graph, whole) | {row.name for row in own.values() if row.restart and row.state in TERMINAL}
    whole = selected(plan.graph, {*whole, *(name for name in instances if name in below)})
    partial = {name: tuple(sorted(chosen)) for name, chosen in instances.items() if name not in whole}
    gone = differences.get("removed", ())
    chosen = tuple(
        row
        for row in rows
        if (row.name in gone or row.name in whole or (row.index >= 0 and row.index in partial.get(row.name, ())))
        # Instances that wait are made anew with the others, as are those that are not made.
        and (row.pk or row.name in partial)
        and (row.state != TaskState.WAITING or (row.index >= 0 and row.name not in partial))
    )
    if not chosen and not differences and all(partial.values()):
        raise Conflict(f"Nothing of run {run.pk} is to be cleared: {_why_nothing(choice)}.", code="nothing_to_clear")
    cleared = {row.name for row in chosen}
    place = {name: position for position, name in enumerate((*plan.graph.order, *gone))}
    chosen = tuple(sorted(chosen, key=lambda row: (place[row.name], row.index)))
    return ClearPlan(
        run,
        version,
        tuple(name for name in whole if name in cleared),
        partial,
        chosen,
        tuple(own[name] for name in plan.graph.order if name in partial),
        to_come=Counter(row.name for row in rows if choice.only_failed and not row.pk and _goes_on(row, partial)),
        **differences,
    )


def _goes_on(row: Row, partial: Mapping[str, object]) -> bool:
    return row.name in partial and row.state in FAILING


def named_rows(run: Run, rows: Sequence[Row], tasks: Sequence[str]) -> list[Row]:
    """The rows that texts name, each once. Raises Invalid."""
    own = {row.name: row for row in rows if row.index < 0}
    names, instances = _named(tasks, rows, own, plan_of(run.version_id), run.version)
    return [
        row for row in rows if (row.name in names and row.index < 0) or row.index in instances.get(row.name, ())
    ]


def _why_nothing(choice: Choice) -> str:
    if choice.only_failed:
        return "none of the tasks has failed"
    return "the tasks have not started yet"


def _version(run: Run, choice: Choice) -> WorkflowVersion:
    newest = run.workflow.current
    if choice.newest and newest is not None:
        return newest
    return run.version


def _named(
    tasks: Iterable[str], rows: Iterable[Row], own: Mapping[str, Row], plan: Plan, version: WorkflowVersion
) -> tuple[set[str], dict[str, set[int]]]:
    """The tasks, and the instances of others, that the texts name; all tasks if there are none."""
    names: set[str] = set()
    instances: dict[str, set[int]] = {}
    known = {(row.name, row.index) for row in rows}
    for text in tasks:
        match = None if text in plan.graph.tasks else _INSTANCE.fullmatch(text)
        name = match[1] if match else text
        if name not in plan.graph.tasks:
            where = f"version {version.number}" if name in own else "the run"
            hint = did_you_mean(name, plan.graph.tasks)
            raise Invalid.field("tasks", f"there is no task {name} in {where}.{hint}", "unknown_task")
        if match is None:
            names.add(name)
        elif (name, int(match[2])) not in known:
            group = own.get(name)
            there = "yet" if group is not None and int(match[2]) < (group.width or 0) else "in the run"
            raise Invalid.field("tasks", f"there is no instance {text} {there}.", "unknown_instance")
        else:
            instances.setdefault(name, set()).add(int(match[2]))
    if not names and not instances:
        names = set(plan.graph.tasks)
    return names, {name: chosen for name, chosen in instances.items() if name not in names}


def _only_failed(
    names: set[str], instances: dict[str, set[int]], rows: Iterable[Row], own: Mapping[str, Row], plan: Plan
) -> tuple[set[str], dict[str, set[int]]]:
    """Those that failed; of expanded mapped tasks their failed instances, also while others of them run. Those that
    were never made are no reason to clear all of them: they are made when it goes on."""
    states = {name: EngineState(row.state) for name, row in own.items()}
    bad: dict[str, set[int]] = {}
    for row in rows:
        if row.index >= 0 and row.state in FAILING:
            bad.setdefault(row.name, set()).update([row.index] if row.pk else [])
    found = {name for name in failing(plan.graph, states) if name in names and name not in bad}
    partial = {name: bad[name] for name in names if name in bad}
    for name, chosen in instances.items():
        if chosen & bad.get(name, set()):
            partial[name] = chosen & bad[name]
    return found, partial


def _differences(
    old: Plan, new: Plan, version: WorkflowVersion, run: Run, own: Mapping[str, Row]
) -> dict[str, tuple[str, ...]]:
    before, after = (_definitions(found) for found in (run.version, version))
    both = [name for name in new.graph.order if name in own and name in old.tasks]
    return {
        "added": tuple(name for name in new.graph.order if name not in own),
        "removed": tuple(name for name in own if name not in new.tasks),
        "changed": tuple(name for name in both if before[name] != after[name]),
        "remapped": tuple(name for name in both if old.tasks[name].mapped != new.tasks[name].mapped),
    }


def _definitions(version: WorkflowVersion) -> dict[str, Any]:
    return {task["id"]: task for task in version.definition["tasks"]}
