"""Fixtures of the tests of execution."""

import pytest


@pytest.fixture
def one_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sockets work in the test's own transaction: Channels would close its connection after each call."""
    from django.db.backends.base.base import BaseDatabaseWrapper

    monkeypatch.setattr(BaseDatabaseWrapper, "close_if_unusable_or_obsolete", lambda wrapper: None)
