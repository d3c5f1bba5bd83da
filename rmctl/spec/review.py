"""What of a valid definition can never come to pass: tasks that no run ever reaches, schedules that are over.

How a task may end is followed through the graph with every way that its upstream tasks may end, each on its own: so a
task is called unreachable only if really nothing leads to it, other than people who mark tasks by hand.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from cronsim import CronSim

from .errors import FieldError, field_error
from .kinds import JOBLESS
from .schedule import CONTINUOUS, Every, parts

# How a task may end: succeeded, failed, skipped, or not run because of what failed before it.
S, F, K, U = "succeeded", "failed", "skipped", "upstream_failed"
_NEVER_FAIL = ("empty",)
# Steps in following the ways of branches; beyond them only what no way can reach is found.
MAX_STEPS = 2_000_000

Ends = frozenset[str]
# The sets of tasks directly behind a branch that it can choose.
Choices = Mapping[str, Sequence[frozenset[str]]]


def unreachable(definition: Mapping[str, Any], choices: Choices) -> list[FieldError]:
    """Tasks of a canonical definition that never run, whatever happens before them.

    `choices` are those of the branches of which they are known.
    """
    graph = _Graph(definition)
    runnable = graph.runnable(None, frozenset())
    blocked_by: dict[str, str] = {}
    steps = 0
    for branch, ways in choices.items():
        steps += len(graph.order) * (len(ways) + 1)
        if branch not in graph.tasks or steps > MAX_STEPS:
            continue
        # Besides the ways that it may choose it may not come to choose at all.
        reached = graph.runnable(branch, None).union(*(graph.runnable(branch, way) for way in ways))
        for name in runnable - reached:
            blocked_by.setdefault(name, branch)
    faults = []
    for position, task in enumerate(definition["tasks"]):
        name = task["id"]
        if name in runnable and name not in blocked_by:
            continue
        why = graph.why(task, blocked_by.get(name))
        faults.append(field_error(f"tasks[{position}].trigger_rule", why, "unreachable"))
    return faults


class _Graph:
    def __init__(self, definition: Mapping[str, Any]) -> None:
        self.tasks: dict[str, Mapping[str, Any]] = {task["id"]: task for task in definition["tasks"]}
        self.below: dict[str, list[str]] = {name: [] for name in self.tasks}
        for name, task in self.tasks.items():
            for other in task["upstream"]:
                self.below[other].append(name)
        self.order = self._ordered()
        # Behind these any task may be skipped or not run, whatever its rule says.
        self.loose = self._behind(
            name
            for name, task in self.tasks.items()
            if task.get("setup") or task.get("decides") == "short_circuit" or task["kind"] == "approval"
        )

    def _ordered(self) -> list[str]:
        missing = {name: len(task["upstream"]) for name, task in self.tasks.items()}
        order = [name for name, count in missing.items() if not count]
        for name in order:
            for other in self.below[name]:
                missing[other] -= 1
                if not missing[other]:
                    order.append(other)
        return order

    def _behind(self, names: Any) -> set[str]:
        found: set[str] = set()
        pending = [below for name in names for below in self.below[name]]
        while pending:
            name = pending.pop()
            if name not in found:
                found.add(name)
                pending += self.below[name]
        return found

    def runnable(self, branch: str | None, way: Collection[str] | None) -> set[str]:
        """The tasks that can run when `branch` succeeds and chooses this way, or with the way None does not succeed."""
        out: set[str] = set()
        if branch is not None and way is not None:
            kept = self._behind(way) | set(way)
            out = {name for name in self.below[branch] if name not in kept and "teardown" not in self.tasks[name]}
        ends: dict[str, Ends] = {}
        found = set()
        for name in self.order:
            if name in out:
                ends[name] = frozenset({K})
                continue
            task = self.tasks[name]
            before = {other: ends[other] for other in task["upstream"]}
            runs = _can_run(task, before, self.tasks)
            ends[name] = self._ends(task, before, runs)
            if runs:
                found.add(name)
            if name == branch:
                ends[name] = frozenset({S}) if way is not None else ends[name] - {S} or frozenset({K})
        return found

    def _ends(self, task: Mapping[str, Any], before: Mapping[str, Ends], runs: bool) -> Ends:
        """Every way that a task may end."""
        ends = _own_ends(task) if runs else set()
        if task["id"] in self.loose or any(self.tasks[name].get("decides") == "branch" for name in before):
            ends |= {K, U}
        given = before.values()
        if any(e & {F, U} for e in given):
            ends |= {U, K}
        if any(e & {K, S} for e in given) and task["trigger_rule"] not in ("all_done", "always"):
            ends.add(K)
        return frozenset(ends or {K})

    def why(self, task: Mapping[str, Any], branch: str | None) -> str:
        """In words for the author."""
        rule, name = task["trigger_rule"], task["id"]
        if branch is None:
            return f"Task {name} never runs: what is before it cannot end in a way that {rule} asks for."
        if branch in task["upstream"]:
            return f"Task {name} never runs: the branch {branch} never chooses it."
        hint = ""
        if rule in ("all_success", "none_skipped"):
            hint = " Behind a branch this is usually meant: trigger_rule none_failed_min_one_success."
        return f"Task {name} never runs: whatever the branch {branch} chooses, {rule} is not met.{hint}"


def _own_ends(task: Mapping[str, Any]) -> set[str]:
    """How a task that runs may end."""
    if task["kind"] in _NEVER_FAIL:
        return {S}
    return {S, F} if task["kind"] in JOBLESS and not _soft(task) else {S, F, K}


def _soft(task: Mapping[str, Any]) -> bool:
    return any(isinstance(option, Mapping) and option.get("soft_fail") for option in task.values())


def _can_run(task: Mapping[str, Any], before: Mapping[str, Ends], tasks: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether the trigger rule can be met by some of the ways in which the upstream tasks may end."""
    ends = list(before.values())
    if not ends:
        return True

    def every(*wanted: str) -> bool:
        return all(e & set(wanted) for e in ends)

    def some(*wanted: str) -> bool:
        return any(e & set(wanted) for e in ends)

    match task["trigger_rule"]:
        case "all_success":
            return every(S)
        case "all_failed":
            return every(F, U)
        case "all_skipped":
            return every(K)
        case "one_success":
            return some(S)
        case "one_failed":
            return some(F, U)
        case "one_done":
            return some(S, F)
        case "none_failed":
            return every(S, K)
        case "none_failed_min_one_success":
            return every(S, K) and some(S)
        case "none_skipped":
            return every(S, F, U)
        case "all_done_setup_success":
            setups = [e for name, e in before.items() if tasks[name].get("setup")]
            return not setups or any(S in e for e in setups)
    return True


