"""What the launcher's tests share."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from deploy.local.folder import DataFolder
from deploy.local.supervisor import Service, Supervisor

ROOT = Path(__file__).resolve().parent.parent.parent
WAIT_SECONDS = 30.0


async def until(true: Callable[[], bool]) -> None:
    """Wait for a condition that something else brings about; fails the test when it does not come."""
    async with asyncio.timeout(WAIT_SECONDS):
        while not true():
            await asyncio.sleep(0.01)


def python_service(name: str, code: str, **more: object) -> Service:
    """A service that runs a line of Python."""
    return Service(name=name, argv=[sys.executable, "-c", code], environment={}, folder="/", **more)  # type: ignore[arg-type]


@pytest.fixture
def data(tmp_path: Path) -> Iterator[DataFolder]:
    """An opened data folder; its sockets, which may stand elsewhere, go with it."""
    folder = DataFolder(tmp_path / "data")
    folder.open()
    yield folder
    folder.delete()


@pytest.fixture
def told() -> list[str]:
    """What the supervisor told people."""
    return []


@pytest.fixture
async def supervisor(data: DataFolder, told: list[str]) -> AsyncIterator[Supervisor]:
    """A supervisor of which nothing is left after the test."""
    supervisor = Supervisor(data.run, data.log, told.append)
    yield supervisor
    for name in supervisor.members:
        await supervisor.stop(name)
