"""What is kept between questions, for speed, is what would be found anew."""

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from engine.fairness import Entry, Tournament
from engine.quota import FlavorResource, Node, QuotaTree

from .worlds import CPU, GPU, amount, leaves, trees

FRS: tuple[FlavorResource, ...] = (CPU, GPU, ("other", "cpu"))
amounts = st.fixed_dictionaries(dict.fromkeys(FRS, amount))
Amounts = dict[FlavorResource, int]
Asked = list[tuple[int, Amounts, bool]]
changes = st.lists(st.tuples(st.integers(0, 7), amounts, st.booleans()), max_size=8)


def changed(nodes: list[Node], asked: Asked, past: bool) -> QuotaTree:
    """A tree in which usage came and went, and which was asked in between."""
    below = leaves(nodes)
    before: Mapping[int, Mapping[FlavorResource, int]] = {leaf: {CPU: 3, GPU: leaf} for leaf in below} if past else {}
    tree = QuotaTree(nodes, {}, past=before, past_weight=0.5 if past else 0.0)
    for choice, usage, stays in asked:
        leaf = below[choice % len(below)]
        tree.add(leaf, usage)
        for node in nodes:
            tree.share(node.id, usage), tree.standing(node.id, usage), tree.room(node.id), tree.potentials(node.id)
        if not stays:
            tree.remove(leaf, usage)
    return tree


@given(trees(FRS), changes, amounts, st.booleans())
def test_shares_and_room_are_those_of_a_tree_that_was_never_asked(
    nodes: list[Node], asked: Asked, extra: Amounts, past: bool
) -> None:
    tree = changed(nodes, asked, past)
    fresh = tree.configured(nodes)
    for node in nodes:
        assert tree.share(node.id) == fresh.share(node.id)
        assert tree.standing(node.id) == fresh.standing(node.id)
        assert tree.room(node.id) == {fr: fresh.available(node.id, fr) for fr in node.limits}
        assert {
            (flavor, resource): most
            for flavor, found in tree.potentials(node.id).items()
            for resource, most in found.items()
        } == {fr: fresh.potential(node.id, fr) for fr in node.limits}
    for leaf in leaves(nodes):
        # Where there is no quota, what is asked for does not count in shares.
        held = {fr: value for fr, value in extra.items() if fr in tree.nodes[leaf].limits}
        more = fresh.copy()
        more.add(leaf, held)
        assert tree.share(leaf, extra) == more.share(leaf)
        assert tree.standing(leaf, extra) == more.standing(leaf)
        beyond = any(value and tree.exceeds(leaf, fr, value) for fr, value in extra.items())
        assert tree.exceeds_any(leaf, extra) == beyond


@given(trees(FRS), st.lists(st.tuples(st.integers(0, 7), amounts, st.integers(-3, 3), st.booleans()), max_size=12))
def test_the_winner_is_that_of_a_tournament_held_anew(
    nodes: list[Node], asked: list[tuple[int, Amounts, int, bool]]
) -> None:
    """Heads come, change and go, and the winner's request is charged, as in a cycle."""
    tree, below = QuotaTree(nodes, {}), leaves(nodes)
    kept, entries = Tournament(tree, standing=True), dict[int, Entry]()
    for number, (choice, usage, priority, stays) in enumerate(asked):
        queue = below[choice % len(below)]
        entries[queue] = Entry(queue, usage, (-priority, number))
        kept.set(entries[queue])
        fresh = Tournament(tree, standing=True)
        for entry in entries.values():
            fresh.set(entry)
        winner = kept.first()
        assert winner == fresh.first()
        assert winner is not None
        if not stays:
            tree.add(winner.queue, winner.usage)
            del entries[winner.queue]
            kept.drop(winner.queue)
