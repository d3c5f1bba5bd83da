"""What preemption and flavor choice work on: queues with their policies, who waits and who holds quota.

Words as in `engine.quota`. A *workload* waits, a *holder* has been granted its quota and counts as usage until
it has really stopped.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from engine.quota import FlavorResource, QuotaTree


class Policy(StrEnum):
    """Whom a workload may evict, by priority."""

    NEVER = "never"
    LOWER_PRIORITY = "lower_priority"
    LOWER_OR_NEWER_EQUAL_PRIORITY = "lower_or_newer_equal_priority"
    ANY = "any"


class Strategy(StrEnum):
    """Whether a head that cannot start blocks its queue."""

    STRICT_FIFO = "strict_fifo"
    BEST_EFFORT_FIFO = "best_effort_fifo"


class Fungibility(StrEnum):
    """What the search for a flavor does at one that would do, but only by borrowing or evicting."""

    MAY_STOP_SEARCH = "may_stop_search"
    TRY_NEXT_FLAVOR = "try_next_flavor"


class Preference(StrEnum):
    """Which of two flavors is better: the one that borrows less or the one that evicts less."""

    BORROWING_OVER_PREEMPTION = "borrowing_over_preemption"
    PREEMPTION_OVER_BORROWING = "preemption_over_borrowing"


class FairStrategy(StrEnum):
    """When a queue that is not entitled may take from another one: by which of the other's shares."""

    FINAL_SHARE = "less_than_or_equal_to_final_share"
    INITIAL_SHARE = "less_than_initial_share"


@dataclass(frozen=True, slots=True)
class ResourceGroup:
    """Resources that get the same flavor in one part of a workload, and the flavors in the order to try."""

    resources: frozenset[str]
    flavors: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class QueueRules:
    """The policies of one queue. By default nobody is evicted and a head does not block its queue."""

    groups: tuple[ResourceGroup, ...] = ()
    strategy: Strategy = Strategy.BEST_EFFORT_FIFO
    within_queue: Policy = Policy.NEVER
    reclaim: Policy = Policy.NEVER
    borrow: Policy = Policy.NEVER
    borrow_threshold: int | None = None
    when_can_borrow: Fungibility = Fungibility.MAY_STOP_SEARCH
    when_can_preempt: Fungibility = Fungibility.TRY_NEXT_FLAVOR
    preference: Preference = Preference.BORROWING_OVER_PREEMPTION

    def group_of(self, resource: str) -> ResourceGroup | None:
        """The group that the resource is in; None if the queue does not cover it."""
        return next((group for group in self.groups if resource in group.resources), None)


DEFAULT_RULES = QueueRules()


@dataclass(frozen=True, slots=True)
class Flavor:
    """A class of nodes: their labels and taints, and the tolerations that come with the flavor."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: Sequence[Mapping[str, str]] = ()
    tolerations: Sequence[Mapping[str, str]] = ()


@dataclass(frozen=True, slots=True)
class Part:
    """`count` equal members of a workload, or as few as `min_count`; requests are those of one member.

    `affinity` is a list of alternatives, each a list of conditions `{key, operator, values}`.
    """

    name: str
    count: int
    requests: Mapping[str, int]
    min_count: int | None = None
    tolerations: Sequence[Mapping[str, str]] = ()
    selector: Mapping[str, str] = field(default_factory=dict)
    affinity: Sequence[Sequence[Mapping[str, Any]]] = ()


@dataclass(frozen=True, slots=True)
class Workload:
    """Who waits: all parts start together or not at all. `submitted` orders equal priorities, then the uid.

    `resume` tells by (part, resource group) at which flavor the search goes on, where an earlier one stopped.
    """

    uid: Hashable
    queue: int
    priority: int
    submitted: float
    parts: tuple[Part, ...]
    resume: Mapping[tuple[int, int], int] = field(default_factory=dict)


def workload_order(workload: Workload, past_use: float = 0.0) -> tuple[Any, ...]:
    """Inside a queue: less past use of the user where users share by it, higher priority, older, the uid."""
    return (past_use, -workload.priority, workload.submitted, workload.uid)


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds quota since `since`; times are epoch seconds.

    `lost` is the work that would have to be done again: seconds since the last checkpoint, or since the start
    where there is none. A protected holder has not had its minimum run time yet and is nobody's candidate,
    unless it is `evicting`: already told to stop. `past_use` is that of its user, where users share a queue by it.
    """

    uid: Hashable
    queue: int
    priority: int
    submitted: float
    since: float
    usage: Mapping[FlavorResource, int]
    evicting: bool = False
    lost: float = 0.0
    protected: bool = False
    past_use: float = 0.0


def victim_order(holder: Holder, preemptor_queue: int) -> tuple[Any, ...]:
    """Who is taken first: already stopping, of another queue, of a user with more past use, lower priority,
    less lost work, more recently admitted, the uid.
    """
    own = holder.queue == preemptor_queue
    return (not holder.evicting, own, -holder.past_use, holder.priority, holder.lost, -holder.since, holder.uid)


@dataclass(slots=True)
class World:
    """The tree, the queues' rules and who holds what; searches change it and put it back.

    `yields` tells for a workload whom it may not evict: those for whom it was itself evicted, directly or
    through others (engine.preemption says why).
    """

    tree: QuotaTree
    rules: Mapping[int, QueueRules]
    flavors: Mapping[str, Flavor] = field(default_factory=dict)
    fair: bool = True
    strategies: Sequence[FairStrategy] = (FairStrategy.FINAL_SHARE, FairStrategy.INITIAL_SHARE)
    yields: Mapping[Hashable, frozenset[Hashable]] = field(default_factory=dict)
    holders: dict[int, dict[Hashable, Holder]] = field(default_factory=dict)

    @classmethod
    def of(cls, tree: QuotaTree, rules: Mapping[int, QueueRules], holders: Iterable[Holder], **more: Any) -> "World":
        """A world whose tree already counts the usage of the holders."""
        world = cls(tree, rules, **more)
        for holder in holders:
            world.holders.setdefault(holder.queue, {})[holder.uid] = holder
        return world

    def rules_of(self, queue: int) -> QueueRules:
        """The policies of a queue, the default ones where none are set."""
        return self.rules.get(queue, DEFAULT_RULES)

    def active(self, queue: int) -> bool:
        """Whether every flavor that the queue's resource groups name exists."""
        return all(name in self.flavors for group in self.rules_of(queue).groups for name in group.flavors)

    def record(self, victims: Iterable[Holder], preemptor: Hashable) -> None:
        """From now on the victims yield to the preemptor, and with them all who yield to them."""
        whom = self.yields.get(preemptor, frozenset()) | {preemptor}
        for victim in victims:
            below = [uid for uid, above in self.yields.items() if victim.uid in above]
            changed = {uid: self.yields.get(uid, frozenset()) | whom for uid in (victim.uid, *below)}
            self.yields = {**self.yields, **changed}

    def remove(self, holder: Holder) -> None:
        """Take a holder and its usage away."""
        del self.holders[holder.queue][holder.uid]
        self.tree.remove(holder.queue, holder.usage)

    def add(self, holder: Holder) -> None:
        """Bring a holder in, with its usage."""
        self.holders.setdefault(holder.queue, {})[holder.uid] = holder
        self.tree.add(holder.queue, holder.usage)

    def copy(self) -> "World":
        """An independent world with the same configuration."""
        held = {queue: dict(holders) for queue, holders in self.holders.items()}
        return World(self.tree.copy(), self.rules, self.flavors, self.fair, self.strategies, self.yields, held)
