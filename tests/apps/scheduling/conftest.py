"""What tests of the scheduler share."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone


@pytest.fixture
def clock(monkeypatch: Any) -> Any:
    """A clock that the test moves; the database is told the same times, as all of them are arguments."""
    now = [timezone.now()]
    monkeypatch.setattr(timezone, "now", lambda: now[0])

    def move(seconds: float) -> datetime:
        now[0] += timedelta(seconds=seconds)
        return now[0]

    return move
