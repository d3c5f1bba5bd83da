"""The availability profile against a reference that knows nothing of steps: it adds up who is there at an instant."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.fleet import Fleet, Request
from engine.placement import Placed, place_gang
from engine.profile import Places, Profile, placed_at

from .worlds import GIB, row

NOW = 100.0
Span = tuple[Places, float, float]


def fleet_of(cards: list[int], cores: list[int]) -> Fleet:
    return Fleet.build(
        [
            row(number, cpu_capacity=8000, cpu_free=free * 1000, gpu_free=[card] * 2 if card >= 0 else [])
            for number, (card, free) in enumerate(zip(cards, cores, strict=True))
        ]
    )


class Naive:
    """Who gives back what when, and who takes what from when to when; nothing is kept between two questions."""

    def __init__(self, fleet: Fleet, ends: list[tuple[float, Places]]) -> None:
        self.fleet, self.ends, self.taken = fleet, ends, list[Span]()

    def at(self, time: float) -> Fleet:
        fleet = self.fleet.fork()
        fleet.capacity_answer = None
        for end, places in self.ends:
            if end <= time:
                for request, node, cards in places:
                    fleet.give(request, node, cards)
        for places, start, end in self.taken:
            if start <= time < end:
                for request, node, cards in places:
                    fleet.take(request, node, cards)
        return fleet

    def moments(self) -> list[float]:
        moments = {NOW, *(end for end, _ in self.ends)}
        return sorted(moments | {time for _, start, end in self.taken for time in (start, end)})

    def free(self, start: float, duration: float) -> Fleet:
        """The least free of each amount over every moment of the span."""
        fleets = [self.at(time) for time in {start, *(t for t in self.moments() if start <= t < start + duration)}]
        lowest = fleets[0].fork()
        lowest.capacity_answer = None
        for fleet in fleets[1:]:
            lowest.cpu = lowest.cpu.clip(max=fleet.cpu)
            lowest.memory, lowest.storage = lowest.memory.clip(max=fleet.memory), lowest.storage.clip(max=fleet.storage)
            lowest.gpu_free = lowest.gpu_free.clip(max=fleet.gpu_free)
        return lowest

    def earliest(self, groups: list[tuple[Request, int]], duration: float) -> float | None:
        for start in self.moments():
            if isinstance(place_gang(self.free(start, duration), groups), Placed):
                return start
        return None


requests = st.one_of(
    st.builds(Request, cpu=st.integers(1, 8).map(lambda cores: cores * 1000), memory=st.just(GIB)),
    st.builds(Request, cpu=st.just(500), gpu_count=st.just(1), gpu_milli=st.sampled_from([200, 500, 1000])),
    st.builds(Request, cpu=st.just(500), gpu_count=st.just(2)),
)
gangs = st.lists(st.tuples(requests, st.integers(1, 3)), min_size=1, max_size=2)


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Fleet, list[tuple[float, Places]]]:
    """A few nodes on which some jobs run, with the end of each."""
    cards = draw(st.lists(st.sampled_from([-1, 1000]), min_size=1, max_size=3))
    fleet = fleet_of(cards, [8] * len(cards))
    ends: list[tuple[float, Places]] = []
    for _ in range(draw(st.integers(0, 5))):
        groups = draw(gangs)
        placed = place_gang(fleet, groups)
        if isinstance(placed, Placed):
            places = placed_at(groups, placed.members)
            for request, node, taken in places:
                fleet.take(request, node, taken)
            ends.append((NOW + draw(st.integers(1, 50)), places))
    return fleet, ends


@given(worlds(), st.lists(st.tuples(gangs, st.integers(1, 40), st.booleans()), max_size=6))
def test_starts_are_those_of_the_reference(
    world: tuple[Fleet, list[tuple[float, Places]]], asked: list[tuple[list[tuple[Request, int]], int, bool]]
) -> None:
    """Also after reservations were made and given back, and at every instant the same is free."""
    fleet, ends = world
    profile, naive = Profile(fleet, NOW, ends), Naive(fleet, ends)
    for groups, duration, stays in asked:
        slot = profile.earliest(groups, duration)
        assert (slot and slot.start) == naive.earliest(groups, duration)
        if slot is None:
            continue
        places = placed_at(groups, slot.members)
        profile.reserve(places, slot.start, slot.start + duration)
        if stays:
            naive.taken.append((places, slot.start, slot.start + duration))
        else:
            profile.release(places, slot.start, slot.start + duration)
    for time in naive.moments():
        found, expected = profile.free(time), naive.at(time)
        assert found[:, 0].tolist() == expected.cpu.tolist()
        assert found[:, 1].tolist() == expected.memory.tolist()
        assert found[:, 3:].tolist() == expected.gpu_free.tolist()


@given(worlds(), gangs, st.integers(1, 40))
def test_fewer_moments_only_make_starts_later(
    world: tuple[Fleet, list[tuple[float, Places]]], groups: list[tuple[Request, int]], duration: int
) -> None:
    """What is given back is counted later, never earlier, and all of it in the end."""
    fleet, ends = world
    fine, coarse = Profile(fleet, NOW, ends).earliest(groups, duration), None
    coarse = Profile(fleet, NOW, ends, steps=2).earliest(groups, duration)
    assert (fine is None) == (coarse is None)
    assert fine is None or coarse is None or coarse.start >= fine.start


def test_a_reservation_that_does_not_fit_is_refused_and_changes_nothing() -> None:
    fleet = fleet_of([1000], [8])
    profile = Profile(fleet, NOW, [])
    places: Places = [(Request(cpu=5000, gpu_count=2), 0, (0, 1))]
    profile.reserve(places, NOW + 10, NOW + 20)
    before = profile.free(NOW + 10).tolist()
    with pytest.raises(ValueError, match="are not free"):
        profile.reserve(places, NOW + 19, NOW + 30)
    with pytest.raises(ValueError, match="ends before it starts"):
        profile.reserve(places, NOW + 40, NOW + 40)
    assert profile.free(NOW + 10).tolist() == before
    profile.reserve(places, NOW + 20, NOW + 30)


def test_a_hole_before_a_reservation_is_found_if_the_job_is_short_enough() -> None:
    fleet = fleet_of([1000], [8])
    whole = Request(cpu=1000, gpu_count=2)
    profile = Profile(fleet, NOW, [])
    profile.reserve([(whole, 0, (0, 1))], NOW + 60, NOW + 90)
    assert profile.earliest([(whole, 1)], 60) == (NOW, ((0, 0, 0, (0, 1)),))
    slot = profile.earliest([(whole, 1)], 61)
    assert slot is not None
    assert slot.start == NOW + 90


def test_a_start_that_is_refused_for_a_while_is_still_the_first_one() -> None:
    """Others' reserved starts may allow an early one and refuse later ones, up to a moment that is told."""
    fleet = fleet_of([-1], [8])
    ends: list[tuple[float, Places]] = []
    for number in range(1, 41):
        ends.append((NOW + number, [(Request(cpu=1), 0, ())]))
    profile = Profile(fleet, NOW, ends)
    slot = profile.earliest(
        [(Request(cpu=1000), 1)], 5, accept=lambda at: at == NOW + 3 or at >= NOW + 30, accepted_from=NOW + 30
    )
    assert slot is not None and slot.start == NOW + 3
