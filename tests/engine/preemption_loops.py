"""Does eviction ever go round in circles? `python -m tests.engine.preemption_loops --trees 100000 [--seed N]`.

Each tree is random: depth, limits, weights, policies, priorities, past use, with and without fair sharing. It is run
twice, with priority that reaches within queues and with one that reaches across them (engine.order). Nobody comes,
goes or finishes; cycles are run until nothing changes. After every step no queue may hold more than it
ever could, whoever evicts may not yield to its victim, and there must be an end (engine.preemption says why there
is one). Exit status 1 if a tree fails, with its seed.
"""

import argparse
import sys
from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from itertools import product
from random import Random

from engine.admission import Cycle, Outcome, heads
from engine.flavors import Mode, assign
from engine.preemption import yielding
from engine.queues import (
    FairStrategy,
    Flavor,
    Fungibility,
    Holder,
    Part,
    Policy,
    Preference,
    QueueRules,
    ResourceGroup,
    Strategy,
    Workload,
    World,
)
from engine.quota import FlavorResource, Limit, Node, QuotaTree

FLAVORS = ("a", "b")
RESOURCES = ("cpu", "gpu")
FRS: tuple[FlavorResource, ...] = tuple((flavor, resource) for flavor in FLAVORS for resource in RESOURCES)
# Far beyond what any tree was seen to need; a circle never ends.
STEPS_PER_WORKLOAD = 200


def random_limit(chance: Random, *, root: bool) -> Limit:
    """A small limit; at a root without bounds, which mean nothing there."""
    nominal = chance.randint(0, 8)
    if root:
        return Limit(nominal)
    return Limit(
        nominal,
        chance.choice([None, None, 0, chance.randint(1, 8)]),
        chance.choice([None, None, None, chance.randint(0, 8)]),
    )


def random_rules(chance: Random) -> QueueRules:
    """Policies of one queue, mostly those that evict."""
    return QueueRules(
        groups=(ResourceGroup(frozenset(RESOURCES), FLAVORS[: chance.choice([1, 1, 2])]),),
        strategy=chance.choice(list(Strategy)),
        within_queue=chance.choice(
            [Policy.NEVER, Policy.LOWER_PRIORITY, Policy.LOWER_OR_NEWER_EQUAL_PRIORITY, Policy.LOWER_PRIORITY]
        ),
        reclaim=chance.choice([Policy.NEVER, Policy.LOWER_PRIORITY, Policy.ANY, Policy.ANY]),
        borrow=chance.choice([Policy.NEVER, Policy.LOWER_PRIORITY]),
        borrow_threshold=chance.choice([None, None, 1]),
        when_can_borrow=chance.choice(list(Fungibility)),
        when_can_preempt=chance.choice(list(Fungibility)),
        preference=chance.choice(list(Preference)),
    )


def random_world(chance: Random) -> tuple[World, list[Workload]]:
    """A tree of a few cohorts and queues, and more workloads than it can hold."""
    cohorts = chance.randint(1, 3)
    count = cohorts + chance.randint(2, 4)
    nodes, queues = [], []
    for number in range(count):
        parent = chance.randrange(min(number, cohorts)) if number else None
        limits = {fr: random_limit(chance, root=parent is None) for fr in FRS if chance.random() < 0.9}
        nodes.append(Node(number, parent, f"n{number}", limits, chance.choice([0, 0.5, 1, 1, 1, 2])))
        if number >= cohorts:
            queues.append(number)
    past = {queue: {fr: chance.randint(0, 8) for fr in FRS} for queue in queues}
    tree = QuotaTree(nodes, {}, past=past, past_weight=chance.choice([0, 0, 0.5]))
    strategies = chance.choice([tuple(FairStrategy), (FairStrategy.FINAL_SHARE,), (FairStrategy.INITIAL_SHARE,)])
    world = World(
        tree,
        {queue: random_rules(chance) for queue in queues},
        {name: Flavor(name) for name in FLAVORS},
        fair=chance.random() < 0.6,
        strategies=strategies,
    )
    workloads = []
    for uid in range(chance.randint(4, 14)):
        requests = {resource: chance.randint(0, 4) for resource in RESOURCES if chance.random() < 0.7}
        parts = (Part("main", 1, requests or {"cpu": 2}),)
        workloads.append(Workload(uid, chance.choice(queues), chance.randint(0, 2), float(chance.randint(0, 5)), parts))
    return world, workloads


class Circle(Exception):
    """A tree in which something that must never happen did."""


