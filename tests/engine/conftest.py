"""Tests of the pure core: no database, no network, the same examples on every run."""

import socket
from typing import NoReturn

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "engine", max_examples=50, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("engine")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any socket opened by a test of the core is a mistake."""

    def refuse(*args: object, **kwargs: object) -> NoReturn:
        raise AssertionError("a test of the engine opened a socket; the engine does no I/O")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
