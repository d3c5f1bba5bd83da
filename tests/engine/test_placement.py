"""Filters, scores and gangs against plain per-node reasoning."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.filters import FILTERS, capacity_filters, filter, static_filters
from engine.placement import (
    Fleet,
    NodeFree,
    NodeRow,
    Placed,
    Request,
    Unplaced,
    candidates,
    feasibility,
    fits_node,
    place_gang,
    take_members,
)
from engine.reasons import Reason
from engine.scores import SCORES, score, terms, weight_of

from .worlds import GIB, node_rows, requests, row

STATIC_NAMES = [item.name for item in static_filters()]


def passes(node: NodeRow, request: Request) -> dict[str, bool]:
    """Every filter for one node in plain words."""
    tolerates = any(item.get("key") in (None, "k") for item in request.tolerations)
    cards = [free for free in node.gpu_free if free >= 0]
    wants_cards = request.gpu_count > 0
    return {
        "ready": node.ready,
        "taints": not node.taints or tolerates,
        "trust": node.trust >= request.trust,
        "region": not request.regions or node.region in request.regions,
        "labels": all(node.labels.get(key) in values for key, values in request.labels.items()),
        "runtime": not request.image or "podman" in node.runtimes,
        "gpu_model": not wants_cards
        or (bool(cards) and (not request.gpu_models or node.gpu_model in request.gpu_models)),
        "gpu_memory": not wants_cards or node.gpu_memory >= request.gpu_memory,
        "cpu": node.cpu_free >= request.cpu,
        "memory": node.memory_free >= request.memory,
        "storage": node.storage_free >= request.storage,
        "gpu": sum(free >= request.gpu_milli for free in cards) >= request.gpu_count,
        **demands(node, request),
    }


def demands(node: NodeRow, request: Request) -> dict[str, bool]:
    """The constraints on facts, labels and price for one node in plain words."""
    hardware, facts = request.hardware, node.facts
    price = node.price_cpu * request.cpu / 1000 + node.price_gpu * request.gpu_count * request.gpu_milli / 1000

    def least(wanted: str, found: str) -> bool:
        return not wanted or (bool(found) and [int(n) for n in found.split(".")] >= [int(n) for n in wanted.split(".")])

    wanted = request.wanted
    keys = request.together.levels if request.together else (request.apart.key,) if request.apart else ()
    return {
        "expressions": all(item.accepts(node.labels.get(item.label)) for item in request.expressions),
        "architecture": not hardware.architectures or facts.architecture in hardware.architectures,
        "cpu_flags": hardware.cpu_flags <= facts.cpu_flags,
        "python": least(hardware.python, facts.python),
        "gpu_compute": least(hardware.gpu_compute, facts.gpu_compute),
        "gpu_driver": least(hardware.gpu_driver, facts.gpu_driver),
        "interconnect": hardware.interconnects <= facts.interconnects,
        "packages": hardware.packages <= facts.packages,
        "price": request.max_price is None or price <= request.max_price,
        "domains": all(key in node.labels or key == "node" for key in keys),
        # Nodes are lent without bounds here, and nobody else is there: test_lending.py and test_company.py have these.
        **dict.fromkeys(("lending", "window", "cap", "near", "away"), True),
        "image_present": not (wanted and wanted.image_needed) or wanted.image in node.stored.images,
        "jurisdiction": not request.jurisdictions or bool(request.jurisdictions & node.site.jurisdictions),
        "datasets": wanted is None or set(wanted.needed) <= node.stored.datasets.keys(),
    }


def holds(node: NodeRow, request: Request, *, empty: bool) -> int:
    """The exact number of such members that one node has room for, 0 if it does not match."""
    checks = passes(node, request)
    if not all(checks[name] for name in STATIC_NAMES):
        return 0
    most = 100
    for need, free, capacity in (
        (request.cpu, node.cpu_free, node.cpu_capacity),
        (request.memory, node.memory_free, node.memory_capacity),
        (request.storage, node.storage_free, node.storage_capacity),
    ):
        if need:
            most = min(most, (capacity if empty else free) // need)
    if request.gpu_count:
        cards = [1000 if empty else free for free in node.gpu_free if free >= 0]
        slots = [free // request.gpu_milli for free in cards]
        # t members, each on different cards, fit exactly if the cards offer enough when each gives at most t.
        while most and sum(min(slot, most) for slot in slots) < request.gpu_count * most:
            most -= 1
    return most


@given(node_rows(), requests(), st.data())
def test_the_funnel_and_the_mask_agree_with_each_node(
    rows: list[NodeRow], request: Request, data: st.DataObject
) -> None:
    fleet = Fleet.build(rows)
    allowed = np.array(data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows))))
    funnel, mask = candidates(fleet, request, allowed)
    checks = [passes(node, request) for node in rows]
    assert mask.tolist() == [
        bool(inside) and all(check.values()) for inside, check in zip(allowed, checks, strict=True)
    ]
    assert funnel.total == int(allowed.sum())
    left = [check for inside, check in zip(allowed, checks, strict=True) if inside]
    inside_checks = list(left)
    assert [step.filter for step in funnel.steps] == [
        name for name in FILTERS if name in {s.filter for s in funnel.steps}
    ]
    for step in funnel.steps:
        remaining = [check for check in left if check[step.filter]]
        assert (step.rejected, step.remaining) == (len(left) - len(remaining), len(remaining))
        only = [check for check in inside_checks if [n for n, ok in check.items() if not ok] == [step.filter]]
        assert step.only == len(only)
        left = remaining
    asked = {step.filter for step in funnel.steps}
    assert all(check[name] for check in inside_checks for name in FILTERS if name not in asked)
    assert funnel.remaining == int(mask.sum())


def free_of(node: NodeRow) -> NodeFree:
    cards = {card: free for card, free in enumerate(node.gpu_free) if free >= 0}
    return NodeFree(node.cpu_free, node.memory_free, node.storage_free, cards)


def assert_places_are_valid(
    rows: Sequence[NodeRow], groups: Sequence[tuple[Request, int]], placed: Placed, allowed: Sequence[bool]
) -> None:
    """Replay the members one by one on plain ledgers with the check that is used under row locks."""
    free = {index: free_of(node) for index, node in enumerate(rows)}
    assert [member[1] for member in placed.members] == list(range(sum(count for _, count in groups)))
    for index, (_, count) in enumerate(groups):
        assert sum(member[0] == index for member in placed.members) == count
    for group, _, node, cards in placed.members:
        request = groups[group][0]
        assert allowed[node]
        checks = passes(rows[node], request)
        assert all(checks[name] for name in STATIC_NAMES)
        assert fits_node(free[node], request, cards) is None
        left = free[node]
        gpu = {card: amount - (request.gpu_milli if card in cards else 0) for card, amount in left.gpu.items()}
        free[node] = NodeFree(left.cpu - request.cpu, left.memory - request.memory, left.storage - request.storage, gpu)


def state(fleet: Fleet) -> list[Any]:
    return [
        fleet.cpu.tolist(),
        fleet.memory.tolist(),
        fleet.storage.tolist(),
        fleet.gpu_free.tolist(),
        fleet.tasks.tolist(),
    ]


@given(node_rows(), requests(), st.integers(1, 6), st.data())
def test_equal_members_are_placed_exactly_when_there_is_room(
    rows: list[NodeRow], request: Request, count: int, data: st.DataObject
) -> None:
    # How near or apart they have to be is another matter: test_constraints.py.
    request = replace(request, together=None, apart=None)
    fleet = Fleet.build(rows)
    allowed = data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows)))
    before = state(fleet)
    outcome = place_gang(fleet, [(request, count)], allowed=np.array(allowed))
    assert state(fleet) == before
    room = sum(holds(node, request, empty=False) for node, inside in zip(rows, allowed, strict=True) if inside)
    assert isinstance(outcome, Placed) == (room >= count)
    if isinstance(outcome, Placed):
        assert_places_are_valid(rows, [(request, count)], outcome, allowed)
        take_members(fleet, [(request, count)], outcome.members)
        for _, _, node, cards in outcome.members:
            fleet.give(request, node, cards)
        assert state(fleet) == before
        return
    inside_rows = [node for node, inside in zip(rows, allowed, strict=True) if inside]
    matches = [node for node in inside_rows if all(passes(node, request)[name] for name in STATIC_NAMES)]
    most = sum(min(count, holds(node, request, empty=True)) for node in matches)
    if not matches:
        assert outcome.reason == Reason.NO_NODE_MATCHES
    elif most < count:
        assert outcome.reason == Reason.EXCEEDS_EVERY_NODE
    else:
        assert outcome.reason == Reason.WAITING_FOR_CAPACITY
    assert outcome.detail.endswith(".") and outcome.funnel.total == len(inside_rows)


@given(node_rows(4), st.lists(st.tuples(requests(), st.integers(1, 3)), min_size=2, max_size=3))
def test_gangs_of_different_members_are_valid_or_leave_nothing_behind(
    rows: list[NodeRow], groups: list[tuple[Request, int]]
) -> None:
    fleet = Fleet.build(rows)
    before = state(fleet)
    outcome = place_gang(fleet, groups)
    again = place_gang(Fleet.build(rows), groups)
    assert state(fleet) == before
    assert outcome == again
    if isinstance(outcome, Placed):
        assert_places_are_valid(rows, groups, outcome, [True] * len(rows))
        assert feasibility(fleet, groups) is None
    elif outcome.reason == Reason.WAITING_FOR_CAPACITY:
        assert isinstance(place_gang(fleet.empty(), groups), Placed)


def unplaced(fleet: Fleet, *groups: tuple[Request, int]) -> Unplaced:
    outcome = place_gang(fleet, groups)
    assert isinstance(outcome, Unplaced)
    return outcome


def test_waiting_names_the_scarcest_resource() -> None:
    rows = [row(n, gpu_free=[1000] * 2 + [400] * 2) for n in range(12)]
    outcome = unplaced(Fleet.build(rows), (Request(cpu=1000, gpu_count=4), 1))
    assert outcome.reason == Reason.WAITING_FOR_CAPACITY
    assert outcome.detail == "needs 4 GPUs on one node; the best of 12 matching nodes has 2 free."


def test_waiting_for_a_share_of_a_card() -> None:
    outcome = unplaced(Fleet.build([row(0, gpu_free=[300, 400])]), (Request(gpu_count=1, gpu_milli=500), 1))
    assert outcome.detail == ("needs 0.5 of a GPU on one node; the only matching node has 0 such cards free.")


def test_waiting_when_no_node_has_everything_at_once() -> None:
    rows = [row(0, cpu_free=1000), row(1, memory_free=1 * GIB)]
    outcome = unplaced(Fleet.build(rows), (Request(cpu=4000, memory=8 * GIB), 1))
    assert outcome.reason == Reason.WAITING_FOR_CAPACITY
    assert outcome.detail == (
        "needs 4 cpu, 8 GiB memory on one node; none of 2 matching nodes has all of it free at once."
    )
    assert [(s.filter, s.rejected, s.only) for s in outcome.funnel.steps] == [
        ("ready", 0, 0), ("cpu", 1, 1), ("memory", 1, 1),
    ]  # fmt: skip


def test_waiting_gangs_say_how_far_they_get() -> None:
    rows = [row(0), row(1, cpu_free=2000)]
    outcome = unplaced(Fleet.build(rows), (Request(cpu=4000), 4))
    assert outcome.reason == Reason.WAITING_FOR_CAPACITY
    assert outcome.detail == (
        "2 of 4 members find room now; the next one needs 4 cpu on one node; "
        "the best of 2 matching nodes has 2 cpu free."
    )


def test_too_large_for_every_node() -> None:
    outcome = unplaced(Fleet.build([row(n) for n in range(3)]), (Request(cpu=9000), 1))
    assert outcome.reason == Reason.EXCEEDS_EVERY_NODE
    assert outcome.detail == "needs 9 cpu on one node; the best of 3 matching nodes has 8 cpu in all."


def test_a_gang_too_large_for_all_nodes_together() -> None:
    outcome = unplaced(Fleet.build([row(n) for n in range(3)]), (Request(cpu=5000), 4))
    assert outcome.reason == Reason.EXCEEDS_EVERY_NODE
    assert outcome.detail == "4 members needed at once; the 3 matching nodes hold at most 3 even when empty."


def test_no_match_says_which_demands_rule_out_how_many() -> None:
    rows = [row(0, labels={"zone": "c"}), row(1, trust=1, labels={"zone": "a"}, ready=False), row(2, trust=2)]
    request = Request(trust=1, labels={"zone": ("a", "b")})
    outcome = unplaced(Fleet.build(rows), (request, 1))
    assert outcome.reason == Reason.NO_NODE_MATCHES
    assert outcome.detail == (
        "none of 3 nodes matches: being ready rules out 1, a trust of at least 1 rules out 1, "
        "the labels zone=a|b rules out 1."
    )


def test_nodes_outside_the_allowed_ones_are_not_even_counted() -> None:
    fleet = Fleet.build([row(0, cpu_free=0), row(1)])
    outcome = place_gang(fleet, [(Request(cpu=1), 1)], allowed=np.array([True, False]))
    assert isinstance(outcome, Unplaced) and outcome.funnel.total == 1
    nothing = place_gang(fleet, [(Request(cpu=1), 1)], allowed=np.array([False, False]))
    assert isinstance(nothing, Unplaced)
    assert (nothing.reason, nothing.detail) == (Reason.NO_NODE_MATCHES, "there is no node here.")


def node_of(outcome: Placed | Unplaced) -> int:
    assert isinstance(outcome, Placed)
    return outcome.members[0][2]


def cards_of(outcome: Placed | Unplaced) -> tuple[int, ...]:
    assert isinstance(outcome, Placed)
    return outcome.members[0][3]


def test_packing_fills_and_spreading_levels() -> None:
    fleet = Fleet.build([row(0), row(1, cpu_free=3000, tasks=1), row(2, cpu_free=5000, tasks=1)])
    assert node_of(place_gang(fleet, [(Request(cpu=2000), 1)])) == 1
    assert node_of(place_gang(fleet, [(Request(cpu=2000, strategy="spread"), 1)])) == 0
    gang = place_gang(Fleet.build([row(n) for n in range(3)]), [(Request(cpu=1000, strategy="spread"), 3)])
    assert isinstance(gang, Placed) and {member[2] for member in gang.members} == {0, 1, 2}


def test_a_share_goes_to_the_card_that_it_leaves_fullest() -> None:
    fleet = Fleet.build([row(0, gpu_free=[1000, 1000]), row(1, gpu_free=[1000, 700, 500, -1])])
    share = place_gang(fleet, [(Request(gpu_count=1, gpu_milli=400), 1)])
    assert (node_of(share), cards_of(share)) == (1, (2,))
    larger = place_gang(fleet, [(Request(gpu_count=1, gpu_milli=600), 1)])
    assert (node_of(larger), cards_of(larger)) == (1, (1,))
    whole = place_gang(fleet, [(Request(gpu_count=1), 1)])
    assert (node_of(whole), cards_of(whole)) == (1, (0,))


def test_work_without_a_gpu_keeps_away_from_cards() -> None:
    fleet = Fleet.build([row(0, gpu_free=[1000], cpu_free=1000), row(1)])
    assert node_of(place_gang(fleet, [(Request(cpu=500), 1)])) == 1


def test_a_preference_goes_before_packing() -> None:
    rows = [
        row(0, cpu_free=1000),
        row(1, labels={"disk": "ssd"}),
        row(2, labels={"disk": "hdd"}, cpu_free=500),
    ]
    fleet = Fleet.build(rows)
    assert node_of(place_gang(fleet, [(Request(cpu=500), 1)])) == 2
    assert node_of(place_gang(fleet, [(Request(cpu=500, prefer=(("disk", ("ssd",), 10.0),)), 1)])) == 1
    assert node_of(place_gang(fleet, [(Request(cpu=500, prefer=(("disk", ("hdd",), -1.0),)), 1)])) == 0


def test_equal_nodes_go_by_their_order() -> None:
    fleet = Fleet.build([row(n) for n in range(5)])
    assert node_of(place_gang(fleet, [(Request(cpu=500), 1)])) == 0


def test_the_record_of_a_grant_keeps_the_terms_of_its_node() -> None:
    fleet = Fleet.build([row(0), row(1, gpu_free=[1000])])
    outcome = place_gang(fleet, [(Request(cpu=4000, gpu_count=1), 1)])
    assert isinstance(outcome, Placed)
    assert outcome.scores == {
        "node": "n1",
        "candidates": 1,
        "terms": {"gpu_fit": 1.0, "pack": 0.25, "total": 2.25},
    }


@given(node_rows(), requests())
def test_every_term_lies_between_zero_and_one(rows: list[NodeRow], request: Request) -> None:
    fleet = Fleet.build(rows)
    _, mask = candidates(fleet, request)
    for node in np.flatnonzero(mask):
        found = terms(fleet, request, int(node))
        total = found.pop("total")
        assert all(-1e-9 <= value <= 1 + 1e-9 for value in found.values())
        assert total == pytest.approx(sum(weight_of(SCORES[name], request) * value for name, value in found.items()))


@pytest.mark.parametrize(
    ("toleration", "tolerates"),
    [
        ({}, True),
        ({"key": "gpu"}, True),
        ({"key": "gpu", "value": "yes"}, True),
        ({"key": "gpu", "value": "no"}, False),
        ({"key": "gpu", "operator": "Exists", "value": "no"}, True),
        ({"key": "other"}, False),
        ({"key": "gpu", "effect": "NoSchedule"}, True),
        ({"key": "gpu", "effect": "NoExecute"}, False),
    ],
)
def test_tolerations(toleration: dict[str, str], tolerates: bool) -> None:
    fleet = Fleet.build([row(0, taints=[{"key": "gpu", "value": "yes", "effect": "NoSchedule"}])])
    outcome = place_gang(fleet, [(Request(tolerations=(toleration,)), 1)])
    assert isinstance(outcome, Placed) == tolerates


def test_a_soft_taint_keeps_nobody_away() -> None:
    fleet = Fleet.build([row(0, taints=[{"key": "old", "effect": "PreferNoSchedule"}])])
    assert isinstance(place_gang(fleet, [(Request(), 1)]), Placed)


@pytest.mark.parametrize(
    ("change", "cards", "dimension"),
    [
        ({}, (0,), None),
        ({"cpu": 1001}, (0,), "cpu"),
        ({"memory": GIB + 1}, (0,), "memory"),
        ({"storage": GIB + 1}, (0,), "storage"),
        ({"gpu_milli": 501}, (0,), "gpu"),
        ({}, (7,), "gpu"),
        ({}, (), "gpu"),
        ({"gpu_count": 2}, (0, 0), "gpu"),
        ({"gpu_count": 0}, (0,), "gpu"),
    ],
)
def test_the_check_under_row_locks_names_the_dimension(
    change: dict[str, Any], cards: tuple[int, ...], dimension: str | None
) -> None:
    free = NodeFree(cpu=1000, memory=GIB, storage=GIB, gpu={0: 500, 1: 1000})
    values = {"cpu": 1000, "memory": GIB, "storage": GIB, "gpu_count": 1, "gpu_milli": 500, **change}
    request = Request(**values)
    assert fits_node(free, request, cards) == dimension


def test_overcommitted_nodes_take_nothing_more() -> None:
    fleet = Fleet.build([row(0, cpu_free=-1000)])
    assert unplaced(fleet, (Request(cpu=100), 1)).reason == Reason.WAITING_FOR_CAPACITY


def test_an_empty_fleet_matches_nothing() -> None:
    assert unplaced(Fleet.build([]), (Request(cpu=1, gpu_count=1), 1)).reason == Reason.NO_NODE_MATCHES


def test_amounts_beyond_32_bits() -> None:
    fleet = Fleet.build([row(0, memory_capacity=2**50, storage_capacity=2**60)])
    assert isinstance(place_gang(fleet, [(Request(memory=2**50, storage=2**60), 1)]), Placed)


def test_equal_requests_are_equal_whatever_they_were_built_from() -> None:
    first = Request(labels={"a": ("x",), "b": ("y",)}, regions=("eu", "us"))
    second = Request(labels={"b": ("y",), "a": ("x",)}, regions=frozenset({"us", "eu"}))
    assert first == second and hash(first) == hash(second)
    assert first != Request(labels={"a": ("x",)}) and first != "request"


@pytest.mark.parametrize(
    "values",
    [{"cpu": -1}, {"gpu_count": 1, "gpu_milli": 0}, {"gpu_count": 1, "gpu_milli": 1001}, {"strategy": "x"}],
)
def test_a_request_that_makes_no_sense_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must be|cannot"):
        Request(**values)


def test_names_are_registered_once_and_static_filters_go_first() -> None:
    assert [*STATIC_NAMES, *(item.name for item in capacity_filters())] == list(FILTERS)
    with pytest.raises(ValueError, match="a filter 'cpu' already"):
        filter("cpu", lambda request: "", place=1)(lambda fleet, request: None)
    with pytest.raises(ValueError, match="a score 'pack' already"):
        score("pack", place=1)(lambda fleet, request, nodes: None)


def test_a_fork_shares_nothing_that_changes() -> None:
    fleet = Fleet.build([row(0, gpu_free=[1000])])
    before = state(fleet)
    fleet.fork().take(Request(cpu=1, memory=1, storage=1, gpu_count=1), 0, (0,))
    assert state(fleet) == before
    fleet.empty()
    assert state(fleet) == before


def test_kept_answers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.fleet._CACHE_LIMIT", 3)
    fleet = Fleet.build([row(0, labels={"a": "1"})])
    for number in range(10):
        place_gang(fleet, [(Request(labels={f"l{number}": ("x",)}), 1)])
        assert len(fleet.static_answers) <= 3 and len(fleet.label_columns) <= 4
    assert isinstance(place_gang(fleet, [(Request(labels={"a": ("1",)}), 1)]), Placed)


def test_members_with_several_shares_use_the_emptiest_cards_first() -> None:
    """Taking the two half-empty cards first would leave the second member only one card."""
    fleet = Fleet.build([row(0, gpu_free=[500, 1000, 500])])
    outcome = place_gang(fleet, [(Request(gpu_count=2, gpu_milli=500), 2)])
    assert isinstance(outcome, Placed)
    assert [member[3] for member in outcome.members] == [(0, 1), (1, 2)]


def test_what_was_taken_is_seen_by_the_next_question() -> None:
    fleet, request = Fleet.build([row(0, cpu_capacity=1000)]), Request(cpu=600)
    outcome = place_gang(fleet, [(request, 1)])
    assert isinstance(outcome, Placed)
    take_members(fleet, [(request, 1)], outcome.members)
    assert unplaced(fleet, (request, 1)).reason == Reason.WAITING_FOR_CAPACITY
    assert candidates(fleet, request)[0].remaining == 0
    fleet.give(request, 0, ())
    assert isinstance(place_gang(fleet, [(request, 1)]), Placed)
