"""Which flavor each part of a workload gets: what matches, what fits, and where the search stops.

Rules as in Kueue's flavor fungibility. Resources of one group in one part get the same flavor; parts of one
workload that come earlier count as usage.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple, TypeVar

from engine.preemption import Demand, find_victims, may_preempt_while_borrowing
from engine.queues import Flavor, Fungibility, Part, Preference, QueueRules, ResourceGroup, Workload, World
from engine.quota import FlavorResource
from engine.reasons import Reason, gravest, mildest

# Counts as a resource: the members of a part.
PODS = "pods"


class Mode(IntEnum):
    """How well an amount fits, from worst to best.

    With evictions: nobody could be evicted, somebody in the own queue has to go, or others' workloads only.
    """

    NO_FIT = 0
    NO_CANDIDATES = 1
    PREEMPT = 2
    RECLAIM = 3
    FIT = 4


class Level(NamedTuple):
    """A mode, and how far up the tree is borrowed."""

    mode: Mode
    borrowing: int


# What evictions could achieve for one (flavor, resource) and amount, and the borrowing level after them.
Probe = Callable[[FlavorResource, int], Level]
Option = TypeVar("Option")


@dataclass(frozen=True, slots=True)
class PartAssignment:
    """One part with its count, the flavor of each resource and the totals it is charged."""

    name: str
    count: int
    flavors: Mapping[str, str]
    usage: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Assignment:
    """Flavors for a whole workload. `mode` is FIT, PREEMPT (needs evictions) or NO_FIT (see `reason`).

    `resume` is where the search goes on next time, by (part, resource group); empty when all was tried.
    """

    mode: Mode
    parts: tuple[PartAssignment, ...]
    usage: Mapping[FlavorResource, int]
    contested: frozenset[FlavorResource]
    borrowing: int
    reason: Reason | None
    resume: Mapping[tuple[int, int], int]

    def demand(self, workload: Workload) -> Demand:
        """What victims are searched for."""
        return Demand(workload.uid, workload.queue, workload.priority, workload.submitted, self.usage, self.contested)


# Matching


def tolerated(taint: Mapping[str, str], tolerations: Iterable[Mapping[str, str]]) -> bool:
    """Whether one of the tolerations covers the taint; an empty key with `Exists` covers all."""
    for toleration in tolerations:
        if toleration.get("effect") not in (None, "", taint["effect"]):
            continue
        key, operator = toleration.get("key", ""), toleration.get("operator", "Equal")
        if operator == "Exists" and key in ("", taint["key"]):
            return True
        if operator == "Equal" and key == taint["key"] and toleration.get("value", "") == taint.get("value", ""):
            return True
    return False


def _meets(condition: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    has, operator = labels.get(condition["key"]), condition["operator"]
    if operator == "In":
        return bool(has in condition["values"])
    if operator == "NotIn":
        return bool(has not in condition["values"])
    return has is not None


def matches(flavor: Flavor, part: Part) -> bool:
    """Whether a part may use the flavor; selector and affinity count only on label keys that it defines."""
    accepted = [*part.tolerations, *flavor.tolerations]
    if any(
        taint["effect"] in ("NoSchedule", "NoExecute") and not tolerated(taint, accepted) for taint in flavor.taints
    ):
        return False
    if any(flavor.labels.get(key) != value for key, value in part.selector.items() if key in flavor.labels):
        return False
    if not part.affinity:
        return True
    return any(
        all(_meets(condition, flavor.labels) for condition in alternative if condition["key"] in flavor.labels)
        for alternative in part.affinity
    )


# How well it fits


def level_of(world: World, queue: int, fr: FlavorResource, amount: int, probe: Probe) -> tuple[Level, Reason | None]:
    """How an amount of one flavor and resource fits a queue, and the reason if it does not fit now."""
    tree, rules = world.tree, world.rules_of(queue)
    if amount > tree.potential(queue, fr):
        return Level(Mode.NO_FIT, 0), Reason.EXCEEDS_MAX_QUOTA
    borrowing, below_root = tree.borrowing_level(queue, fr, amount)
    if amount <= tree.available(queue, fr):
        return Level(Mode.FIT, borrowing), None
    if amount <= tree.subtree(queue, fr) or below_root or may_preempt_while_borrowing(world, rules):
        return probe(fr, amount), Reason.WAITING_FOR_QUOTA
    return Level(Mode.NO_FIT, borrowing), Reason.WAITING_FOR_QUOTA


def simulate(world: World, workload: Workload) -> Probe:
    """The probe that searches victims for one amount alone."""

    def probe(fr: FlavorResource, amount: int) -> Level:
        demand = Demand(
            workload.uid, workload.queue, workload.priority, workload.submitted, {fr: amount}, frozenset({fr})
        )
        victims = [victim.holder for victim in find_victims(world, demand)]
        for holder in victims:
            world.remove(holder)
        borrowing, _ = world.tree.borrowing_level(workload.queue, fr, amount)
        for holder in victims:
            world.add(holder)
        if not victims:
            return Level(Mode.NO_CANDIDATES, borrowing)
        own = any(holder.queue == workload.queue for holder in victims)
        return Level(Mode.PREEMPT if own else Mode.RECLAIM, borrowing)

    return probe


# Which is better, and where the search stops


def better(one: Level, other: Level, rules: QueueRules) -> bool:
    """Whether one flavor is to be preferred over another."""
    least = min(one.mode, other.mode)
    if least <= Mode.NO_CANDIDATES and one.mode != other.mode:
        return one.mode > other.mode
    if least == Mode.NO_FIT:
        return False
    if rules.preference == Preference.PREEMPTION_OVER_BORROWING:
        return (-one.borrowing, one.mode) > (-other.borrowing, other.mode)
    return (one.mode, -one.borrowing) > (other.mode, -other.borrowing)


def stops(level: Level, rules: QueueRules) -> bool:
    """Whether no further flavor is tried."""
    if level.mode <= Mode.NO_CANDIDATES:
        return False
    if level.mode != Mode.FIT and rules.when_can_preempt == Fungibility.TRY_NEXT_FLAVOR:
        return False
    return level.borrowing == 0 or rules.when_can_borrow != Fungibility.TRY_NEXT_FLAVOR


def choose(options: Iterable[tuple[Option, Level]], rules: QueueRules) -> tuple[Option | None, Level, int]:
    """The first option that stops the search, otherwise the best; its level, and how many were looked at.

    Nothing that does not fit at all is chosen. Options after the one that stops are not evaluated.
    """
    chosen: Option | None = None
    best, looked_at = Level(Mode.NO_FIT, 0), 0
    for option, level in options:
        looked_at += 1
        if stops(level, rules):
            return option, level, looked_at
        if better(level, best, rules):
            chosen, best = option, level
    return chosen, best, looked_at


# Whole workloads


class _Search:
    """One pass over the parts and resource groups of a workload."""

    def __init__(self, world: World, workload: Workload, probe: Probe) -> None:
        self.world, self.workload, self.probe = world, workload, probe
        self.rules = world.rules_of(workload.queue)
        self.usage: dict[FlavorResource, int] = {}
        self.contested: set[FlavorResource] = set()
        self.resume: dict[tuple[int, int], int] = {}
        self.borrowing = 0

    def run(self, counts: Sequence[int]) -> Assignment:
        parts: list[PartAssignment] = []
        reasons: list[Reason] = []
        needs_victims = False
        for index, (part, count) in enumerate(zip(self.workload.parts, counts, strict=True)):
            needs = {resource: amount * count for resource, amount in part.requests.items()}
            if self.rules.group_of(PODS) is not None:
                needs[PODS] = count
            flavors: dict[str, str] = {}
            for group, wanted in self.grouped(needs):
                chosen, reason = self.assign_group(index, part, group, wanted)
                if reason is not None:
                    reasons.append(reason)
                if chosen is None:
                    return self.result(Mode.NO_FIT, (), gravest(reasons))
                needs_victims = needs_victims or reason is not None
                flavors |= dict.fromkeys(wanted, chosen)
            used = {resource: needs[resource] for resource in flavors}
            for resource, amount in used.items():
                fr = (flavors[resource], resource)
                self.usage[fr] = self.usage.get(fr, 0) + amount
            parts.append(PartAssignment(part.name, count, flavors, used))
        mode = Mode.PREEMPT if needs_victims else Mode.FIT
        return self.result(mode, tuple(parts), gravest(reasons) if reasons else None)

    def result(self, mode: Mode, parts: tuple[PartAssignment, ...], reason: Reason | None) -> Assignment:
        return Assignment(mode, parts, self.usage, frozenset(self.contested), self.borrowing, reason, self.resume)

    def grouped(self, needs: Mapping[str, int]) -> Iterable[tuple[ResourceGroup | None, dict[str, int]]]:
        """What is needed by resource group; None for what the queue does not cover, if it is asked for."""
        covered: set[str] = set()
        for group in self.rules.groups:
            wanted = {resource: amount for resource, amount in needs.items() if resource in group.resources}
            covered |= wanted.keys()
            if wanted:
                yield group, wanted
        if any(amount for resource, amount in needs.items() if resource not in covered):
            yield None, {}

    def assign_group(
        self, index: int, part: Part, group: ResourceGroup | None, wanted: Mapping[str, int]
    ) -> tuple[str | None, Reason | None]:
        """The flavor for one resource group of one part (None if there is none), and why not at once."""
        if group is None:
            return None, Reason.NO_FLAVOR
        position = self.rules.groups.index(group)
        start = self.workload.resume.get((index, position), 0)
        reasons: list[Reason] = []

        def options() -> Iterable[tuple[tuple[str, dict[str, Level]], Level]]:
            for name in group.flavors[start:]:
                flavor = self.world.flavors.get(name)
                levels: dict[str, Level] = {}
                worst = Level(Mode.NO_FIT, 0)
                if flavor is None or not matches(flavor, part):
                    reasons.append(Reason.NO_FLAVOR)
                else:
                    worst = self.worst(name, wanted, levels, reasons)
                yield (name, levels), worst

        chosen, _, looked_at = choose(options(), self.rules)
        if start + looked_at < len(group.flavors):
            self.resume[index, position] = start + looked_at
        if chosen is None:
            return None, mildest(reasons)
        name, levels = chosen
        self.borrowing = max(self.borrowing, *(each.borrowing for each in levels.values()))
        contested = {(name, resource) for resource, each in levels.items() if each.mode != Mode.FIT}
        self.contested |= contested
        return name, Reason.WAITING_FOR_QUOTA if contested else None

    def worst(self, flavor: str, wanted: Mapping[str, int], levels: dict[str, Level], reasons: list[Reason]) -> Level:
        """The level of a flavor is the worst over its resources; collects each one's and the gravest reason."""
        worst, found = Level(Mode.FIT, 0), []
        for resource, amount in wanted.items():
            fr = (flavor, resource)
            total = amount + self.usage.get(fr, 0)
            level, reason = level_of(self.world, self.workload.queue, fr, total, self.probe)
            if reason is not None:
                found.append(reason)
            if better(worst, level, self.rules):
                worst = level
            levels[resource] = level
            if level.mode == Mode.NO_FIT:
                break
        if found:
            reasons.append(gravest(found))
        return worst


def assign(
    world: World, workload: Workload, counts: Sequence[int] | None = None, probe: Probe | None = None
) -> Assignment:
    """Choose flavors for all parts, by default at full count; `probe` replaces the search for victims."""
    full = [part.count for part in workload.parts]
    return _Search(world, workload, probe or simulate(world, workload)).run(full if counts is None else counts)


def reduced(
    counts: Sequence[int], minimums: Sequence[int | None], fits: Callable[[list[int]], Option | None]
) -> Option | None:
    """Partial admission: what `fits` says of the largest counts for which it says something.

    With slack d_i = count_i - min_i and D their sum, step k from 0 to D stands for
    `count_i - floor(d_i * k / D)`; the smallest step that fits is found by bisection. None without slack or if
    even the minimum does not fit.
    """
    slack = [0 if minimum is None else max(0, count - minimum) for count, minimum in zip(counts, minimums, strict=True)]
    total = sum(slack)
    if total == 0:
        return None
    best: Option | None = None
    low, high = 0, total + 1
    while low < high:
        step = (low + high) // 2
        found = fits([count - each * step // total for count, each in zip(counts, slack, strict=True)])
        if found is None:
            low = step + 1
        else:
            best, high = found, step
    return best
