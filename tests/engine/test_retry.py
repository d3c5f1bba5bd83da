"""Back-off and the meaning of ends."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.retry import classify_end, next_delay

policies = st.fixed_dictionaries(
    {
        "delay": st.floats(0, 1e4),
        "factor": st.floats(1, 10),
        "max_delay": st.floats(0, 1e5),
        "jitter": st.floats(0, 1),
    }
)
EXACT = {"limit": 3, "delay": 5.0, "factor": 2.0, "max_delay": 60.0, "jitter": 0.0}


def test_without_jitter_the_delay_doubles_up_to_its_cap() -> None:
    assert [next_delay(EXACT, n, seed=1) for n in range(1, 7)] == [5, 10, 20, 40, 60, 60]


@given(policies, st.integers(1, 10**9), st.integers())
def test_a_delay_is_bounded_and_repeatable(policy: dict[str, float], failures: int, seed: int) -> None:
    delay = next_delay(policy, failures, seed=seed)
    assert 0 <= delay <= policy["max_delay"]
    assert delay == next_delay(policy, failures, seed=seed)
    if failures == 1 and policy["delay"] <= policy["max_delay"]:
        low, high = (policy["delay"] * (1 + sign * policy["jitter"]) for sign in (-1, 1))
        assert low * (1 - 1e-9) <= delay <= high * (1 + 1e-9)


def test_jitter_spreads_jobs_and_tries() -> None:
    policy = {**EXACT, "jitter": 0.2}
    delays = {next_delay(policy, 1, seed=seed) for seed in range(100)}
    assert len(delays) == 100
    assert 4 <= min(delays) < 4.3 and 5.7 < max(delays) <= 6


@pytest.mark.parametrize("change", [{"delay": -1}, {"factor": 0.5}, {"jitter": 1.5}, {"max_delay": -1}])
def test_a_bad_policy_is_refused(change: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="a retry policy needs"):
        next_delay({**EXACT, **change}, 1, seed=0)
    with pytest.raises(ValueError, match="at least 1"):
        next_delay(EXACT, 0, seed=0)


@pytest.mark.parametrize(
    ("reason", "exit_code", "expected"),
    [
        ("exited", 0, "success"),
        ("exited", 1, "failure"),
        ("exited", None, "failure"),
        ("time_limit", None, "failure"),
        ("memory_limit", 137, "failure"),
        ("storage_limit", None, "failure"),
        ("pids_limit", None, "failure"),
        ("result_invalid", 0, "failure"),
        ("secret_missing", None, "failure"),
        ("stopped", None, "cancelled"),
        ("lost", None, "lost"),
        ("refused", None, "lost"),
    ],
)
def test_every_end_has_its_meaning(reason: str, exit_code: int | None, expected: str) -> None:
    assert classify_end(reason, exit_code) == expected


def test_an_unknown_end_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown end reason 'melted'"):
        classify_end("melted", 0)
