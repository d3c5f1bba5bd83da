"""Run times from history: quantiles that can be checked by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.estimates import History, kaplan_meier

KEYS = (("vision", "train"), "vision", "all")
LIMIT = 36_000.0


def history(*seconds: float, keys: tuple[object, object, object] = KEYS, prior: float = 5.0) -> History:
    made = History(prior=prior)
    for value in seconds:
        made.add(keys, value)
    return made


def test_without_history_the_limit_is_all_there_is() -> None:
    found = History().estimate(KEYS, LIMIT)
    assert (found.p50, found.p90, found.source, found.samples) == (LIMIT, LIMIT, "limit", 0)


def test_quantiles_of_a_long_history_are_those_of_its_ends() -> None:
    found = history(*range(1, 101), prior=0.0).estimate(KEYS, LIMIT)
    assert (found.p50, found.p90, found.source, found.samples) == (50, 90, "job", 100)


def test_few_ends_leave_weight_to_the_wider_levels_and_the_limit() -> None:
    """One end: the levels get 1/6, 5/36 and 25/216, which leaves 125/216 = 0.58 to the limit, more than half.

    With five: 1/2, 1/4 and 1/8, which leaves 0.125, so only p90 is the limit.
    """
    assert history(60.0).estimate(KEYS, LIMIT).p50 == LIMIT
    five = history(*[60.0] * 5).estimate(KEYS, LIMIT)
    assert (five.p50, five.p90) == (60.0, LIMIT)


def test_a_new_name_is_expected_to_take_what_its_tenant_takes_and_a_new_tenant_what_all_take() -> None:
    made = history(*[60.0] * 50)
    assert made.estimate((("vision", "new"), "vision", "all"), LIMIT).source == "tenant"
    found = made.estimate((("other", "new"), "other", "all"), LIMIT)
    assert (found.p50, found.p90, found.source) == (60.0, 60.0, "all")


def test_the_limit_is_the_most() -> None:
    found = history(*[500.0] * 50).estimate(KEYS, 100.0)
    assert (found.p50, found.p90) == (100.0, 100.0)


def test_a_run_that_goes_on_is_expected_to_be_one_of_the_longer_ones() -> None:
    made = history(*[10.0] * 90, *[1000.0] * 110)
    assert made.estimate(KEYS, LIMIT).p50 == 1000.0
    assert history(*[10.0] * 60, *[1000.0] * 40).estimate(KEYS, LIMIT).p50 == 10.0
    assert history(*[10.0] * 60, *[1000.0] * 40).estimate(KEYS, LIMIT, elapsed=20.0).p50 == 1000.0


def test_a_run_that_has_outlived_everything_known_is_expected_to_take_up_to_as_long_again() -> None:
    found = history(*[10.0] * 50).estimate(KEYS, LIMIT, elapsed=2000.0)
    assert (found.p50, found.p90) == (3000.0, 3800.0)
    assert history(*[10.0] * 50).estimate(KEYS, 2500.0, elapsed=2000.0).p90 == 2500.0


def test_jobs_that_still_run_count_as_at_least_so_long() -> None:
    """Kaplan and Meier's own arithmetic: of 4 at risk one ends at 10; of the 2 that are left after the two
    censored at 15 and 18, one ends at 20: survival 3/4, then 3/4 · 1/2."""
    times, mass = kaplan_meier([10.0, 20.0], [15.0])
    assert times.tolist() == [10.0, 20.0]
    assert mass.tolist() == pytest.approx([1 / 3, 2 / 3])
    times, mass = kaplan_meier([10.0, 20.0], [15.0, 30.0])
    assert mass.tolist() == pytest.approx([1 / 4, 3 / 4 * 1 / 2])
    made = history(*[10.0] * 20, prior=0.0)
    running = {key: [50.0] * 60 for key in KEYS}
    assert made.estimate(KEYS, LIMIT).p50 == 10.0
    assert made.estimate(KEYS, LIMIT, running=running).p50 == LIMIT


def test_only_the_last_ends_count() -> None:
    made = History(window=10, prior=0.0)
    for seconds in [*[1000.0] * 50, *[10.0] * 10]:
        made.add(KEYS, seconds)
    assert made.estimate(KEYS, LIMIT).p90 == 10.0


@given(
    st.lists(st.floats(0, 1e5), max_size=30),
    st.lists(st.floats(0, 1e5), max_size=10),
    st.floats(1, 1e5),
    st.floats(0, 1e5),
)
def test_quantiles_rise_and_stay_between_what_has_run_and_the_limit(
    ends: list[float], running: list[float], limit: float, elapsed: float
) -> None:
    found = history(*ends).quantiles(
        KEYS, limit, np.linspace(0.01, 0.99, 21), elapsed=elapsed, running={"all": running}
    )
    assert (np.diff(found) >= 0).all()
    assert (found >= min(elapsed, limit)).all()
    assert (found <= max(elapsed, limit)).all()
