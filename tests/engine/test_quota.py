"""The quota tree against a reference that follows the definitions by plain recursion."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.arithmetic import arithmetic
from engine.quota import FlavorResource, Limit, Node, QuotaTree

from .worlds import CPU, GPU, amount, leaves, trees

Usage = dict[int, int]


class Reference:
    """Section by section what the rules say, without any stored sums; usage is given at leaves only."""

    def __init__(self, nodes: list[Node], used: Usage, fr: FlavorResource) -> None:
        self.nodes, self.used, self.fr = {node.id: node for node in nodes}, used, fr

    def limit(self, node: int) -> Limit:
        return self.nodes[node].limits.get(self.fr, Limit(0))

    def children(self, node: int) -> list[int]:
        return [item.id for item in self.nodes.values() if item.parent == node]

    def subtree(self, node: int) -> int:
        return self.limit(node).nominal + sum(self.subtree(c) - self.kept(c) for c in self.children(node))

    def kept(self, node: int) -> int:
        lending = self.limit(node).lending_limit
        return 0 if lending is None else max(0, self.subtree(node) - lending)

    def usage(self, node: int) -> int:
        if not self.children(node):
            return self.used.get(node, 0)
        return sum(max(0, self.usage(c) - self.kept(c)) for c in self.children(node))

    def available(self, node: int) -> int:
        parent = self.nodes[node].parent
        if parent is None:
            amount = self.subtree(node) - self.usage(node)
        else:
            kept, used = self.kept(node), self.usage(node)
            above = self.available(parent)
            borrowing = self.limit(node).borrowing_limit
            if borrowing is not None:
                above = min(above, (self.subtree(node) - kept) - max(0, used - kept) + borrowing)
            amount = max(0, kept - used) + above
        return amount if self.children(node) else max(0, amount)

    def potential(self, node: int) -> int:
        parent = self.nodes[node].parent
        if parent is None:
            return self.subtree(node)
        amount = self.kept(node) + self.potential(parent)
        borrowing = self.limit(node).borrowing_limit
        return amount if borrowing is None else min(amount, self.subtree(node) + borrowing)


def assert_equal_to_reference(tree: QuotaTree, nodes: list[Node], used: Usage) -> None:
    reference = Reference(nodes, used, CPU)
    for node in nodes:
        assert tree.subtree(node.id, CPU) == reference.subtree(node.id)
        assert tree.potential(node.id, CPU) == reference.potential(node.id)
        assert tree.usage(node.id, CPU) == reference.usage(node.id)
        assert tree.available(node.id, CPU) == reference.available(node.id)
        if node.parent is not None:
            assert tree.kept(node.id, CPU) == reference.kept(node.id)


@given(trees(), st.data())
def test_every_quantity_equals_the_reference_after_any_additions_and_removals(
    nodes: list[Node], data: st.DataObject
) -> None:
    used: Usage = {leaf: data.draw(amount) for leaf in leaves(nodes)}
    tree = QuotaTree(nodes, {leaf: {CPU: value} for leaf, value in used.items()})
    assert_equal_to_reference(tree, nodes, used)
    for _ in range(data.draw(st.integers(1, 6))):
        leaf = data.draw(st.sampled_from(leaves(nodes)))
        if data.draw(st.booleans()):
            change = data.draw(amount)
            tree.add(leaf, {CPU: change})
            used[leaf] += change
        else:
            change = data.draw(st.integers(0, used[leaf]))
            tree.remove(leaf, {CPU: change})
            used[leaf] -= change
        assert_equal_to_reference(tree, nodes, used)


@given(trees((CPU, GPU)), st.data())
def test_remove_undoes_add_and_a_copy_is_independent(nodes: list[Node], data: st.DataObject) -> None:
    tree = QuotaTree(nodes, {})
    for leaf in leaves(nodes):
        tree.add(leaf, {CPU: data.draw(amount), GPU: data.draw(amount)})
    before = [(tree.usage(node.id, fr), tree.available(node.id, fr)) for node in nodes for fr in (CPU, GPU)]
    twin = tree.copy()
    changes = [
        (data.draw(st.sampled_from(leaves(nodes))), {CPU: data.draw(amount), GPU: data.draw(amount)}) for _ in range(5)
    ]
    for leaf, amounts in changes:
        twin.add(leaf, amounts)
    assert before == [(tree.usage(node.id, fr), tree.available(node.id, fr)) for node in nodes for fr in (CPU, GPU)]
    for leaf, amounts in data.draw(st.permutations(changes)):
        twin.remove(leaf, amounts)
    assert before == [(twin.usage(node.id, fr), twin.available(node.id, fr)) for node in nodes for fr in (CPU, GPU)]


@given(trees(), st.lists(st.tuples(st.integers(0, 7), st.integers(1, 9)), max_size=20))
def test_additions_that_fit_never_exceed_any_limit(nodes: list[Node], asked: list[tuple[int, int]]) -> None:
    tree, below = QuotaTree(nodes, {}), leaves(nodes)
    for choice, value in asked:
        leaf = below[choice % len(below)]
        available = tree.available(leaf, CPU)
        shortage = tree.fits(leaf, {CPU: value})
        assert (shortage is None) == (tree.covers(leaf, CPU) and value <= available)
        if shortage is None:
            assert tree.ever_fits(leaf, {CPU: tree.usage(leaf, CPU) + value}) is None
            tree.add(leaf, {CPU: value})
        else:
            assert (shortage.requested, shortage.available) == (value, available)
            assert shortage.limiting in {node.name for node in nodes}
            assert shortage.limiting in shortage.text()
    for node in nodes:
        assert tree.usage(node.id, CPU) <= tree.potential(node.id, CPU)
        if node.parent is None:
            assert tree.usage(node.id, CPU) <= tree.subtree(node.id, CPU)
        elif (limit := node.limits.get(CPU)) and limit.borrowing_limit is not None:
            assert tree.borrowing(node.id, CPU) <= limit.borrowing_limit


@given(trees(), st.integers(0, 7), st.integers(0, 9))
def test_the_named_limit_is_the_one_that_binds(nodes: list[Node], choice: int, used: int) -> None:
    """Lowering the named limit by one must take exactly one from what is available."""
    below = leaves(nodes)
    leaf = below[choice % len(below)]
    usage = {leaf: {CPU: used}}
    tree = QuotaTree(nodes, usage)
    available = tree.available(leaf, CPU)
    shortage = tree.fits(leaf, {CPU: available + 1})
    assert shortage is not None
    assert (shortage.limit == "not covered") == (not tree.covers(leaf, CPU))
    if shortage.limit == "not covered" or available == 0:
        return
    lowered = []
    for node in nodes:
        mine = dict(node.limits)
        if node.name == shortage.limiting:
            limit = mine.get(CPU, Limit(0))
            nominal, borrowing = limit.nominal, limit.borrowing_limit
            if shortage.limit == "borrowing limit":
                assert borrowing is not None
                borrowing -= 1
            else:
                assert node.parent is None
                nominal -= 1
            if min(nominal, borrowing or 0) < 0:
                return
            mine[CPU] = Limit(nominal, borrowing, limit.lending_limit)
        lowered.append(Node(node.id, node.parent, node.name, mine))
    assert QuotaTree(lowered, usage).available(leaf, CPU) == available - 1


def small() -> QuotaTree:
    """Cohort `lab` with 10 cpu and the teams `vision` (4, borrows up to 2) and `speech` (6, lends 1)."""
    return QuotaTree(
        [
            Node(1, None, "lab", {CPU: Limit(10000)}),
            Node(2, 1, "vision", {CPU: Limit(4000, borrowing_limit=2000)}),
            Node(3, 1, "speech", {CPU: Limit(6000, lending_limit=1000), GPU: Limit(2000)}),
        ],
        {},
    )


def test_a_shortage_names_the_borrowing_limit() -> None:
    shortage = small().fits(2, {CPU: 6001})
    assert shortage is not None
    assert (shortage.limiting, shortage.limit) == ("vision", "borrowing limit")
    assert shortage.text() == (
        "6.001 cpu of flavor default requested, but the borrowing limit of vision allows at most 6 cpu."
    )


def test_a_shortage_names_the_cohort_when_others_use_it() -> None:
    tree = small()
    tree.add(3, {CPU: 20000 - 1000})
    shortage = tree.fits(2, {CPU: 3000})
    assert shortage is not None
    assert (shortage.limiting, shortage.limit, shortage.available) == ("lab", "cohort", 1000)
    assert "3 cpu of flavor default requested, 1 cpu available (at most 6 cpu)" in shortage.text()


def test_a_queue_without_a_limit_for_a_flavor_is_not_covered() -> None:
    tree = small()
    assert not tree.covers(2, GPU)
    shortage = tree.ever_fits(2, {CPU: 1000, GPU: 1000})
    assert shortage is not None and shortage.limit == "not covered"
    assert shortage.text() == "vision has no quota for gpu of flavor default; 1 GPU requested."
    assert tree.fits(2, {CPU: 1000, GPU: 0}) is None


def test_over_admission_is_felt_by_a_queue_that_neither_borrows_nor_lends() -> None:
    nodes = [
        Node(1, None, "root", {}),
        Node(2, 1, "greedy", {CPU: Limit(5)}),
        Node(3, 1, "quiet", {CPU: Limit(5, borrowing_limit=0)}),
    ]
    tree = QuotaTree(nodes, {2: {CPU: 8}})
    assert tree.available(3, CPU) == 2
    assert tree.available(2, CPU) == 2
    tree.add(2, {CPU: 4})
    assert (tree.available(1, CPU), tree.available(3, CPU)) == (-2, 0)


@pytest.mark.parametrize(
    ("parents", "named"),
    [({1: 1}, "n1 → n1"), ({1: 2, 2: 1}, "n1 → n2 → n1"), ({4: 1, 1: 2, 2: 3, 3: 1}, "n1 → n2 → n3 → n1")],
)
def test_a_cycle_is_refused_by_name(parents: dict[int, int], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        QuotaTree([Node(node, parent, f"n{node}", {}) for node, parent in parents.items()], {})


def test_a_deep_tree_is_no_problem() -> None:
    depth = 5000
    nodes = [Node(0, None, "root", {CPU: Limit(7)})]
    nodes += [Node(number, number - 1, f"n{number}", {CPU: Limit(1)}) for number in range(1, depth)]
    tree = QuotaTree(reversed(nodes), {})
    assert tree.available(depth - 1, CPU) == depth - 1 + 7
    tree.add(depth - 1, {CPU: depth})
    assert tree.available(0, CPU) == 6


@pytest.mark.parametrize(
    ("nodes", "usage", "message"),
    [
        ([Node(1, None, "a", {}), Node(1, None, "b", {})], {}, "twice"),
        ([Node(1, 7, "a", {})], {}, "unknown parent 7"),
        ([Node(1, None, "a", {CPU: Limit(-1)})], {}, "negative limit"),
        ([Node(1, None, "a", {CPU: Limit(1, borrowing_limit=-1)})], {}, "negative limit"),
        ([Node(1, None, "a", {}, weight=-1.0)], {}, "negative weight"),
        ([Node(1, None, "a", {}, weight=float("nan"))], {}, "negative weight"),
        ([Node(1, None, "a", {})], {2: {CPU: 1}}, "unknown quota node 2"),
        ([Node(1, None, "a", {})], {1: {CPU: -1}}, "negative"),
    ],
)
def test_nonsense_is_refused(nodes: list[Node], usage: dict[int, dict[FlavorResource, int]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        QuotaTree(nodes, usage)


def test_giving_back_more_than_is_used_is_refused_and_changes_nothing() -> None:
    tree = small()
    tree.add(3, {CPU: 2000, GPU: 1000})
    with pytest.raises(ValueError, match="speech uses 1000 of default/gpu; 2000 cannot be given back"):
        tree.remove(3, {CPU: 1000, GPU: 2000})
    assert (tree.usage(3, CPU), tree.usage(3, GPU)) == (2000, 1000)


def test_amounts_beyond_32_and_64_bits_stay_exact() -> None:
    huge = 2**62
    nodes = [Node(0, None, "root", {}), *(Node(n, 0, f"q{n}", {CPU: Limit(huge)}) for n in range(1, 5))]
    tree = QuotaTree(nodes, {1: {CPU: 2**63 + 1}})
    assert tree.available(2, CPU) == 4 * huge - 2**63 - 1


def test_explain_gives_the_arithmetic_from_the_root_down() -> None:
    tree = small()
    tree.add(3, {CPU: 7000})
    lines = arithmetic(tree, 2, CPU, 7000)
    assert [line["node"] for line in lines] == ["lab", "vision", "vision"]
    assert lines[0]["subtree"] == 10000 + 4000 + 1000
    assert lines[0]["usage"] == 2000
    assert lines[1]["text"] == "vision: quota 4 cpu, in use 0 cpu, available 6 cpu."
    assert lines[2]["fits"] is False and lines[2]["limit"] == "borrowing limit"
    assert arithmetic(tree, 2, CPU, 6000)[-1]["text"] == "6 cpu of flavor default fits."


@given(trees((CPU, GPU)), st.data())
def test_a_share_is_zero_without_borrowing_and_grows_with_usage(nodes: list[Node], data: st.DataObject) -> None:
    tree = QuotaTree(nodes, {})
    for leaf in leaves(nodes):
        last = tree.share(leaf)
        assert last.weighted == 0
        for _ in range(3):
            tree.add(leaf, {CPU: data.draw(amount), GPU: data.draw(amount)})
            share = tree.share(leaf)
            assert share.key() >= last.key()
            if all(tree.borrowing(leaf, fr) == 0 for fr in (CPU, GPU)):
                assert share.weighted == 0 and share.dominant is None
            last = share


def test_two_borrowers_without_weight_compare_by_what_they_borrow() -> None:
    nodes = [Node(0, None, "root", {CPU: Limit(10)})]
    nodes += [Node(n, 0, f"q{n}", {CPU: Limit(0)}, weight=0.0) for n in (1, 2)]
    tree = QuotaTree(nodes, {1: {CPU: 4}, 2: {CPU: 3}})
    assert tree.share(1).weighted == tree.share(2).weighted == float("inf")
    assert tree.share(2).key() < tree.share(1).key()
    assert tree.share(2, {CPU: 2}).key() > tree.share(1).key()
