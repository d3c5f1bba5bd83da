"""Fragmentation: what is counted as lost, and that kept scores equal those of a fleet built anew."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.fleet import Fleet, Request
from engine.fragmentation import FILL, FIRST, REMEMBERED, SMALLEST, STEP, Arrivals, Mix, growth, lost
from engine.placement import Placed, expect, place_gang, take_members

from .worlds import GIB, node_rows, requests, row


def mix(*classes: tuple[float, Request]) -> Mix:
    return Mix(tuple(request for _, request in classes), np.array([part for part, _ in classes]))


def of(*cards: int, cpu: int = 100_000) -> tuple[np.ndarray, np.ndarray]:
    return np.array([cpu]), np.array([cards], dtype=np.int32)


def test_what_a_class_cannot_use_is_lost() -> None:
    whole = mix((1.0, Request(cpu=1000, gpu_count=1)))
    assert lost(whole, None, *of(1000, 1000)).tolist() == [0]
    assert lost(whole, None, *of(1000, 400)).tolist() == [400]
    assert lost(whole, None, *of(1000, 1000, cpu=500)).tolist() == [2000], "no cpu"
    assert lost(whole, np.array([[False]]), *of(1000, 1000)).tolist() == [2000], "may not run there"
    pairs = mix((1.0, Request(cpu=10, gpu_count=2)))
    assert lost(pairs, None, *of(1000, 400)).tolist() == [1400], "no second card"


def test_what_is_left_of_a_filled_node_counts_as_lost_in_part() -> None:
    whole = mix((1.0, Request(cpu=1000, gpu_count=1)))
    assert lost(whole, None, *of(1000, 1000, cpu=1500)).tolist() == pytest.approx([FILL * 1000]), "cpu for one of two"
    shares = mix((1.0, Request(cpu=10, gpu_count=1, gpu_milli=300)))
    assert lost(shares, None, *of(1000)).tolist() == pytest.approx([FILL * 100])
    pairs = mix((1.0, Request(cpu=10, gpu_count=2)))
    assert lost(pairs, None, *of(1000, 1000, 1000)).tolist() == pytest.approx([FILL * 1000])


def test_classes_count_by_their_parts_and_small_shares_count_most() -> None:
    whole, half = Request(cpu=1, gpu_count=1), Request(cpu=1, gpu_count=1, gpu_milli=500)
    assert mix((0.8, whole), (0.2, half)).weights.tolist() == pytest.approx([1 / 2, 1 / 2])
    assert lost(mix((0.8, whole), (0.2, half)), None, *of(500)).tolist() == pytest.approx([250])
    four = Request(cpu=1, gpu_count=4)
    assert mix((0.5, whole), (0.5, four)).weights.tolist() == pytest.approx([1 / 3, 2 / 3]), "by the root of its cards"
    tiny, small = (Request(cpu=1, gpu_count=1, gpu_milli=milli) for milli in (1, SMALLEST))
    assert mix((0.5, tiny), (0.5, small)).weights.tolist() == pytest.approx([0.5, 0.5]), "no share is worth a fleet"


amounts = st.lists(st.integers(0, 1000), min_size=4, max_size=4)


@settings(max_examples=200, deadline=None)
@given(st.lists(amounts, min_size=1, max_size=4), st.lists(requests(), min_size=1, max_size=4), requests())
def test_growth_is_the_difference_of_what_is_lost(cards: list, kinds: list[Request], request: Request) -> None:
    """The kept sums of `growth` against `lost`, asked anew for every card that the request could take."""
    expected = mix(*((1 / len(kinds), kind) for kind in kinds if kind.gpu_count))
    if not expected.requests or request.gpu_count > 4:
        return
    fleet = Fleet.build([row(number, gpu_free=free) for number, free in enumerate(cards)])
    free = fleet.gpu_free
    fitting = np.count_nonzero(free >= request.gpu_milli, axis=1) >= request.gpu_count
    nodes = np.flatnonzero(fitting)
    if not len(nodes):
        return
    more, chosen = growth(fleet, expected, None, request, nodes)
    for node, least, card in zip(nodes, more, chosen, strict=True):
        fits = [index for index in range(4) if free[node, index] >= request.gpu_milli]
        share = request.gpu_count == 1 and request.gpu_milli < 1000
        by_choice = {}
        for choice in [[index] for index in fits] if share else [fits[: request.gpu_count]]:
            after = free[node].copy()
            after[choice] -= request.gpu_milli
            cpu = fleet.cpu[[node]]
            difference = lost(expected, None, cpu - request.cpu, after[None]) - lost(
                expected, None, cpu, free[node][None]
            )
            by_choice[choice[0] if choice else 0] = float(difference[0])
        assert least == pytest.approx(min(by_choice.values()), abs=STEP / 2 + 1e-6)
        if share:
            assert by_choice[int(card)] == pytest.approx(min(by_choice.values()), abs=STEP + 1e-6)


def test_whole_cards_together_are_kept_for_the_members_that_need_them() -> None:
    fleet = Fleet.build([row(0, gpu_free=[1000] * 4), row(1, gpu_free=[1000, 1000, 1000, 900, 900])])
    one = Request(cpu=10, gpu_count=1)
    share = Request(cpu=10, gpu_count=1, gpu_milli=500)
    four = Request(cpu=10, gpu_count=4)
    for others, node in (((0.2, share), 0), ((0.2, four), 1)):
        expect(fleet, mix((0.8, share), others))
        placed = place_gang(fleet, [(one, 1)])
        assert isinstance(placed, Placed)
        assert placed.members[0][2] == node


def test_a_share_goes_to_the_card_on_which_least_is_lost() -> None:
    fleet = Fleet.build([row(0, gpu_free=[1000, 600, 500])])
    expected = mix((0.5, Request(cpu=10, gpu_count=1)), (0.5, Request(cpu=10, gpu_count=1, gpu_milli=500)))
    _, cards = growth(fleet, expected, None, Request(cpu=10, gpu_count=1, gpu_milli=500), np.array([0]))
    assert cards.tolist() == [2]


def test_work_without_gpus_leaves_the_cpu_beside_cards_alone() -> None:
    fleet = Fleet.build([row(0, gpu_free=[1000] * 8, cpu_capacity=8000), row(1, cpu_capacity=8000)])
    expect(fleet, mix((1.0, Request(cpu=1000, gpu_count=1))))
    placed = place_gang(fleet, [(Request(cpu=1000), 1)])
    assert isinstance(placed, Placed)
    assert placed.members[0][2] == 1


def test_cards_of_a_model_are_kept_for_those_who_name_it() -> None:
    fleet = Fleet.build([row(0, gpu_free=[1000], gpu_model="H100"), row(1, gpu_free=[1000], gpu_model="T4")])
    named = Request(cpu=100, gpu_count=1, gpu_models=frozenset({"H100"}))
    expect(fleet, mix((1.0, named)))
    placed = place_gang(fleet, [(Request(cpu=100, gpu_count=1), 1)])
    assert isinstance(placed, Placed)
    assert fleet.names[placed.members[0][2]] == "n1"


def test_the_mix_is_learnt_from_what_arrived_and_stands_still_between() -> None:
    arrivals = Arrivals()
    assert arrivals.mix is None
    arrivals.see(Request(cpu=100), 10)
    assert arrivals.mix is None, "work without GPUs says nothing about cards"
    arrivals.see(Request(cpu=100, gpu_count=1))
    first = arrivals.mix
    assert first is not None
    assert first.parts.tolist() == [1.0]
    arrivals.see(Request(cpu=200, gpu_count=1), 3)
    assert arrivals.mix is first
    arrivals.see(Request(cpu=200, gpu_count=1), FIRST)
    later = arrivals.mix
    assert later is not None
    assert [request.cpu for request in later.requests] == [200, 100]
    assert later.parts.sum() == 1.0


def test_old_work_fades() -> None:
    arrivals = Arrivals()
    old, new = Request(cpu=1, gpu_count=1), Request(cpu=2, gpu_count=1)
    for _ in range(4):
        arrivals.see(old, REMEMBERED // 4)
        _ = arrivals.mix
    for _ in range(400):
        arrivals.see(new, REMEMBERED // 100)
        _ = arrivals.mix
    assert arrivals.mix is not None
    assert arrivals.mix.parts[arrivals.mix.requests.index(new)] > 0.9


@settings(max_examples=200, deadline=None)
@given(node_rows(6), st.lists(requests(), min_size=1, max_size=4), st.lists(st.integers(0, 50), max_size=25))
def test_kept_scores_choose_what_a_fleet_built_anew_chooses(rows: list, kinds: list[Request], steps: list[int]) -> None:
    work = [request for request in kinds if request.gpu_count] or [Request(cpu=100, gpu_count=1)]
    expected = Mix(tuple(work), np.full(len(work), 1 / len(work)))
    fleet = Fleet.build(rows)
    expect(fleet, expected)
    held: list[tuple[Request, int, tuple[int, ...]]] = []
    for step in steps:
        if held and step % 3 == 0:
            request, node, cards = held.pop(step % len(held))
            fleet.give(request, node, cards)
            continue
        request = kinds[step % len(kinds)]
        anew = fleet.fork()
        anew.rankings, anew.changes, anew.capacity_answer = {}, [], None
        groups = [(request, 1)]
        warm, cold = place_gang(fleet, groups), place_gang(anew, groups)
        assert type(warm) is type(cold)
        if isinstance(warm, Placed) and isinstance(cold, Placed):
            assert warm.members == cold.members
            take_members(fleet, groups, warm.members)
            held.append((request, warm.members[0][2], warm.members[0][3]))


def test_a_fork_and_its_fleet_do_not_disturb_each_other() -> None:
    fleet = Fleet.build([row(number, gpu_free=[1000, 1000], memory_free=32 * GIB) for number in range(3)])
    expect(fleet, mix((1.0, Request(cpu=10, gpu_count=1))))
    request = Request(cpu=10, gpu_count=1)
    first = place_gang(fleet, [(request, 1)])
    fork = fleet.fork()
    for _ in range(2):
        placed = place_gang(fork, [(request, 1)])
        assert isinstance(placed, Placed)
        take_members(fork, [(request, 1)], placed.members)
    assert place_gang(fleet, [(request, 1)]) == first