def schedule_faults(definition: Mapping[str, Any], now: datetime) -> list[FieldError]:
    """A schedule of a canonical definition whose end is before its start, or so long ago that no run would come."""
    schedule, last = definition["schedule"], definition.get("end_date")
    if schedule is None or last is None:
        return []
    zone = ZoneInfo(definition["timezone"])
    end, first = _moment(last, zone), _moment(definition["start_date"], zone)
    if first is not None and end is not None and first > end:
        message = f"The schedule never comes: it ends on {last}, before it starts on {definition['start_date']}."
        return [field_error("end_date", message, "never_comes")]
    if end is None or definition["catchup"] or schedule == CONTINUOUS or end >= _begun(schedule, zone, now):
        return []
    message = f"The schedule never comes: it ended on {last}. Only with catchup it would make the runs of the past."
    return [field_error("end_date", message, "never_comes")]


def _moment(text: str | None, zone: ZoneInfo) -> datetime | None:
    if text is None:
        return None
    parsed = datetime.fromisoformat(text)
    return parsed if parsed.tzinfo is not None else parsed.replace(tzinfo=zone)


def _begun(schedule: str, zone: ZoneInfo, now: datetime) -> datetime:
    """A moment before which no interval begins that would still get a run without catchup: two times ago."""
    earliest = now
    for part in parts(schedule):
        if isinstance(part, Every):
            earliest = min(earliest, now - 2 * timedelta(seconds=part.seconds))
            continue
        past = CronSim(part.expression, now.astimezone(zone), reverse=True)
        times = [next(past, datetime.min.replace(tzinfo=UTC)) for _ in range(2)]
        earliest = min(earliest, times[-1])
    return earliest
