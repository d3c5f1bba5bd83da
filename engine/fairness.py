"""Fair sharing by dominant resource share: whose head goes first, and from which queue victims are taken."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from engine.queues import FairStrategy, Holder
from engine.quota import FlavorResource, QuotaTree, Share


@dataclass(frozen=True, slots=True)
class Entry:
    """A queue's head with what it would be charged; `rank` is its place among equals: priority, age, id.

    The more urgent goes before all others: it is the priority where that reaches across tenants, else 0.
    """

    queue: int
    usage: Mapping[FlavorResource, int]
    rank: tuple[Any, ...]
    urgency: int = 0


# Urgency, negated; borrows in what its head asks for; share; standing; rank. Smaller goes first.
_Key = tuple[Any, ...]


class Tournament:
    """The heads of one tree's queues. At every cohort the children that have a head compete.

    Each child counts with its head's request added: the one with the more urgent head goes first, then one that
    does not borrow in what the head asks for before one that does, then the smaller share, then (with `standing`)
    the smaller standing, then the rank of the head. The winners move up. Keys are kept; a change of usage or head in a
    queue changes only those on its path, so the next winner costs depth times width.
    """

    def __init__(self, tree: QuotaTree, *, standing: bool = False) -> None:
        self._tree, self._standing = tree, standing
        self._entries: dict[int, Entry] = {}
        # The keys of those that compete, by the cohort above them; those of roots by None.
        self._keys: dict[int | None, dict[int, _Key]] = {None: {}}
        # Roots that ever had a head.
        self._roots: set[int] = set()
        # Cohorts below which something changed since their winners were chosen, with their depths.
        self._changed: dict[int, int] = {}

    def set(self, entry: Entry) -> None:
        """Bring in a queue's head, or look at it again after the queue's usage has changed."""
        path = self._tree.path(entry.queue)
        if path[-1] not in self._roots:
            self._roots.add(path[-1])
            self._climb()
            for root in list(self._keys[None]):
                self._compete(root, None, self._entries[root])
        self._compete(path[0], self._tree.parent(path[0]), entry)
        self._note(path)

    def drop(self, queue: int) -> None:
        """Take a queue out: it has no head any more."""
        self._leave(queue, self._tree.parent(queue))
        self._note(self._tree.path(queue))

    def _note(self, path: tuple[int, ...]) -> None:
        for depth, node in zip(range(len(path) - 2, -1, -1), path[1:], strict=True):
            self._changed[node] = depth

    def _climb(self) -> None:
        """Choose the winners anew where something changed, from the lowest cohort up."""
        changed, self._changed = self._changed, {}
        for node in sorted(changed, key=changed.__getitem__, reverse=True):
            below, above = self._keys[node], self._tree.parent(node)
            if below:
                self._compete(node, above, self._entries[min(below, key=below.__getitem__)])
            else:
                self._leave(node, above)

    def _leave(self, node: int, above: int | None) -> None:
        self._keys[above].pop(node, None)
        self._entries.pop(node, None)

    def _compete(self, node: int, above: int | None, entry: Entry) -> None:
        """Let an entry stand for a node; with nobody to compete against, its key does not matter."""
        alone = above is None and len(self._roots) == 1
        self._entries[node] = entry
        self._keys.setdefault(above, {})[node] = () if alone else self._key(node, above, entry)

    def _key(self, node: int, above: int | None, entry: Entry) -> _Key:
        """How a node competes at its parent, with what reaches it of the entry's request added."""
        tree, extra = self._tree, entry.usage
        if node != entry.queue:
            for below in tree.path(entry.queue):
                if below == node:
                    break
                extra = tree.beyond_kept(below, extra)
        if above is None:
            borrows, share = False, (0.0, 0.0)
        else:
            borrows = tree.exceeds_any(node, extra)
            share = tree.share(node, extra).key()
        standing = tree.standing(node, extra).key() if self._standing else ()
        return (-entry.urgency, borrows, share, standing, entry.rank)

    def first(self) -> Entry | None:
        """The winner over all trees; None when there is no head."""
        if self._changed:
            self._climb()
        roots = self._keys[None]
        return self._entries[min(roots, key=roots.__getitem__)] if roots else None


