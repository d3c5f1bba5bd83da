"""Quota in a tree: who may use how much, who borrows from whom, and why something does not fit.

Words: a *queue* is a leaf that jobs are charged to, a *cohort* an inner node, *fr* a (flavor, resource) pair.
Every node may have a nominal amount per fr; below a parent it may borrow up to its borrowing limit above its
subtree's quota, and it keeps for itself what lies above its lending limit. Unset limits do not bound.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import inf
from typing import NamedTuple

from engine.amounts import amount_text

FlavorResource = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Limit:
    """Quota of one fr at one node; None means without limit."""

    nominal: int
    borrowing_limit: int | None = None
    lending_limit: int | None = None


@dataclass(frozen=True, slots=True)
class Node:
    """One node of the tree as configured."""

    id: int
    parent: int | None
    name: str
    limits: Mapping[FlavorResource, Limit]
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Shortage:
    """Why an amount does not fit: the node and the limit that bind first.

    `limit` is `not covered`, `nominal`, `borrowing limit` or `cohort`.
    """

    fr: FlavorResource
    requested: int
    available: int
    potential: int
    limiting: str
    limit: str

    def text(self) -> str:
        """One sentence for people."""
        flavor, resource = self.fr
        asked = amount_text(resource, self.requested)
        if self.limit == "not covered":
            return f"{self.limiting} has no quota for {resource} of flavor {flavor}; {asked} requested."
        have = amount_text(resource, self.available)
        most = amount_text(resource, self.potential)
        what = {
            "nominal": f"the nominal quota of {self.limiting}",
            "borrowing limit": f"the borrowing limit of {self.limiting}",
            "cohort": f"what cohort {self.limiting} has left",
        }[self.limit]
        if self.requested > self.potential:
            what = f"the quota of cohort {self.limiting}" if self.limit == "cohort" else what
            return f"{asked} of flavor {flavor} requested, but {what} allows at most {most}."
        return f"{asked} of flavor {flavor} requested, {have} available (at most {most}): bounded by {what}."


class Share(NamedTuple):
    """Fair share of a node: 0 borrows nothing; `weighted` is infinite for a borrower of weight 0."""

    weighted: float
    unweighted: float
    dominant: str | None

    def key(self) -> tuple[float, float]:
        """Smaller has borrowed less for its weight; two infinities compare by what they borrow."""
        return (self.weighted, self.unweighted if self.weighted == inf else 0.0)


NOTHING_BORROWED = Share(0.0, 0.0, None)
NO_AMOUNTS: Mapping[str, int] = {}


class _Held(NamedTuple):
    """What a node uses, and what of it is above its subtree's quota, by resource over all flavors."""

    used: Mapping[str, int]
    borrowed: Mapping[str, int]


def _held(usage: Mapping[FlavorResource, int], subtree: Mapping[FlavorResource, int]) -> _Held:
    used: dict[str, int] = {}
    borrowed: dict[str, int] = {}
    for fr, amount in usage.items():
        resource = fr[1]
        used[resource] = used.get(resource, 0) + amount
        over = amount - subtree.get(fr, 0)
        if over > 0:
            borrowed[resource] = borrowed.get(resource, 0) + over
    return _Held(used, borrowed)


def _paths(parents: Mapping[int, int | None], names: Mapping[int, str]) -> list[int]:
    """Node ids with every parent before its children; raises ValueError naming a cycle."""
    order: list[int] = []
    done: set[int] = set()
    for start in parents:
        path: list[int] = []
        on_path: set[int] = set()
        current: int | None = start
        while current is not None and current not in done:
            if current in on_path:
                loop = [*path[path.index(current) :], current]
                text = " → ".join(names[node] for node in loop)
                raise ValueError(f"the quota tree has a cycle: {text}; a node cannot be below itself")
            path.append(current)
            on_path.add(current)
            current = parents[current]
        order.extend(reversed(path))
        done.update(path)
    return order


