"""What would start a pending job now: single changes of its request or its quota, each tried on the decider itself.

A change is only suggested after `decide` has granted the changed job in the very snapshot in which it stays
pending otherwise, so a suggestion can never disagree with a decision.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import ceil
from typing import Any

from engine.amounts import amount_text, bytes_text
from engine.choices import choices
from engine.cycle import decide
from engine.filters.taints import tolerated
from engine.fleet import WHOLE_CARD, Fleet, Request
from engine.quota import FlavorResource, Node, QuotaTree
from engine.quota import Limit as QuotaLimit
from engine.relaxations import Relaxation, limits, prices, relaxations
from engine.snapshot import Candidate, Snapshot, Verdict, charge_of, totals

# How much is given up, for the order of the suggestions: a constraint counts as much as a part of the request.
# A tenant can tolerate, or name fewer labels, by itself; a lower trust gives up more than a region; quota has to
# be asked for. What shrinks costs its base and the fraction that goes.
COSTS = {
    "tolerations": 0.10,
    "labels": 0.15,
    "gpu_models": 0.20,
    "gpu_memory": 0.25,
    "together": 0.20,
    "apart": 0.20,
    "company": 0.20,
    "stores": 0.15,
    "jurisdictions": 0.40,
    "hardware": 0.25,
    "price": 0.30,
    "time_limit": 0.30,
    "regions": 0.30,
    "trust": 0.40,
    "swap": 0.20,
    "shrink": 0.20,
    "quota": 0.50,
}
# Sizes are cut to what fits, rounded down to these steps.
STEPS = {"cpu": 100, "memory": 1 << 26, "storage": 1 << 26}


@dataclass(frozen=True, slots=True)
class Suggestion:
    """One change after which the job starts now. `field` is the job spec's, or `quota`; costs are 0 to about 1.5.

    `candidate` is the changed job and `quota` the raised nominal amounts (node, fr, new nominal), for whoever wants
    to apply the change to the snapshot.
    """

    field: str
    before: Any
    after: Any
    text: str
    cost: float
    candidate: Candidate
    quota: tuple[tuple[int, FlavorResource, int], ...] = ()

    def apply(self, snapshot: Snapshot) -> Snapshot:
        """The snapshot with this change made."""
        changed = [self.candidate if item.job == self.candidate.job else item for item in snapshot.candidates]
        return replace(snapshot, candidates=changed, tree=_raised(snapshot.tree, self.quota))


def suggestions(snapshot: Snapshot, job: int, *, now: float, limit: int = 1000, most: int = 5) -> list[Suggestion]:
    """Single changes that start the job now, the cheapest first; empty for a job that starts or does not wait.

    `limit` is that of `decide`. Every suggestion that is returned was decided on the whole snapshot.
    """
    verdicts = decide(snapshot, now=now, limit=limit)
    mine = next((verdict for verdict in verdicts if verdict.job == job), None)
    if mine is None or mine.outcome == "grant":
        return []
    candidate = next(item for item in snapshot.candidates if item.job == job)
    search = _Search(snapshot, candidate, verdicts, now, limit)
    found = sorted(search.run(), key=lambda item: (item.cost, item.field, item.text))
    confirmed: list[Suggestion] = []
    for item in found:
        if len(confirmed) < most and _starts(item.apply(snapshot), job, now, limit):
            confirmed.append(item)
    return confirmed


def _starts(snapshot: Snapshot, job: int, now: float, limit: int) -> bool:
    return any(
        verdict.job == job and verdict.outcome == "grant" for verdict in decide(snapshot, now=now, limit=limit)
    )


def _raised(tree: QuotaTree, changes: Sequence[tuple[int, FlavorResource, int]]) -> QuotaTree:
    if not changes:
        return tree
    new = {(node, fr): nominal for node, fr, nominal in changes}
    nodes: list[Node] = []
    usage = {}
    for pk, node in tree.nodes.items():
        limits = dict(node.limits)
        for (owner, fr), nominal in new.items():
            if owner == pk:
                limits[fr] = replace(limits.get(fr, QuotaLimit(0)), nominal=nominal)
        nodes.append(replace(node, limits=limits))
        if not tree.children(pk):
            usage[pk] = {fr: tree.usage(pk, fr) for fr in tree.frs() if tree.usage(pk, fr)}
    return QuotaTree(nodes, usage)


class _Search:
    """The changes of one job, tried in a small world: only what was granted beside it matters to its verdict."""

    def __init__(
        self, snapshot: Snapshot, job: Candidate, verdicts: Sequence[Verdict], now: float, limit: int
    ) -> None:
        granted = {verdict.job for verdict in verdicts if verdict.outcome == "grant"}
        others = [item for item in snapshot.candidates if item.job in granted]
        self.world = replace(snapshot, candidates=[*others, job])
        self.fleet: Fleet = snapshot.fleet
        self.job, self.now, self.limit = job, now, limit

    def run(self) -> Iterator[Suggestion]:
        for item in (*self._constraints(), *self._cards(), *self._quota()):
            if self._try(item):
                yield item
        yield from self._dearer()
        yield from self._sizes()

    # Trying

    def _changed(self, group: int, request: Request | None = None, count: int | None = None) -> Candidate:
        """The job with one group changed; what it is charged changes with it."""
        changed = list(self.job.groups)
        old, members = changed[group]
        changed[group] = (request or old, members if count is None else count)
        before, after = totals(self.job.groups), totals(changed)
        amounts = {
            resource: amount - before.get(resource, 0) + after.get(resource, 0)
            for resource, amount in self.job.amounts.items()
        }
        return replace(self.job, groups=changed, amounts=amounts, equivalence=None)

    def _try(self, suggestion: Suggestion) -> bool:
        return _starts(suggestion.apply(self.world), self.job.job, self.now, self.limit)

    def _where(self, group: int, name: str) -> str:
        return f"groups[{group}].resources.{name}"

    # Hard constraints, one at a time, for all groups of the job

    def _without(self, **constraint: Any) -> Candidate:
        groups = tuple((replace(request, **constraint), count) for request, count in self.job.groups)
        return replace(self.job, groups=groups, equivalence=None)

    def _constraints(self) -> Iterator[Suggestion]:
        first = self.job.groups[0][0]
        for label, values in sorted(first.labels.items()):
            kept = {key: value for key, value in first.labels.items() if key != label}
            yield Suggestion(
                f"intent.require.labels.{label}", list(values), None, f"without {label}={'|'.join(values)}: now",
                COSTS["labels"], self._without(labels=kept),
            )  # fmt: skip
        if first.regions:
            names = sorted(first.regions)
            yield Suggestion(
                "intent.require.regions", names, [], f"without region={'|'.join(names)}: now",
                COSTS["regions"], self._without(regions=frozenset()),
            )  # fmt: skip
        for trust in sorted({int(value) for value in self.fleet.trust if value < first.trust}, reverse=True):
            yield Suggestion(
                "intent.require.trust", first.trust, trust, f"trust {trust} instead of {first.trust}: now",
                COSTS["trust"], self._without(trust=trust),
            )  # fmt: skip
        yield from map(self._relaxed, relaxations(self.job.groups))
        for taint in self._taints(first):
            text = f"{taint['key']}={taint['value']}" if taint.get("value") else taint["key"]
            more = (*first.tolerations, {name: taint[name] for name in ("key", "value", "effect") if taint.get(name)})
            yield Suggestion(
                "intent.require.tolerations", list(first.tolerations), list(more), f"tolerating {text}: now",
                COSTS["tolerations"], self._without(tolerations=more),
            )  # fmt: skip

    def _relaxed(self, one: Relaxation) -> Suggestion:
        groups = tuple((one.change(request), count) for request, count in self.job.groups)
        changed = replace(self.job, groups=groups, equivalence=None)
        return Suggestion(one.field, one.before, one.after, one.text, COSTS[one.kind], changed)

    def _dearer(self) -> Iterator[Suggestion]:
        """The lowest ceiling and the longest time limit with which the job starts, by bisection: a higher or a shorter
        one rules out no node."""
        for found in (prices(self.fleet, self.job.groups), limits(self.fleet, self.job.groups)):
            steps = [self._relaxed(one) for one in found]
            if steps and self._try(steps[-1]):
                yield steps[bisect_left(range(len(steps) - 1), True, key=lambda place: self._try(steps[place]))]

    def _taints(self, request: Request) -> list[dict[str, str]]:
        """The taints of which a node has one that is not tolerated, and no other."""
        found = {}
        for taints in self.fleet.taints:
            missing = [taint for taint in taints if not tolerated(request, [taint])]
            if len(missing) == 1:
                found[tuple(sorted(missing[0].items()))] = missing[0]
        return [found[key] for key in sorted(found)]

    # Other cards

    def _cards(self) -> Iterator[Suggestion]:
        for group, (request, _) in enumerate(self.job.groups):
            if request.gpu_count:
                yield from self._other_cards(group, request)

    def _other_cards(self, group: int, request: Request) -> Iterator[Suggestion]:
        if request.gpu_models:
            names = sorted(request.gpu_models)
            yield Suggestion(
                self._where(group, "gpu.models"), names, [], f"any GPU instead of {' or '.join(names)}: now",
                COSTS["gpu_models"], self._changed(group, replace(request, gpu_models=frozenset())),
            )  # fmt: skip
        sizes = sorted({int(size) for size in self.fleet.gpu_memory if size}, reverse=True)
        needed = request.gpu_memory or self._usual_memory(request)
        for size in sizes:
            if request.gpu_memory and size < request.gpu_memory:
                yield Suggestion(
                    self._where(group, "gpu.memory"), request.gpu_memory, size,
                    f"GPUs of {bytes_text(size)} instead of {bytes_text(request.gpu_memory)}: now",
                    COSTS["gpu_memory"] + 1 - size / request.gpu_memory,
                    self._changed(group, replace(request, gpu_memory=size)),
                )  # fmt: skip
            fewer = ceil(request.gpu_count * needed / size) if needed else 0
            if size > needed and 0 < fewer < request.gpu_count and request.gpu_milli == WHOLE_CARD:
                yield Suggestion(
                    self._where(group, "gpu"), {"count": request.gpu_count, "memory": needed},
                    {"count": fewer, "memory": size},
                    f"{fewer} GPUs of {bytes_text(size)} instead of {request.gpu_count} of {bytes_text(needed)}: now",
                    COSTS["swap"],
                    self._changed(
                        group, replace(request, gpu_count=fewer, gpu_memory=size, gpu_models=frozenset())
                    ),
                )  # fmt: skip

    def _usual_memory(self, request: Request) -> int:
        """The memory of the cards of the models that are asked for, where all of these have the same."""
        codes = [code for code, model in enumerate(self.fleet.models) if model in request.gpu_models]
        sizes = {
            int(size)
            for code, size in zip(self.fleet.gpu_model.tolist(), self.fleet.gpu_memory.tolist(), strict=True)
            if code in codes
        }
        return sizes.pop() if len(sizes) == 1 else 0

    # Less of something

    def _sizes(self) -> Iterator[Suggestion]:
        for group, (request, count) in enumerate(self.job.groups):
            yield from self._less(count - 1, partial(self._fewer, group))
            for name, step in STEPS.items():
                yield from self._less((getattr(request, name) - 1) // step, partial(self._smaller, group, name, step))
            yield from self._less(request.gpu_count - 1, partial(self._smaller, group, "gpu_count", 1))

    def _less(self, most: int, make: Callable[[int], Suggestion]) -> Iterator[Suggestion]:
        """The largest value from 1 to `most` with which the job starts, by bisection: if it fits, so does less."""
        if most < 1 or not self._try(make(1)):
            return
        low, high = 1, most
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self._try(make(middle)) else (low, middle - 1)
        yield make(low)

    def _fewer(self, group: int, count: int) -> Suggestion:
        before = self.job.groups[group][1]
        return Suggestion(
            f"groups[{group}].count", before, count, f"{count} members instead of {before}: now",
            COSTS["shrink"] + 1 - count / before, self._changed(group, count=count),
        )  # fmt: skip

    def _smaller(self, group: int, name: str, step: int, steps: int) -> Suggestion:
        request = self.job.groups[group][0]
        before, value = getattr(request, name), steps * step
        changes: dict[str, Any] = {name: value}
        field, unit = ("gpu.count", WHOLE_CARD) if name == "gpu_count" else (name, 1)
        resource = "gpu" if name == "gpu_count" else name
        text = f"{amount_text(resource, value * unit)} instead of {amount_text(resource, before * unit)}: now"
        return Suggestion(
            self._where(group, field), before, value, text, COSTS["shrink"] + 1 - value / before,
            self._changed(group, replace(request, **changes)),
        )  # fmt: skip

    # More quota

    def _quota(self) -> Iterator[Suggestion]:
        queue, tree, pool = self.job.queue, self.world.tree, self.world.pools.get(self.job.pool)
        if pool is None or queue not in tree:
            return
        after = self._tree_at_its_turn(tree)
        seen: set[tuple[FlavorResource, int]] = set()
        for choice in choices(self.fleet, self.job.groups, pool.choices, pool.split):
            for fr, amount in charge_of(self.job, choice.name, choice.flavors).items():
                limit = tree.nodes[queue].limits.get(fr, QuotaLimit(0))
                missing = amount - after.available(queue, fr)
                if missing <= 0 or (fr, missing) in seen:
                    continue
                seen.add((fr, missing))
                (flavor, resource), nominal = fr, limit.nominal + missing
                yield Suggestion(
                    "quota", {"flavor": flavor, "resource": resource, "nominal": limit.nominal},
                    {"flavor": flavor, "resource": resource, "nominal": nominal},
                    f"{tree.nodes[queue].name}'s quota of {resource} in flavor {flavor} "
                    f"+{amount_text(resource, missing)}: now",
                    COSTS["quota"] + missing / max(1, nominal), self.job, ((queue, fr, nominal),),
                )  # fmt: skip

    def _tree_at_its_turn(self, tree: QuotaTree) -> QuotaTree:
        """Usage once everything that is granted beside the job is charged."""
        after = tree.copy()
        by_job = {item.job: item for item in self.world.candidates}
        for verdict in decide(self.world, now=self.now, limit=self.limit):
            if verdict.outcome == "grant" and verdict.flavor is not None:
                other = by_job[verdict.job].granted(verdict.members)
                after.add(other.queue, charge_of(other, verdict.flavor, verdict.flavors))
        return after