class TargetOrdering:
    """From which queue the next victim is taken; `candidates` come in the order in which they are tried.

    From the root to the child with the highest share that still has candidates, a cohort before a queue on a
    tie, among equal queues the one whose first candidate comes first. What does not borrow is left out, except
    on the preemptor's own path.
    """

    def __init__(
        self,
        tree: QuotaTree,
        preemptor_queue: int,
        candidates: Iterable[Holder],
        order: Callable[[Holder], tuple[object, ...]],
    ) -> None:
        self._tree, self._order = tree, order
        self._path = tree.path(preemptor_queue)
        self._left: dict[int, list[Holder]] = {}
        for holder in candidates:
            self._left.setdefault(holder.queue, []).append(holder)
        for holders in self._left.values():
            holders.reverse()
        self._pruned: set[int] = set()

    def has(self, queue: int) -> bool:
        """Whether the queue has candidates left."""
        return bool(self._left.get(queue))

    def pop(self, queue: int) -> Holder:
        """The queue's next candidate."""
        return self._left[queue].pop()

    def drop(self, queue: int) -> None:
        """No more candidates from this queue."""
        self._left.pop(queue, None)

    def next(self) -> int | None:
        """The queue to take from next; None when nobody has candidates."""
        root = self._path[-1]
        if len(self._path) == 1:
            return root if self.has(root) else None
        while root not in self._pruned:
            queue = self._descend(root)
            if queue is not None:
                return queue
        return None

    def _descend(self, node: int) -> int | None:
        """The queue below a cohort, or None after leaving a part of the tree out."""
        tree = self._tree
        # The queue and the cohort with the highest shares, and these.
        queue: tuple[int, tuple[float, float]] | None = None
        cohort: tuple[int, tuple[float, float]] | None = None
        for child in tree.children(node):
            if child in self._pruned:
                continue
            inner = bool(tree.children(child))
            if not (inner or self.has(child)):
                self._pruned.add(child)
                continue
            share = tree.share(child)
            entry = child, share.key()
            if share.unweighted == 0 and child not in self._path:
                self._pruned.add(child)
            elif inner:
                if cohort is None or entry[1] >= cohort[1]:
                    cohort = entry
            elif queue is None or self._before(entry, queue):
                queue = entry
        if cohort is not None and (queue is None or cohort[1] >= queue[1]):
            return self._descend(cohort[0])
        if queue is None:
            self._pruned.add(node)
            return None
        return queue[0]

    def _before(self, one: tuple[int, tuple[float, float]], other: tuple[int, tuple[float, float]]) -> bool:
        """Whether victims come from a queue rather than from the other, each with its share."""
        if one[1] != other[1]:
            return one[1] > other[1]
        return self._order(self._left[one[0]][-1]) < self._order(self._left[other[0]][-1])


def rivals(tree: QuotaTree, queue: int, other: int) -> tuple[int, int]:
    """The children of the lowest common ancestor on the ways to two different queues of one tree."""
    mine, theirs = tree.path(queue), tree.path(other)
    depth = 1
    while mine[-depth] == theirs[-depth]:
        depth += 1
    return mine[-depth], theirs[-depth]


def allowed_by(strategy: FairStrategy, tree: QuotaTree, queue: int, holder: Holder) -> bool:
    """Whether a queue, its request added already, may take this holder of another queue.

    Compared are the two children of the lowest common ancestor: the preemptor's share P with the share of the
    victim's side after it has gone (P <= final share), or before (P < initial share).
    """
    mine, theirs = rivals(tree, queue, holder.queue)
    share = tree.share(mine).key()
    if strategy == FairStrategy.INITIAL_SHARE:
        return share < tree.share(theirs).key()
    tree.remove(holder.queue, holder.usage)
    final: Share = tree.share(theirs)
    tree.add(holder.queue, holder.usage)
    return share <= final.key()
