"""A portal, and a command line that is told where it is."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from .portal import FakePortal


@pytest.fixture
def portal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakePortal]:
    """A fake portal, configured by the environment; no configuration file of the machine is read."""
    made = FakePortal()
    monkeypatch.setenv("RMCTL_URL", made.url)
    monkeypatch.setenv("RMCTL_TOKEN", "secret-token")
    monkeypatch.delenv("RMCTL_TENANT", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    yield made
    made.close()
