"""A real agent process for each module's tests, against a portal that lives in the test process."""

import hashlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rmctl.agent import cgroups, process
from rmctl.agent.main import join
from rmctl.agent.protocol import Assignment, Stop
from tests.agent.portal import TOKEN, WAIT_SECONDS, TestPortal

RUN = "import sys; from rmctl.agent.main import run; sys.exit(run(None, sys.argv[1]))"
PROJECT = Path(__file__).resolve().parents[2]


class Agent:
    """One agent with its own portal and data folder; `start` and `kill` it as often as a test likes."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.portal = TestPortal()
        self.process: subprocess.Popen[bytes] | None = None
        self._ids = itertools.count(1)

    def start(self) -> None:
        connections = len(self.portal.hellos)
        with open(self.data / "agent.log", "ab") as log:
            environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(PROJECT), "AGENT_ONLY": "yes"}
            self.process = subprocess.Popen(
                [sys.executable, "-c", RUN, str(self.data)], env=environment, stdout=log, stderr=log
            )
        self.portal.wait_for(lambda: len(self.portal.hellos) > connections, "the agent to connect")

    def signal(self, number: signal.Signals) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(WAIT_SECONDS)

    def assignment(self, script: str, **changes: Any) -> Assignment:
        values: dict[str, Any] = {
            "placement": next(self._ids), "token": 1, "job": 11, "attempt": 1, "name": "test", "tenant": "vision",
            "command": ["bash", "-c", script], "time_limit_seconds": 60.0, "grace_seconds": 2.0,
        }  # fmt: skip
        return Assignment(**(values | changes))

    def run(self, script: str, **changes: Any) -> int:
        """Start a script; returns its placement."""
        assignment = self.assignment(script, **changes)
        self.portal.push(assignment)
        return assignment.placement

    def folder(self, placement: int, token: int = 1) -> Path:
        return self.data / "tasks" / f"{placement}-{token}"

    def wait_forgotten(self, placement: int) -> None:
        """Until the agent says by a beat that it does not hold the placement any more."""
        seen = len(self.portal.beats)
        self.portal.wait_for(
            lambda: any(
                all(item.placement != placement for item in beat.held) for beat in self.portal.beats[seen:]
            ),
            f"the agent to forget {placement}",
        )

    def wait_folder_gone(self, placement: int) -> None:
        """Large folders are removed in a thread, so this may be after the agent forgot the placement."""
        self.portal.wait_for(lambda: not self.folder(placement).exists(), f"the folder of {placement} to go")

    def close(self) -> None:
        held = self.portal.beats[-1].held if self.portal.beats else []
        if self.process is not None and self.process.poll() is None:
            if held:
                self.portal.push(stop=[Stop(item.placement, item.token, 0.0) for item in held])
                for item in held:
                    self.wait_forgotten(item.placement)
            self.signal(signal.SIGTERM)
        for entry in (self.data / "tasks").iterdir():
            if (shell := process.find_shell(str(entry))) is not None:
                process.kill(shell, [])
                os.kill(shell, signal.SIGKILL)
        self.portal.stop()
        name = "rmportal-" + hashlib.sha256(str(self.data).encode()).hexdigest()[:8]
        left = [folder for _, folder in cgroups.own_groups().values() if os.path.exists(f"{folder}/{name}")]
        assert not left, f"groups were left behind in {left}"


def make_agent(root: Path) -> Agent:
    data = root / "agent"
    data.mkdir(mode=0o711)
    agent = Agent(data)
    agent.portal.start()
    join(agent.portal.url, TOKEN, "node-7", str(data))
    agent.start()
    return agent


@pytest.fixture(scope="module")
def root() -> Iterator[Path]:
    # Not pytest's own temporary folder: that one keeps other users out, and tasks run as another user.
    folder = tempfile.mkdtemp(prefix="rmportal-agent-")
    os.chmod(folder, 0o711)
    yield Path(folder)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def agent(root: Path) -> Iterator[Agent]:
    """An agent that the tests of a module share."""
    found = make_agent(root)
    yield found
    found.close()


@pytest.fixture
def own_agent() -> Iterator[Agent]:
    """An agent of the test's own, to kill."""
    folder = tempfile.mkdtemp(prefix="rmportal-agent-")
    os.chmod(folder, 0o711)
    found = make_agent(Path(folder))
    yield found
    found.close()
    shutil.rmtree(folder)


@pytest.fixture
def needs(agent: Agent) -> Callable[..., None]:
    """Skip unless this node enforces something in one of the given ways, e.g. needs(memory="cgroup")."""

    def check(**ways: str) -> None:
        isolation = agent.portal.hellos[-1].inventory.isolation
        for what, way in ways.items():
            if not getattr(isolation, what).startswith(way):
                pytest.skip(
                    f"this machine limits {what} by {getattr(isolation, what)!r}, the test needs {way!r}"
                )

    return check
