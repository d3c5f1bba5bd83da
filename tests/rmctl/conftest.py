"""A portal, and a command line that is told where it is."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rmctl.cli import main, output

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


class Done:
    """How a command ended and what it wrote."""

    def __init__(self, status: int, out: bytes, err: bytes) -> None:
        self.status, self.bytes = status, out
        self.out, self.err = out.decode(errors="replace"), err.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def rm(capfdbinary: pytest.CaptureFixture[bytes]) -> Any:
    """Run a command in this process."""

    def run(*arguments: str) -> Done:
        output.stdout.cache_clear()
        output.stderr.cache_clear()
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        sys.stdout.flush()
        written = capfdbinary.readouterr()
        code = ended.value.code
        return Done(code if isinstance(code, int) else 0, written.out, written.err)

    return run
