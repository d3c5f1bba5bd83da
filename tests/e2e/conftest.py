"""One real portal for the end-to-end tests: `./portal demo` on a clean folder, as a new user starts it."""

import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).resolve().parents[2]
PERSON = re.compile(r"^\s*(\w+)\s+(\S{12,})\s+(operator|provider|admin|member|auditor)\b")
START_SECONDS = 300


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class DemoPortal:
    """The running demo: where it is, who can sign in, and what it printed."""

    url: str
    data: Path
    process: "subprocess.Popen[str]"
    output: list[str] = field(default_factory=list)
    people: dict[str, str] = field(default_factory=dict)

    def portal(self, *arguments: str, **options: Any) -> "subprocess.CompletedProcess[str]":
        """Run `./portal …` for this data folder."""
        command = [str(ROOT / "portal"), *arguments, "--data", str(self.data)]
        return subprocess.run(command, capture_output=True, text=True, env=clean_environment(), **options)

    def processes(self) -> dict[str, int]:
        """Process ids by name, as `./portal status` tells them."""
        answer = json.loads(self.portal("status", "--json", check=True).stdout)
        return {item["name"]: item["pid"] for item in answer["processes"] if item["pid"]}

    def client(self, username: str) -> httpx.Client:
        """An API client of a person, with a token from the login route."""
        body = {"username": username, "password": self.people[username], "name": "tests"}
        answer = httpx.post(f"{self.url}/api/v1/login", json=body, timeout=30).raise_for_status()
        token = answer.json()["token"]
        return httpx.Client(
            base_url=f"{self.url}/api/v1/", headers={"Authorization": f"Bearer {token}"}, timeout=30
        )


def clean_environment() -> dict[str, str]:
    """The environment of a person's shell: nothing of the test run's own servers."""
    ours = ("DATABASE_URL", "REDIS_URL", "RMPORTAL_", "RMCTL_", "DJANGO_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoPortal]:
    data = tmp_path_factory.mktemp("demo") / "data"
    port = free_port()
    process = subprocess.Popen(
        [str(ROOT / "portal"), "demo", "--port", str(port), "--data", str(data)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=clean_environment(),
        start_new_session=True,
    )
    found = DemoPortal(url=f"http://127.0.0.1:{port}", data=data, process=process)
    ready = threading.Event()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            found.output.append(line.rstrip())
            person = PERSON.match(line)
            if person:
                found.people[person[1]] = person[2]
            if "demo run finished" in line or "demo run failed" in line:
                ready.set()
        ready.set()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    ready.wait(START_SECONDS)
    if not any("demo run finished" in line for line in found.output):
        os.killpg(process.pid, signal.SIGTERM)
        pytest.fail("./portal demo did not finish its run:\n" + "\n".join(found.output[-40:]))
    yield found
    process.send_signal(signal.SIGINT)
    try:
        process.wait(60)
        reader.join(10)
        assert process.stdout is not None
        process.stdout.close()
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        pytest.fail("./portal demo did not stop on Ctrl-C within a minute")


def wait_until(condition: Any, seconds: float, what: str) -> Any:
    """The first true value of `condition()`; fails with `what` when it takes longer."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            value = condition()
        except httpx.TransportError:
            value = None
        if value:
            return value
        time.sleep(0.1)
    pytest.fail(f"waited {seconds} s for {what}")