@dataclass
class Run:
    """One tree, run until nothing changes."""

    world: World
    workloads: dict[Hashable, Workload]
    remember: bool = True
    across: bool = False
    pairs: set[tuple[Hashable, Hashable]] = field(default_factory=set)
    parked: set[Hashable] = field(default_factory=set)
    clock: float = 0.0
    evictions: int = 0

    def waiting(self) -> list[Workload]:
        """Who holds nothing and was not set aside."""
        held = {uid for holders in self.world.holders.values() for uid in holders}
        return [workload for uid, workload in self.workloads.items() if uid not in held | self.parked]

    def to_the_end(self) -> int:
        """Cycles until nothing changes any more; raises Circle."""
        most = STEPS_PER_WORKLOAD * len(self.workloads)
        for step in range(most):
            ready = heads(self.waiting())
            if not ready:
                return step
            changed = False
            for outcome in Cycle(self.world, across=self.across).run(ready):
                changed = self.apply(outcome) or changed
            if changed:
                self.parked.clear()
                self.workloads = {uid: replace(item, resume={}) for uid, item in self.workloads.items()}
            self.check()
        raise Circle(f"no end after {most} cycles and {self.evictions} evictions")

    def apply(self, outcome: Outcome) -> bool:
        """Victims leave and whoever they made room for moves in, as one step; whether anything changed."""
        workload = outcome.workload
        if outcome.state == "waiting":
            self.workloads[workload.uid] = replace(workload, resume=outcome.resume)
            if not outcome.resume:
                self.parked.add(workload.uid)
            return False
        if outcome.state == "preempting" and not outcome.victims:
            return False
        for victim in outcome.victims:
            holder = victim.holder
            if holder.uid in self.world.yields.get(workload.uid, frozenset()):
                raise Circle(f"{workload.uid} evicted {holder.uid}, to which it yields")
            self.world.remove(holder)
            self.pairs.add((holder.uid, workload.uid))
            self.evictions += 1
        self.clock += 1
        usage = outcome.assignment.usage
        self.world.add(Holder(workload.uid, workload.queue, workload.priority, workload.submitted, self.clock, usage))
        if outcome.victims and self.remember:
            self.world.yields = yielding(self.pairs)
            if any(uid in whom for uid, whom in self.world.yields.items()):
                raise Circle("somebody yields to itself")
        return True

    def check(self) -> None:
        """Nobody holds more than it ever could, and the books are those of the holders."""
        tree, held = self.world.tree, QuotaTree(self.world.tree.nodes.values(), {})
        for queue, holders in self.world.holders.items():
            for holder in holders.values():
                held.add(queue, holder.usage)
        for node in tree.nodes:
            for fr in FRS:
                if tree.usage(node, fr) != held.usage(node, fr):
                    raise Circle(f"the usage of n{node} is not that of its holders")
                if tree.usage(node, fr) > tree.potential(node, fr):
                    raise Circle(f"n{node} holds more of {fr} than it ever could")


def run_tree(chance: Random, *, remember: bool = True, across: bool = False) -> Run:
    """Make a tree, fill it without regard to whose turn it is, and run it to its end; raises Circle."""
    world, workloads = random_world(chance)
    run = Run(world, {workload.uid: workload for workload in workloads}, remember, across)
    for workload in workloads:
        found = assign(world, workload)
        if found.mode == Mode.FIT and chance.random() < 0.9:
            run.clock += 1
            world.add(
                Holder(workload.uid, workload.queue, workload.priority, workload.submitted, run.clock, found.usage)
            )
    run.to_the_end()
    return run


def main(arguments: list[str] | None = None) -> int:
    """Run many trees; prints how many, how many evicted anybody, and the first that fails."""
    parser = argparse.ArgumentParser(description="Run random quota trees until nothing changes.")
    parser.add_argument("--trees", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, help="number of the first tree")
    parser.add_argument("--forget", action="store_true", help="without the rule that ends circles, to see them")
    options = parser.parse_args(arguments)
    evictions = evicting = circles = 0
    trees = range(options.seed, options.seed + options.trees)
    for seed, across in product(trees, (False, True)):
        try:
            run = run_tree(Random(seed), remember=not options.forget, across=across)
        except Circle as problem:
            circles += 1
            if circles <= 5:
                print(f"tree {seed}{', priority across queues' * across}: {problem}", file=sys.stderr)
            continue
        evictions += run.evictions
        evicting += run.evictions > 0
    print(f"{options.trees} trees run twice, {evicting} times with {evictions} evictions in all, {circles} failed")
    return 1 if circles else 0


if __name__ == "__main__":
    sys.exit(main())
