"""The limits over runs of one version, and what its tasks weigh where they compete for places."""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from engine.dag import Graph
from engine.weights import weights
from rmctl.spec.kinds import JOBLESS

# What Airflow gives a task that names nothing.
WEIGHT, RULE = 1, "downstream"
# What a task that waits for its places says of itself (`TaskLimit.asks`).
ASKS = re.compile(r"Waits for (a slot|\d+ slots|its turn)\b")
# The rule that weighs by what tasks have taken.
BY_HISTORY = "critical_path"


@dataclass(frozen=True, slots=True)
class TaskLimit:
    """The limits of a task: `count` of a slot pool, itself over all runs and in one run, its workflow over all runs."""

    pool: str = ""
    count: int = 1
    max_active: int | None = None
    max_active_per_run: int | None = None
    workflow: int | None = None

    def asks(self) -> str:
        """What it waits for, in a sentence."""
        if self.pool:
            return f"Waits for {'a slot' if self.count == 1 else f'{self.count} slots'} of {self.pool}."
        return "Waits for its turn: as many as may run at once do."


def task_limits(definition: Mapping[str, Any]) -> dict[str, TaskLimit]:
    """The limits of every task that has a job and any limit over runs."""
    whole = definition.get("max_active_tasks_all_runs")
    found = {}
    for task in definition["tasks"]:
        slots = task.get("slots", {})
        limit = TaskLimit(
            pool=slots.get("name", ""),
            count=slots.get("count", 1),
            max_active=task.get("max_active"),
            max_active_per_run=task.get("max_active_per_run"),
            workflow=whole,
        )
        if limit != TaskLimit() and task["kind"] not in JOBLESS:
            found[task["id"]] = limit
    return found


@dataclass(frozen=True, slots=True)
class Known:
    """A claim as it stands under the lock of its run; `waits`: its task has not started."""

    held: bool
    waits: bool


def weight_rules(definition: Mapping[str, Any]) -> dict[str, str]:
    """The weight rule of every task."""
    rule = definition.get("weight_rule", RULE)
    return {task["id"]: task.get("weight_rule", rule) for task in definition["tasks"]}


class Weighing:
    """What the tasks of one version weigh. `given`: its author said something about it."""

    def __init__(self, definition: Mapping[str, Any], graph: Graph) -> None:
        tasks: Iterable[Mapping[str, Any]] = definition["tasks"]
        self._graph = graph
        self._own = {task["id"]: task.get("weight", WEIGHT) for task in tasks}
        self._rules = weight_rules(definition)
        self.given = "weight_rule" in definition or any("weight" in t or "weight_rule" in t for t in tasks)
        self.by_history = BY_HISTORY in self._rules.values()

    def weights(self, seconds: Mapping[str, float]) -> dict[str, float]:
        """The weight of each task; `seconds` is what tasks usually take, as far as that is known."""
        return weights(self._graph, self._own, self._rules, seconds)

    @cached_property
    def fixed(self) -> dict[str, float]:
        """The weights without any history."""
        return self.weights({})


class Limiting:
    """The places of one run's tasks during a pass: which ready tasks have theirs, and which ask for them."""

    def __init__(self, limits: Mapping[str, TaskLimit], cached: Collection[str]) -> None:
        self.limits, self._cached = limits, cached
        self.pools: Mapping[str, int] = {}
        self.asked: list[Any] = []
        # Tasks that are ready only because they were given their places.
        self.resumed: set[int] = set()
        # How many more may ask, so that no more wait than could start in their run; None without a limit of it.
        self.room: int | None = None
        self._in_line = 0
        self._known: Mapping[int, Known] = {}

    def concerned(self, rows: Iterable[Any]) -> list[int]:
        """Those of the ready rows that may have a claim."""
        return [row.pk for row in rows if row.name in self.limits and row.pk]

    def choose(self, rows: Iterable[Any], known: Mapping[int, Known], room: int | None) -> list[Any]:
        """Of the ready rows those that go on now."""
        rows = list(rows)
        self._known = known
        if room is not None:
            self.room = max(0, room - self._in_line - len(known.keys() & {row.pk for row in rows}))
            self._in_line += sum(row.pk in known and not known[row.pk].held for row in rows)
        return [row for row in rows if self._goes_on(row)]

    def _goes_on(self, row: Any) -> bool:
        if row.name not in self.limits or self.unknown_pool(row):
            return True
        return self.looks_first(row) or self.admits(row)

    def looks_first(self, row: Any) -> bool:
        """Whether a task looks for an earlier result before it asks for places: with one it needs none. Who is in line
        looks again once it has them."""
        return row.name in self._cached and row.pk not in self._known and row.pk not in self.resumed

    def unknown_pool(self, row: Any) -> str:
        """The slot pool of a task, if there is none of that name."""
        pool = self.limits[row.name].pool
        return "" if pool in self.pools else pool

    def admits(self, row: Any) -> bool:
        """Whether a task has its places; otherwise it asks for them."""
        known = self._known.get(row.pk)
        if known is not None:
            return known.held and known.waits
        if row.pk in self.resumed or self.room == 0:
            return False
        if self.room is not None:
            self.room -= 1
            self._in_line += 1
        self.asked.append(row)
        row.detail, row.changed = self.limits[row.name].asks(), True
        return False
