"""Nodes that are lent in windows and up to a cap."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from engine.amounts import duration_text
from engine.constraints import Apart, Together
from engine.cycle import decide
from engine.fleet import Fleet, NodeRow, Request
from engine.lending import UNLIMITED, Lending, Offer, Span
from engine.placement import Placed, Unplaced, candidates, feasibility, place_gang
from engine.profile import Places, Profile
from engine.quota import Limit, Node, QuotaTree
from engine.reasons import Reason
from engine.snapshot import Candidate, PoolView, Snapshot
from engine.suggestions import suggestions
from engine.topology import Constraint

OWNER, OTHER, THIRD = 1, 2, 3
HOUR = 3600.0
NIGHT = (Span(0.0, 8 * HOUR, "18:00 on Mon"), Span(24 * HOUR, 32 * HOUR, "18:00 on Tue"))
CAP = (4000, UNLIMITED, UNLIMITED)


def fleet(*lendings: Lending | None, now: float | None = None, cpu: int = 8000) -> Fleet:
    made = Fleet.build(
        [
            NodeRow(
                id=number, name=f"node-{number}", cpu_free=cpu, memory_free=64, storage_free=64, cpu_capacity=cpu,
                memory_capacity=64, storage_capacity=64, lending=lending,
            )
            for number, lending in enumerate(lendings, 1)
        ]
    )  # fmt: skip
    if made.terms is not None:
        made.terms = made.terms.at(now)
    return made


def asks(consumer: int = OTHER, hours: float = 1.0, cpu: int = 1000) -> Request:
    return Request(cpu=cpu, consumer=consumer, limit=hours * HOUR)


def windowed(**more: object) -> Lending:
    return Lending(OWNER, (Offer(7, spans=NIGHT, longest=8 * HOUR, **more),))  # type: ignore[arg-type]


def capped(*more: Offer) -> Lending:
    return Lending(OWNER, (Offer(7, cap=CAP), *more))


def nodes(outcome: Placed | Unplaced) -> list[int]:
    assert isinstance(outcome, Placed), outcome
    return [member[2] for member in outcome.members]


def test_a_fleet_that_is_lent_without_bounds_asks_nothing() -> None:
    assert fleet(None, None).terms is None
    assert nodes(place_gang(fleet(None), [(asks(), 1)])) == [0]


def test_the_time_limit_ends_before_the_window_does() -> None:
    night = fleet(windowed(), now=6 * HOUR)
    assert nodes(place_gang(night, [(asks(hours=2), 1)])) == [0]
    refused = place_gang(night, [(asks(hours=2.1), 1)])
    assert isinstance(refused, Unplaced) and refused.reason is Reason.WAITING_FOR_CAPACITY
    assert "the time limit of 2 h 6 min" in refused.detail
    assert "node-1 is lent again from 18:00 on Tue" in refused.detail
    assert [(step.filter, step.rejected) for step in refused.funnel.steps if step.rejected] == [("window", 1)]


def test_outside_of_the_window_other_nodes_are_taken_and_the_closed_one_is_named() -> None:
    day = fleet(windowed(), None, now=12 * HOUR)
    assert nodes(place_gang(day, [(asks(), 1)])) == [1]
    refused = place_gang(day, [(asks(cpu=5000), 2)])
    assert isinstance(refused, Unplaced)
    assert "1 of 2 members find room now" in refused.detail and "node-1 is lent again" in refused.detail


def test_a_limit_longer_than_every_window_never_starts_and_no_time_is_no_obstacle() -> None:
    never = feasibility(fleet(windowed(), now=12 * HOUR), [(asks(hours=9), 1)])
    assert never is not None and never.reason is Reason.NO_NODE_MATCHES
    assert "being lent for 9 h at a time" in never.detail
    assert feasibility(fleet(windowed(), now=12 * HOUR), [(asks(hours=8), 3)]) is None


def test_the_cap_counts_others_over_all_nodes_and_never_the_owner() -> None:
    lending = capped()
    both = fleet(lending, lending, now=0.0)
    assert len(nodes(place_gang(both, [(asks(), 4)]))) == 4
    refused = place_gang(both, [(asks(), 5)])
    assert isinstance(refused, Unplaced) and refused.reason is Reason.EXCEEDS_EVERY_NODE
    assert len(nodes(place_gang(both, [(asks(OWNER), 16)]))) == 16
    for node in (0, 0, 1):
        both.take(asks(), node, ())
    assert len(nodes(place_gang(both, [(asks(), 1)]))) == 1
    refused = place_gang(both, [(asks(cpu=2000), 1)])
    assert isinstance(refused, Unplaced) and refused.reason is Reason.WAITING_FOR_CAPACITY
    assert "others may hold 1 cpu more" in refused.detail
    both.give(asks(), 0, ())
    assert nodes(place_gang(both, [(asks(cpu=2000), 1)]))


def test_a_cap_on_one_cluster_sends_members_to_another() -> None:
    first, second = capped(), Lending(OWNER, (Offer(8, cap=CAP),))
    placed = nodes(place_gang(fleet(first, second, now=0.0), [(asks(), 8)]))
    assert sorted(placed) == [0] * 4 + [1] * 4


def test_members_that_are_near_or_apart_keep_to_the_cap_too() -> None:
    first, second = capped(), Lending(OWNER, (Offer(8, cap=CAP),))
    made = fleet(first, first, second, now=0.0)
    near = replace(asks(), together=Together(levels=("node",), constraint=Constraint.PREFERRED, level="node"))
    made.labels = [{"node": f"node-{number}"} for number in range(3)]
    assert len(nodes(place_gang(made, [(near, 4)]))) == 4
    # One node would hold all, but for its cap.
    assert len(nodes(place_gang(made, [(near, 8)]))) == 8
    made.take(asks(cpu=2000), 0, ())
    required = replace(near, together=Together(levels=("node",), constraint=Constraint.REQUIRED, level="node"))
    assert nodes(place_gang(made, [(required, 3)])) == [2, 2, 2]
    made.give(asks(cpu=2000), 0, ())
    refused = place_gang(made, [(near, 9)])
    assert isinstance(refused, Unplaced) and refused.reason is Reason.EXCEEDS_EVERY_NODE
    spread = replace(asks(), apart=Apart(key="node", most=3, max_skew=None))
    assert sorted(nodes(place_gang(made, [(spread, 7)])))[-3:] == [2, 2, 2]
    assert isinstance(place_gang(made, [(spread, 8)]), Unplaced)


def test_one_offer_must_be_open_and_have_room_and_another_may_be_it() -> None:
    # To everybody at night up to 4 cpu; to the third domain always and without a cap.
    lending = Lending(OWNER, (Offer(7, spans=NIGHT, longest=8 * HOUR, cap=CAP), Offer(8, frozenset({THIRD}))))
    day = fleet(lending, now=12 * HOUR)
    assert isinstance(place_gang(day, [(asks(OTHER), 1)]), Unplaced)
    assert len(nodes(place_gang(day, [(asks(THIRD), 8)]))) == 8
    night = fleet(lending, now=HOUR)
    for _ in range(4):
        night.take(asks(THIRD), 0, ())  # It is admitted by the first offer too, so it counts there.
    assert isinstance(place_gang(night, [(asks(OTHER), 1)]), Unplaced)
    assert nodes(place_gang(night, [(asks(THIRD), 1)]))


def test_forks_have_accounts_of_their_own_and_empty_fleets_all_of_them() -> None:
    one = fleet(capped(), now=0.0)
    twin = one.fork()
    twin.take(asks(cpu=4000), 0, ())
    assert one.terms is not None and twin.terms is not None
    assert (one.terms.left[0, 0], twin.terms.left[0, 0]) == (4000, 0)
    empty = twin.empty().terms
    assert empty is not None and empty.left[0, 0] == 4000 and empty.now is None


def test_what_is_left_is_counted_from_what_domains_hold() -> None:
    lending = capped()
    terms = fleet(lending, now=0.0).terms
    assert terms is not None
    held = {(5, OWNER): (9000, 1, 0), (5, OTHER): (1000, 1, 0), (5, THIRD): (500, 1, 0), (6, OTHER): (1, 1, 1)}
    assert terms.left_after(held, {5: lending})[0, 0] == 2500
    assert np.array_equal(terms.left_after({}, {5: lending}), terms.caps)


def test_requests_for_other_domains_or_limits_are_others() -> None:
    assert len({asks(), asks(THIRD), asks(hours=2), replace(asks())}) == 3


def test_a_shorter_time_limit_is_suggested_if_it_starts_the_job_now() -> None:
    made = fleet(windowed(), windowed(), now=6 * HOUR - 30)
    made.take(asks(OWNER, cpu=7500), 0, ())
    tree = QuotaTree([Node(1, None, "all", {("any", "cpu"): Limit(10**6)})], {})
    job = Candidate(5, 1, 0, 0.0, [(asks(hours=3), 1)], {"cpu": 1000}, "pool")
    everywhere = np.ones(2, dtype=np.bool_)
    snapshot = Snapshot(fleet=made, pools={"pool": PoolView(everywhere, [("any", everywhere)])}, tree=tree,
                        candidates=[job])  # fmt: skip
    (found,) = suggestions(snapshot, 5, now=6 * HOUR - 30)
    assert (found.field, found.before, found.after) == ("time_limit", 3 * HOUR, 2 * HOUR)
    assert found.text == "a time limit of 2 h instead of 3 h: now"
    (verdict,) = decide(found.apply(snapshot), now=6 * HOUR - 30)
    assert verdict.outcome == "grant" and verdict.members[0][2] == 1


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.5, "0.5 s"), (60, "1 min"), (7201, "2 h 1 s"), (90061, "1 day 1 h"), (14 * HOUR, "14 h"), (172800, "2 days")],
)
def test_durations_are_told_in_two_units(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


# Over time


def earliest(made: Fleet, ends: list[tuple[float, Places]], request: Request, count: int = 1) -> float | None:
    assert made.terms is not None and made.terms.now is not None
    profile = Profile(made, made.terms.now, ends, openings=made.terms.openings(48 * HOUR))
    slot = profile.earliest([(request, count)], HOUR)
    return None if slot is None else slot.start


def test_a_start_is_found_when_the_window_opens() -> None:
    day = fleet(windowed(), now=12 * HOUR)
    assert earliest(day, [], asks()) == 24 * HOUR
    assert earliest(day, [(13 * HOUR, [(asks(), 0, ())])], asks(hours=8)) == 24 * HOUR


def test_a_start_that_would_end_after_the_window_is_put_off_to_the_next() -> None:
    night = fleet(windowed(), now=6 * HOUR)
    busy = [(asks(cpu=8000), 0, ())]
    for member in busy:
        night.take(*member)
    ends = [(6.5 * HOUR, busy)]
    assert earliest(night, ends, asks(hours=1.5)) == 6.5 * HOUR
    assert earliest(night, ends, asks(hours=2)) == 24 * HOUR


def test_a_start_is_found_when_others_give_back_what_the_cap_counts() -> None:
    lending = capped()
    made = fleet(lending, lending, now=0.0)
    places: list[Places] = [[(asks(cpu=2000), 0, ())], [(asks(THIRD, cpu=2000), 1, ())], [(asks(OWNER), 1, ())]]
    for ((request, node, cards),) in places:
        made.take(request, node, cards)
    ends = [(30.0, places[0]), (20.0, places[1]), (10.0, places[2])]
    assert earliest(made, ends, asks(OWNER)) == 0.0
    assert earliest(made, ends, asks()) == 20.0
    assert earliest(made, ends, asks(), count=3) == 30.0


def test_what_is_reserved_counts_against_the_cap_for_as_long() -> None:
    lending = capped()
    made = fleet(lending, lending, now=0.0)
    profile = Profile(made, 0.0, [])
    profile.reserve([(asks(cpu=4000), 0, ())], 100.0, 200.0)
    assert profile.fits([(asks(), 1, ())], 0.0, 100.0)
    assert not profile.fits([(asks(), 1, ())], 0.0, 101.0)
    assert profile.fits([(asks(OWNER), 1, ())], 0.0, 101.0)
    with pytest.raises(ValueError, match="not free"):
        profile.reserve([(asks(), 1, ())], 150.0, 160.0)
    profile.release([(asks(cpu=4000), 0, ())], 100.0, 200.0)
    assert profile.fits([(asks(), 1, ())], 0.0, 300.0)


OFFERS = st.lists(
    st.builds(
        Offer,
        id=st.integers(0, 1 << 40),
        consumers=st.sampled_from([None, frozenset({OTHER}), frozenset({OTHER, THIRD}), frozenset({OWNER})]),
        spans=st.sampled_from([None, NIGHT]),
        longest=st.just(8 * HOUR),
        cap=st.sampled_from([None, (3000, UNLIMITED, UNLIMITED), (UNLIMITED, 2, 0)]),
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda offer: offer.id,
)


@given(
    st.lists(OFFERS, min_size=1, max_size=2),
    st.lists(st.tuples(st.sampled_from([OWNER, OTHER, THIRD]), st.integers(0, 3)), max_size=6),
    st.sampled_from([OWNER, OTHER, THIRD]),
    st.sampled_from([0.0, 7.5 * HOUR, 12 * HOUR]),
    st.integers(1, 5),
)
def test_members_go_exactly_where_one_offer_allows_it(
    offers: list[list[Offer]], taken: list[tuple[int, int]], consumer: int, now: float, count: int
) -> None:
    known = {offer.id for some in offers for offer in some}
    assume(len(known) == sum(map(len, offers)))
    lendings = [Lending(OWNER, tuple(some)) for some in offers]
    rows = [lendings[0], lendings[-1], None, lendings[0]]
    made = fleet(*rows, now=now)
    held: dict[tuple[int, int], int] = {}
    for domain, node in taken:
        made.take(Request(cpu=500, memory=1, consumer=domain), node, ())
        lending = rows[node]
        if lending is not None:
            held[lendings.index(lending), domain] = held.get((lendings.index(lending), domain), 0) + 1

    def allowed(lending: Lending | None, more: int) -> bool:
        """By the rule in docs/scheduling.md: an open offer that admits the domain, and its cap not used up."""
        if lending is None:
            return True
        for offer in lending.offers:
            if offer.consumers is not None and consumer not in offer.consumers:
                continue
            if offer.spans is not None and not any(s.start <= now and now + HOUR <= s.end for s in offer.spans):
                continue
            if offer.cap is None or consumer == OWNER:
                return True
            others = sum(
                members for (place, domain), members in held.items()
                if lendings[place] is lending and domain != OWNER
                and (offer.consumers is None or domain in offer.consumers)
            )  # fmt: skip
            if (others + more) * 500 <= offer.cap[0] and others + more <= offer.cap[1]:
                return True
        return False

    request = Request(cpu=500, memory=1, consumer=consumer, limit=HOUR)
    if count == 1:
        _, mask = candidates(made, request)
        assert mask.tolist() == [allowed(row, 1) for row in rows]
    outcome = place_gang(made, [(request, count)], allowed=np.array([True, True, False, True]))
    if isinstance(outcome, Placed):
        for place, lending in enumerate(lendings):
            more = sum(rows[member[2]] is lending for member in outcome.members)
            assert not more or lendings.index(lending) != place or allowed(lending, more)
    else:
        rooms = [max((n for n in range(1, count + 1) if allowed(one, n)), default=0) for one in set(rows[:2])]  # type: ignore[arg-type]
        assert sum(rooms) < count
