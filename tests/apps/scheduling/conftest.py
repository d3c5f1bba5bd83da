"""What tests of the scheduler share."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone


@pytest.fixture
def clock(monkeypatch: Any) -> Any:
    """A clock at noon of a Wednesday, which the test moves; the database is told the same times, as arguments."""
    now = [datetime(2026, 11, 18, 12, tzinfo=UTC)]
    monkeypatch.setattr(timezone, "now", lambda: now[0])

    def move(seconds: float) -> datetime:
        now[0] += timedelta(seconds=seconds)
        return now[0]

    return move