class QuotaTree:
    """The tree with its usage. Queries, `add` and `remove` are O(depth)."""

    __slots__ = (
        "_bound", "_children", "_frs", "_heights", "_held", "_kept", "_limits", "_nodes", "_order", "_own", "_parent",
        "_past", "_past_held", "_past_weight", "_paths", "_pools", "_potential", "_potentials", "_subtree", "_usage",
        "_ways_up",
    )  # fmt: skip

    def __init__(
        self,
        nodes: Iterable[Node],
        usage: Mapping[int, Mapping[FlavorResource, int]],
        *,
        past: Mapping[int, Mapping[FlavorResource, int]] | None = None,
        past_weight: float = 0.0,
    ) -> None:
        """Build from configured nodes and the usage charged to each node (normally the leaves).

        `past` is the decayed average usage of the leaves (engine.history), which counts in shares with
        `past_weight` (from 0, not at all, to below 1; the rest is the present's). Raises ValueError for a repeated id,
        an unknown parent, a cycle, a negative amount or weight, or usage of an unknown node.
        """
        if not 0 <= past_weight < 1:
            raise ValueError(f"past usage has the weight {past_weight}; it is from 0 to below 1")
        self._nodes: dict[int, Node] = {}
        for node in nodes:
            if node.id in self._nodes:
                raise ValueError(f"quota node {node.id} ({node.name}) is there twice")
            self._nodes[node.id] = node
            _check(node)
        self._parent = {node.id: node.parent for node in self._nodes.values()}
        for node in self._nodes.values():
            if node.parent is not None and node.parent not in self._nodes:
                raise ValueError(f"quota node {node.name} has the unknown parent {node.parent}")
        self._order = _paths(self._parent, {node.id: node.name for node in self._nodes.values()})
        self._children: dict[int, list[int]] = {node_id: [] for node_id in self._nodes}
        for node in self._nodes.values():
            if node.parent is not None:
                self._children[node.parent].append(node.id)
        self._limits = {node.id: dict(node.limits) for node in self._nodes.values()}
        self._frs = sorted({fr for node in self._nodes.values() for fr in node.limits})
        self._subtree: dict[int, dict[FlavorResource, int]] = {}
        self._kept: dict[int, dict[FlavorResource, int]] = {}
        self._potential: dict[int, dict[FlavorResource, int]] = {}
        self._bound: dict[int, dict[FlavorResource, int]] = {}
        # Made when first asked for: in a deep tree all of them would be quadratic.
        self._paths: dict[int, tuple[int, ...]] = {}
        self._ways_up: dict[int, tuple[int, ...]] = {}
        self._heights: dict[int, int] = {}
        self._potentials: dict[int, dict[str, dict[str, int]]] = {}
        self._pools: dict[tuple[bool, int], list[tuple[str, int]]] = {}
        self._configure()
        # Sums over flavors, made when first asked for and dropped when the usage changes.
        self._held: dict[int, _Held] = {}
        self._past_held: dict[int, _Held] = {}
        self._usage: dict[int, dict[FlavorResource, int]] = {node_id: {} for node_id in self._nodes}
        # Nodes whose usage is this tree's alone; that of others is shared with copies until it changes.
        self._own = set(self._nodes)
        for node_id, amounts in usage.items():
            if node_id not in self._nodes:
                raise ValueError(f"usage of the unknown quota node {node_id}")
            self.add(node_id, amounts)
        self._past_weight = past_weight if past else 0.0
        self._past: dict[int, dict[FlavorResource, int]] = {node_id: {} for node_id in self._nodes}
        for node_id, amounts in (past or {}).items():
            if node_id in self._nodes:
                self._charge(self._past, node_id, amounts)

    def _configure(self) -> None:
        """Subtree and kept amounts from the leaves up, potentials from the roots down; absent means 0."""
        for node_id in reversed(self._order):
            limits = self._limits[node_id]
            subtree = {fr: limit.nominal for fr, limit in limits.items()}
            for child in self._children[node_id]:
                kept = self._kept[child]
                for fr, amount in self._subtree[child].items():
                    subtree[fr] = subtree.get(fr, 0) + amount - kept.get(fr, 0)
            self._subtree[node_id] = subtree
            if self._parent[node_id] is None:
                self._kept[node_id] = {}
            else:
                self._kept[node_id] = {
                    fr: max(0, subtree.get(fr, 0) - limit.lending_limit)
                    for fr, limit in limits.items()
                    if limit.lending_limit is not None
                }
            # The most that may come from the parent: what the node lends itself, and what it may borrow.
            self._bound[node_id] = {
                fr: subtree.get(fr, 0) - self._kept[node_id].get(fr, 0) + limit.borrowing_limit
                for fr, limit in limits.items()
                if limit.borrowing_limit is not None
            }
        for node_id in self._order:
            parent = self._parent[node_id]
            if parent is None:
                self._potential[node_id] = dict(self._subtree[node_id])
                continue
            mine = dict(self._potential[parent])
            for fr, amount in self._kept[node_id].items():
                mine[fr] = mine.get(fr, 0) + amount
            for fr, limit in self._limits[node_id].items():
                if limit.borrowing_limit is not None:
                    mine[fr] = min(mine.get(fr, 0), self._subtree[node_id].get(fr, 0) + limit.borrowing_limit)
            self._potential[node_id] = mine

    # What is configured

    def __contains__(self, node: int) -> bool:
        return node in self._nodes

    @property
    def nodes(self) -> Mapping[int, Node]:
        """The configured nodes by id."""
        return self._nodes

    def children(self, node: int) -> tuple[int, ...]:
        """Ids of the nodes directly below."""
        return tuple(self._children[node])

    def frs(self) -> list[FlavorResource]:
        """Every (flavor, resource) that any node has quota for, sorted."""
        return list(self._frs)

    def parent(self, node: int) -> int | None:
        """The node above; None for a root."""
        return self._parent[node]

    def path(self, node: int) -> tuple[int, ...]:
        """The node and everything above it, the root last."""
        known = self._ways_up.get(node)
        if known is None:
            known = self._ways_up[node] = tuple(reversed(self._from_root(node)))
        return known

    def height(self, node: int) -> int:
        """Steps to the deepest leaf below; 0 for a leaf."""
        heights = self._heights
        if not heights:
            for current in reversed(self._order):
                heights[current] = max((heights[child] + 1 for child in self._children[current]), default=0)
        return heights[node]

    def covers(self, node: int, fr: FlavorResource) -> bool:
        """Whether the node itself has a limit for the fr; without one the flavor does not serve it."""
        return fr in self._limits[node]

    def subtree(self, node: int, fr: FlavorResource) -> int:
        """The node's own quota and everything its children lend."""
        return self._subtree[node].get(fr, 0)

    def kept(self, node: int, fr: FlavorResource) -> int:
        """The part of the subtree's quota that the parent never sees."""
        return self._kept[node].get(fr, 0)

    def potential(self, node: int, fr: FlavorResource) -> int:
        """What the node could use if nothing were in use."""
        return self._potential[node].get(fr, 0)

    def potentials(self, node: int) -> Mapping[str, Mapping[str, int]]:
        """The same by flavor and resource, of everything that the node has a limit for."""
        found = self._potentials.get(node)
        if found is None:
            found = self._potentials[node] = {}
            for flavor, resource in self._limits[node]:
                found.setdefault(flavor, {})[resource] = self.potential(node, (flavor, resource))
        return found

    # What is in use

    def usage(self, node: int, fr: FlavorResource) -> int:
        """A queue's whole usage; of a cohort, what its children use beyond what they keep."""
        return self._usage[node].get(fr, 0)

    def past(self, node: int, fr: FlavorResource) -> int:
        """The decayed average of what the node used."""
        return self._past[node].get(fr, 0)

    def borrowing(self, node: int, fr: FlavorResource) -> int:
        """How much the usage exceeds the subtree's quota; 0 at a root, which has nobody to borrow from."""
        if self._parent[node] is None:
            return 0
        return max(0, self.usage(node, fr) - self.subtree(node, fr))

    def available(self, node: int, fr: FlavorResource) -> int:
        """What the node can still take now. A queue's is never negative; a cohort's may be a debt."""
        amount = self._available(node, fr)
        return amount if self._children[node] else max(0, amount)

    def _available(self, node: int, fr: FlavorResource) -> int:
        path = self._from_root(node)
        root = path[0]
        amount = self._subtree[root].get(fr, 0) - self._usage[root].get(fr, 0)
        for current in path[1:]:
            over = self._usage[current].get(fr, 0) - self._kept[current].get(fr, 0)
            bound = self._bound[current].get(fr)
            if bound is not None:
                amount = min(amount, bound - over if over > 0 else bound)
            if over < 0:
                amount -= over
        return amount

    def room(self, node: int) -> dict[FlavorResource, int]:
        """`available` of everything that the node has a limit for, at once."""
        path, limits = self._from_root(node), self._limits[node]
        root = path[0]
        subtree, usage = self._subtree[root], self._usage[root]
        found = {fr: subtree.get(fr, 0) - usage.get(fr, 0) for fr in limits}
        for current in path[1:]:
            usage, kept, bounds = self._usage[current], self._kept[current], self._bound[current]
            if not kept and not bounds:
                continue  # What is used here counts above, too, all of it.
            for fr in limits:
                over = usage.get(fr, 0) - kept.get(fr, 0)
                bound = bounds.get(fr)
                if bound is not None:
                    found[fr] = min(found[fr], bound - over if over > 0 else bound)
                if over < 0:
                    found[fr] -= over
        return found if self._children[node] else {fr: amount if amount > 0 else 0 for fr, amount in found.items()}

    def _from_root(self, node: int) -> tuple[int, ...]:
        """The root and everything from there down to the node."""
        known = self._paths.get(node)
        if known is None:
            path = [node]
            while (parent := self._parent[path[-1]]) is not None:
                path.append(parent)
            known = self._paths[node] = tuple(reversed(path))
        return known

    def free_kept(self, node: int, fr: FlavorResource) -> int:
        """What is free of the part that the parent never sees."""
        return max(0, self.kept(node, fr) - self.usage(node, fr))

    def beyond_kept(self, node: int, amounts: Mapping[FlavorResource, int]) -> Mapping[FlavorResource, int]:
        """What the parent would see of amounts added here."""
        if not self._kept[node]:
            return amounts
        return {fr: max(0, amount - self.free_kept(node, fr)) for fr, amount in amounts.items()}

    def exceeds(self, node: int, fr: FlavorResource, extra: int = 0) -> bool:
        """Whether the usage, with `extra` added, is above the subtree's quota."""
        return self.usage(node, fr) + extra > self.subtree(node, fr)

    def exceeds_any(self, node: int, extra: Mapping[FlavorResource, int]) -> bool:
        """Whether any usage, with `extra` added, is above the subtree's quota; amounts of 0 do not count."""
        usage, subtree = self._usage[node], self._subtree[node]
        for fr, amount in extra.items():  # noqa: SIM110 - `any` costs twice as much in this hot place
            if amount and usage.get(fr, 0) + amount > subtree.get(fr, 0):
                return True
        return False

    def borrowing_level(self, queue: int, fr: FlavorResource, amount: int) -> tuple[int, bool]:
        """How far up the tree a request reaches, and whether that ends below the root of a tree.

        0 within the queue's own quota or without a parent; otherwise the height of the lowest ancestor whose
        quota covers what is asked beyond that which is kept and free below it, and of the root if none does.
        """
        path = self.path(queue)
        if len(path) == 1 or not self.exceeds(queue, fr, amount):
            return 0, len(path) > 1
        rest = amount - self.free_kept(queue, fr)
        for ancestor in path[1:]:
            if not self.exceeds(ancestor, fr, rest):
                return self.height(ancestor), self._parent[ancestor] is not None
            rest -= self.free_kept(ancestor, fr)
        return self.height(path[-1]), False

    def add(self, node: int, amounts: Mapping[FlavorResource, int]) -> None:
        """Charge amounts to a node and, beyond what it keeps, to those above; ValueError if negative."""
        _not_negative(amounts)
        self._unshare(node)
        self._charge(self._usage, node, amounts)

    def _charge(
        self, ledger: dict[int, dict[FlavorResource, int]], node: int, amounts: Mapping[FlavorResource, int]
    ) -> None:
        steps = [(ledger[current], self._kept[current]) for current in self.path(node)]
        for fr, amount in amounts.items():
            if amount <= 0:
                continue
            for usage, kept in steps:
                used = usage.get(fr, 0)
                usage[fr] = used + amount
                if kept and (free := kept.get(fr, 0) - used) > 0:
                    amount -= free
                    if amount <= 0:
                        break

    def remove(self, node: int, amounts: Mapping[FlavorResource, int]) -> None:
        """Give amounts back, what the parent sees of them first; ValueError if not that much is in use."""
        _not_negative(amounts)
        mine = self._usage[node]
        for fr, amount in amounts.items():
            if amount > mine.get(fr, 0):
                name, used = self._nodes[node].name, mine.get(fr, 0)
                raise ValueError(f"{name} uses {used} of {fr[0]}/{fr[1]}; {amount} cannot be given back")
        self._unshare(node)
        steps = [(self._usage[current], self._kept[current]) for current in self.path(node)]
        for fr, amount in amounts.items():
            if amount <= 0:
                continue
            for usage, kept in steps:
                used = usage.get(fr, 0)
                usage[fr] = used - amount
                if kept:
                    amount = min(amount, used - kept.get(fr, 0))
                    if amount <= 0:
                        break

    def _unshare(self, node: int) -> None:
        """The usage of a node and of those above is about to change: copies go on with what it was."""
        for current in self.path(node):
            self._held.pop(current, None)
            if current not in self._own:
                self._own.add(current)
                self._usage[current] = dict(self._usage[current])

    # Questions

    def fits(self, node: int, amounts: Mapping[FlavorResource, int]) -> Shortage | None:
        """None if all amounts fit now; otherwise the first that does not, in the order given."""
        for fr, amount in amounts.items():
            if amount > 0 and (not self.covers(node, fr) or amount > self._available(node, fr)):
                return self._shortage(node, fr, amount, empty=False)
        return None

    def ever_fits(self, node: int, amounts: Mapping[FlavorResource, int]) -> Shortage | None:
        """None if all amounts would fit with nothing in use; otherwise the first that would not."""
        for fr, amount in amounts.items():
            if amount > 0 and (not self.covers(node, fr) or amount > self.potential(node, fr)):
                return self._shortage(node, fr, amount, empty=True)
        return None

    def _shortage(self, node: int, fr: FlavorResource, amount: int, *, empty: bool) -> Shortage:
        name, limit = self._binding(node, fr, empty=empty)
        return Shortage(fr, amount, self.available(node, fr), self.potential(node, fr), name, limit)

    def _binding(self, node: int, fr: FlavorResource, *, empty: bool) -> tuple[str, str]:
        """Name of the node, and which of its limits, that bounds what `node` can take."""
        if not self.covers(node, fr):
            return self._nodes[node].name, "not covered"
        current = node
        while (parent := self._parent[current]) is not None:
            limit = self._limits[current].get(fr)
            if limit is not None and limit.borrowing_limit is not None:
                bound = self._bound[current][fr]
                above = self.potential(parent, fr)
                if not empty:
                    bound -= max(0, self.usage(current, fr) - self.kept(current, fr))
                    above = self._available(parent, fr)
                if bound <= above:
                    return self._nodes[current].name, "borrowing limit"
            current = parent
        return self._nodes[current].name, "nominal" if current == node else "cohort"

    def share(self, node: int, extra: Mapping[FlavorResource, int] | None = None) -> Share:
        """Fair share of a node below a parent, with `extra` added to its usage first where it has quota.

        Per resource, what is borrowed over all flavors in thousandths of what the parent could ever give; the
        largest counts, divided by the weight. Roots and nodes that borrow nothing have share 0. With past
        usage, `(1 - w) * borrowed now + w * borrowed in the past` is what is borrowed.
        """
        parent = self._parent[node]
        if parent is None:
            return NOTHING_BORROWED
        now = self._sums(node).borrowed
        if extra:
            now = self._with_borrowed(node, now, extra)
        past = self._past_sums(node).borrowed if self._past_weight else NO_AMOUNTS
        if not now and not past:
            return NOTHING_BORROWED
        return self._dominant(node, self._totals(self._potential, parent), now, past)

    def standing(self, node: int, extra: Mapping[FlavorResource, int] | None = None) -> Share:
        """What is in use of the node's own quota, as a share: it tells those apart that borrow nothing."""
        now = self._sums(node).used
        if extra:
            now, subtree = dict(now), self._subtree[node]
            for fr, amount in extra.items():
                if amount and fr in subtree:
                    now[fr[1]] = now.get(fr[1], 0) + amount
        past = self._past_sums(node).used if self._past_weight else NO_AMOUNTS
        return self._dominant(node, self._totals(self._subtree, node), now, past)

    def _with_borrowed(
        self, node: int, borrowed: Mapping[str, int], extra: Mapping[FlavorResource, int]
    ) -> Mapping[str, int]:
        """What is borrowed by resource with `extra` added to the usage where the subtree has quota."""
        usage, subtree, found = self._usage[node], self._subtree[node], borrowed
        for fr, amount in extra.items():
            own = subtree.get(fr)
            if amount and own is not None:
                used = usage.get(fr, 0)
                more = max(0, used + amount - own) - max(0, used - own)
                if more > 0:
                    found = {**found, fr[1]: found.get(fr[1], 0) + more}
        return found

    def _sums(self, node: int) -> "_Held":
        """What a node uses and borrows now, by resource."""
        held = self._held.get(node)
        if held is None:
            held = self._held[node] = _held(self._usage[node], self._subtree[node])
        return held

    def _past_sums(self, node: int) -> "_Held":
        """What it used and borrowed in the past, by resource."""
        held = self._past_held.get(node)
        if held is None:
            held = self._past_held[node] = _held(self._past[node], self._subtree[node])
        return held

    def _totals(self, of: Mapping[int, Mapping[FlavorResource, int]], node: int) -> list[tuple[str, int]]:
        """A node's amounts by resource, over all flavors, sorted; kept, as what is configured never changes."""
        key = (of is self._potential, node)
        totals = self._pools.get(key)
        if totals is None:
            sums: dict[str, int] = {}
            for (_, resource), amount in of[node].items():
                sums[resource] = sums.get(resource, 0) + amount
            totals = self._pools[key] = sorted((resource, amount) for resource, amount in sums.items() if amount > 0)
        return totals

    def _dominant(
        self, node: int, pools: Iterable[tuple[str, int]], now: Mapping[str, int], past: Mapping[str, int]
    ) -> Share:
        """The largest of the amounts, those of the past with their weight, in thousandths of its pool, divided by the
        node's weight."""
        unweighted, dominant, weight = 0.0, None, self._past_weight
        for resource, pool in pools:
            # Without a past the amounts stay whole numbers, and shares exact.
            amount: float = now.get(resource, 0)
            if weight:
                amount = (1 - weight) * amount + weight * past.get(resource, 0)
            if amount > 0 and 1000 * amount / pool > unweighted:
                unweighted, dominant = 1000 * amount / pool, resource
        if dominant is None:
            return NOTHING_BORROWED
        weight = self._nodes[node].weight
        return Share(unweighted / weight if weight > 0 else inf, unweighted, dominant)

    def copy(self) -> "QuotaTree":
        """An independent tree with the same usage; what is configured is shared, as it never changes, and usage until
        it does."""
        twin = object.__new__(QuotaTree)
        for name in self.__slots__:
            setattr(twin, name, getattr(self, name))
        twin._usage, twin._held = dict(self._usage), dict(self._held)
        self._own, twin._own = set(), set()
        return twin

    def configured(self, nodes: Iterable[Node]) -> "QuotaTree":
        """A tree of other nodes with this one's usage, present and past; what nodes that are gone used is dropped."""
        kept = list(nodes)
        leaves = [node.id for node in kept if node.id in self._nodes and not self._children[node.id]]
        usage, past = ({leaf: dict(of[leaf]) for leaf in leaves} for of in (self._usage, self._past))
        return QuotaTree(kept, usage, past=past, past_weight=self._past_weight)


def _check(node: Node) -> None:
    if not node.weight >= 0:
        raise ValueError(f"quota node {node.name} has the negative weight {node.weight}")
    for (flavor, resource), limit in node.limits.items():
        if limit.nominal < 0 or (limit.borrowing_limit or 0) < 0 or (limit.lending_limit or 0) < 0:
            raise ValueError(f"quota node {node.name} has a negative limit for {flavor}/{resource}")


def _not_negative(amounts: Mapping[FlavorResource, int]) -> None:
    for fr, amount in amounts.items():
        if amount < 0:
            raise ValueError(f"the amount of {fr[0]}/{fr[1]} is negative: {amount}")
