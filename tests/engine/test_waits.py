"""When a sensor is poked next."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.waits import next_poke


@given(
    st.floats(0.1, 1e5), st.floats(1, 100), st.floats(0.1, 1e6), st.integers(1, 10_000), st.floats(0, 1e7)
)
def test_it_follows_the_formula_and_ends_at_the_deadline(
    interval: float, factor: float, cap: float, pokes: int, left: float
) -> None:
    now = 1e9
    deadline = now + left
    found = next_poke(interval=interval, factor=factor, cap=cap, pokes=pokes, now=now, deadline=deadline)
    if deadline == now:  # Also where `left` is too small to move a time of this size.
        assert found is None
        return
    assert found is not None
    wanted = interval
    for _ in range(pokes - 1):
        wanted *= factor
        if wanted >= max(cap, interval) or factor == 1:
            break
    assert found == pytest.approx(now + min(wanted, max(cap, interval), left), abs=1e-3)
    assert found <= deadline


def test_a_series_that_is_none_is_refused() -> None:
    for wrong in ({"interval": 0}, {"factor": 0.5}, {"pokes": 0}):
        with pytest.raises(ValueError, match="interval"):
            next_poke(**{"interval": 1, "factor": 1, "cap": 1, "pokes": 1, "now": 0, "deadline": 1, **wrong})
