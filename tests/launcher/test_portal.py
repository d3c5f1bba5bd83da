"""The whole portal: up, killed, up again, stopped. What every part needs to work together."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from deploy.local.folder import DataFolder
from deploy.local.processes import Identified
from deploy.local.stack import free_port

from .conftest import ROOT
from .running import start


def services(data: Path) -> dict[str, Identified]:
    """What runs, by name."""
    found = {name: Identified.of(item["pid"]) for name, item in DataFolder(data).state()["services"].items()}
    assert all(found.values())
    return {name: process for name, process in found.items() if process is not None}


def test_up_killed_and_up_again_leaves_nothing_behind(tmp_path: Path) -> None:
    data, port = tmp_path / "data", free_port()
    with start(data, port) as process:
        first = services(data)
        assert set(first) == {"postgres", "redis", "web", "worker", "beat", "agent"}
        asked = subprocess.run(
            [sys.executable, str(ROOT / "portal"), "status", "--json", "--data", str(data)],
            capture_output=True,
            text=True,
            check=True,
        )
        status = json.loads(asked.stdout)
        assert status["url"] == f"http://127.0.0.1:{port}"
        assert all(row["state"] == "ready" and row["pss_bytes"] > 0 for row in status["processes"])
        for child in first.values():
            os.kill(child.pid, signal.SIGKILL)
        process.kill()
    with start(data, port) as process:
        again = services(data)
        assert not any(child.alive() for child in first.values())
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    assert not any(child.alive() for child in again.values())
    assert DataFolder(data).state() == {}
    DataFolder(data).delete()
