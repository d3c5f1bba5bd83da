"""What the environment says is read once, at the start, and a wrong value is refused by the name of its variable."""

import pytest
from django.core.exceptions import ImproperlyConfigured

from apps.core.throttling import parse_rate
from rmportal import environment


@pytest.mark.parametrize(
    ("given", "rate"),
    [("", (60, 60)), ("20/s", (20, 1)), ("600/min", (600, 60)), ("9/hour", (9, 3600)), ("1/day", (1, 86400))],
)
def test_a_rate_that_is_taken_is_one_that_is_counted(monkeypatch: pytest.MonkeyPatch, given: str, rate: object) -> None:
    monkeypatch.setenv("RMPORTAL_RATE_JOIN", given)
    assert parse_rate(environment.rate("RMPORTAL_RATE_JOIN", "60/min")) == rate


@pytest.mark.parametrize("given", ["20", "min/20", "0/min", "20/week", "-1/s", "20 /min"])
def test_a_wrong_rate_stops_the_start(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("RMPORTAL_RATE_JOIN", given)
    with pytest.raises(ImproperlyConfigured, match="RMPORTAL_RATE_JOIN"):
        environment.rate("RMPORTAL_RATE_JOIN", "60/min")


def test_a_wrong_level_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RMPORTAL_LOG_LEVEL", "info")
    assert environment.log_level("RMPORTAL_LOG_LEVEL", "WARNING") == "INFO"
    monkeypatch.setenv("RMPORTAL_LOG_LEVEL", "loud")
    with pytest.raises(ImproperlyConfigured, match="RMPORTAL_LOG_LEVEL='LOUD': expected one of DEBUG"):
        environment.log_level("RMPORTAL_LOG_LEVEL", "WARNING")
