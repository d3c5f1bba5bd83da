"""Estimated starts are stretched by how wrong the earlier ones were."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.calibration import LEAST, SCALE, WINDOW, Earlier, Stretch, stretch_of
from engine.forecast import Start

NOW = 1_000_000.0


def earlier(made: float, *, p50: float, p90: float, waited: float, started: bool = True) -> Earlier:
    return Earlier(made, made + p50, made + p90, made + waited, started)


def test_without_enough_starts_nothing_is_stretched() -> None:
    few = [earlier(NOW, p50=60, p90=120, waited=9000) for _ in range(LEAST - 1)]
    waiting = [earlier(NOW, p50=60, p90=120, waited=9000, started=False) for _ in range(100)]
    assert stretch_of([]) == Stretch()
    assert stretch_of([*few, *waiting]) == Stretch(samples=LEAST - 1)
    assert Stretch().apply(Start(NOW + 60, NOW + 120), NOW) == Start(NOW + 60, NOW + 120)


def test_waits_that_were_three_times_as_long_stretch_the_next_one() -> None:
    """(3000 + 600) / (1000 + 600) = 2.25 for p50 and (3000 + 600) / (2000 + 600) for p90."""
    found = stretch_of([earlier(NOW, p50=1000, p90=2000, waited=3000) for _ in range(20)])
    assert (found.p50, found.p90, found.samples) == (pytest.approx(2.25), pytest.approx(3600 / 2600), 20)
    told = found.apply(Start(NOW + 1000, NOW + 2000), NOW)
    assert (told.p50, told.p90) == (pytest.approx(NOW + 3000), pytest.approx(NOW + 3000))


def test_those_that_still_wait_count_as_at_least_so_long() -> None:
    """Ten of twenty started as estimated; the rest has outlived that by far, so nine of ten take at least as long."""
    quick = [earlier(NOW, p50=1000, p90=1000, waited=1000) for _ in range(10)]
    slow = [earlier(NOW, p50=1000, p90=1000, waited=9000, started=False) for _ in range(10)]
    found = stretch_of([*quick, *slow])
    assert found.p50 == pytest.approx(1.0)
    assert found.p90 == pytest.approx((9000 + SCALE) / (1000 + SCALE))


def test_only_the_latest_count() -> None:
    wrong = [earlier(NOW - 100, p50=10, p90=10, waited=9000) for _ in range(WINDOW)]
    right = [earlier(NOW, p50=10, p90=10, waited=10) for _ in range(WINDOW)]
    assert stretch_of([*right, *wrong]) == stretch_of(right) == Stretch(1.0, 1.0, WINDOW)


@given(st.floats(0.2, 5.0), st.floats(0.2, 5.0), st.floats(0.0, 1e6), st.floats(0.0, 1e6), st.floats(-1e4, 1e4))
def test_what_is_told_is_ordered_and_not_in_the_past(
    first: float, second: float, p50: float, longer: float, shift: float
) -> None:
    made = Start(NOW + shift + p50, NOW + shift + p50 + longer)
    told = Stretch(first, second, 50).apply(made, NOW)
    assert NOW <= told.p50 <= told.p90


def test_nine_of_ten_start_by_what_is_told() -> None:
    """Waits that are on average three times what was estimated, with a wide spread; the first 100 are not judged."""
    chance = Random(7)
    seen: list[Earlier] = []
    right = {"p50": 0, "p90": 0}
    rounds = 1500
    for number in range(rounds):
        estimated = chance.uniform(100, 20_000)
        made = Start(NOW + estimated, NOW + 1.5 * estimated)
        told = stretch_of(seen).apply(made, NOW)
        started = NOW + estimated * chance.lognormvariate(1.0, 0.8)
        if number >= 100:
            right["p50"] += started <= told.p50
            right["p90"] += started <= told.p90
        seen.append(Earlier(NOW + number, made.p50 + number, made.p90 + number, started + number, started=True))
    assert 0.45 <= right["p50"] / (rounds - 100) <= 0.55
    assert 0.87 <= right["p90"] / (rounds - 100) <= 0.93
