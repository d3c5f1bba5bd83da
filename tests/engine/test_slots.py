"""Who gets free places, against plain statements of the rule, and what tasks weigh, against walking the graph."""

from collections import Counter
from collections.abc import Hashable

from hypothesis import given
from hypothesis import strategies as st

from engine.dag import Graph, TaskNode
from engine.slots import Claim, Gate, next_claims, out_of_reach, stops_at
from engine.weights import longest_remaining, summed, weights

GATES = ("task", "workflow", "pool")


@st.composite
def worlds(draw: st.DrawFn) -> tuple[dict[Hashable, Gate], list[Claim]]:
    """Claims that each pass some of three gates, always in the same order."""
    gates: dict[Hashable, Gate] = {
        name: Gate(draw(st.integers(0, 5)), draw(st.integers(0, 6))) for name in draw(st.sets(st.sampled_from(GATES)))
    }
    claims = []
    for key in range(draw(st.integers(0, 8))):
        takes = tuple((name, draw(st.integers(1, 4))) for name in GATES if draw(st.booleans()))
        claims.append(Claim(key, draw(st.sampled_from([1.0, 2.0])), draw(st.integers(1, 2)), key, takes))
    return gates, claims


@given(worlds())
def test_no_gate_lets_more_through_than_it_has_room_for(world: tuple[dict[Hashable, Gate], list[Claim]]) -> None:
    gates, claims = world
    taken: Counter[Hashable] = Counter()
    for claim in next_claims(gates, claims):
        taken.update(dict(claim.takes))
    assert all(taken[name] <= gate.room for name, gate in gates.items())


@given(worlds())
def test_nobody_overtakes_whoever_is_first_at_a_gate(world: tuple[dict[Hashable, Gate], list[Claim]]) -> None:
    """The first in line of all that could ever pass stops only where it finds no room even alone; and nobody behind it
    gets anything of the gate at which it stops."""
    gates, claims = world
    possible = sorted((c for c in claims if out_of_reach(gates, c.takes) is None), key=lambda claim: claim.place)
    granted = next_claims(gates, claims)
    assert [claim.key for claim in granted] == [claim.key for claim in possible if claim in granted]
    if possible:
        first = possible[0]
        stop = stops_at(gates, first.takes)
        assert (first in granted) is (stop is None)
        assert stop is None or not any(stop in dict(claim.takes) for claim in granted)


@given(worlds())
def test_whoever_is_left_finds_no_room_once_the_others_have_theirs(
    world: tuple[dict[Hashable, Gate], list[Claim]],
) -> None:
    """A claim that passes only one gate is left only if that gate is full, or somebody before it waits there."""
    gates, claims = world
    granted = next_claims(gates, claims)
    taken: Counter[Hashable] = Counter()
    for claim in granted:
        taken.update(dict(claim.takes))
    after = {name: Gate(gate.size, gate.held + taken[name]) for name, gate in gates.items()}
    for claim in claims:
        if claim in granted or len(claim.takes) != 1 or stops_at(after, claim.takes) is not None:
            continue
        [(name, _)] = claim.takes
        ahead = [c for c in claims if c not in granted and c.place < claim.place and name in dict(c.takes)]
        # Somebody waits for this gate, or has passed it on the way to one where it is the first.
        assert ahead


@given(st.lists(st.integers(1, 5), max_size=6), st.lists(st.integers(1, 5), min_size=7, max_size=7))
def test_a_task_that_wants_all_slots_starts_when_those_that_hold_some_have_let_go(
    holding: list[int], coming: list[int]
) -> None:
    """However many come behind it, nobody gets a slot before it, and it waits for no other."""
    size = max(5, sum(holding))
    waiting = [Claim(0, 1.0, 0, 0, (("pool", size),))]
    for step, count in enumerate(coming, 1):
        waiting.append(Claim(step, 1.0, step, 0, (("pool", count),)))
        granted = next_claims({"pool": Gate(size, sum(holding))}, waiting)
        assert [claim.key for claim in granted] == ([] if holding else [0])
        if not holding:
            return
        holding = holding[:-1]
    raise AssertionError("there are more steps than holders")


def test_who_waits_behind_the_first_keeps_no_narrower_place() -> None:
    gates: dict[Hashable, Gate] = {"workflow": Gate(3), "pool": Gate(1, 1)}
    claims = [Claim(key, 2.0, 1, key, (("workflow", 1), ("pool", 1))) for key in range(5)]
    free = [Claim(key, 1.0, 1, key, (("workflow", 1),)) for key in range(5, 10)]
    assert [claim.key for claim in next_claims(gates, [*claims, *free])] == [5, 6]


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    size = draw(st.integers(1, 8))
    return Graph(
        {
            f"t{place}": TaskNode(upstream=tuple(f"t{before}" for before in range(place) if draw(st.booleans())))
            for place in range(size)
        }
    )


def behind(graph: Graph, name: str) -> set[str]:
    return graph.behind([name])


@given(graphs(), st.data())
def test_weights_are_sums_over_what_is_behind_or_before(graph: Graph, data: st.DataObject) -> None:
    own = {name: data.draw(st.integers(0, 3)) for name in graph.order}
    down, up = summed(graph, own, downstream=True), summed(graph, own, downstream=False)
    for name in graph.order:
        assert down[name] == sum(own[other] for other in behind(graph, name))
        assert up[name] == sum(own[other] for other in graph.order if name in behind(graph, other))


@given(graphs(), st.data())
def test_the_longest_remaining_path_is_that_of_all_paths(graph: Graph, data: st.DataObject) -> None:
    seconds = {name: data.draw(st.integers(0, 9)) for name in graph.order}

    def longest(name: str) -> float:
        return seconds[name] + max((longest(other) for other in graph.downstream[name]), default=0)

    found = longest_remaining(graph, seconds)
    assert found == {name: longest(name) for name in graph.order}
    assert max(found.values()) == graph.critical_path(seconds)


def test_each_task_weighs_by_its_own_rule() -> None:
    graph = Graph({"a": TaskNode(), "b": TaskNode(upstream=("a",)), "c": TaskNode(upstream=("a",))})
    rules = {"a": "downstream", "b": "upstream", "c": "critical_path"}
    assert weights(graph, {"a": 1, "b": 5, "c": 9}, rules, {"a": 3.0, "b": 1.0}) == {"a": 15.0, "b": 6.0, "c": 2.0}
    assert longest_remaining(graph, {}) == {"a": 2.0, "b": 1.0, "c": 1.0}
