"""The commands, as a person types them."""

import importlib.machinery
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

from deploy.local import views
from deploy.local.cli import split
from deploy.local.folder import DataFolder
from deploy.local.stack import AGENT_HIDDEN, Address, agent_environment, child_environment, free_port

from .conftest import ROOT

COMMANDS = ("up", "demo", "status", "stop", "logs", "test", "bench", "shell", "reset", "manage", "rmctl")


def portal(*arguments: str, **options: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(ROOT / "portal"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, **options)  # type: ignore[call-overload, no-any-return]


def script() -> ModuleType:
    """The file `portal` as a module."""
    loader = importlib.machinery.SourceFileLoader("portal_script", str(ROOT / "portal"))
    spec = importlib.util.spec_from_loader("portal_script", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    from deploy.local.cli import main

    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert f"./portal {command}" in capsys.readouterr().out


def test_a_taken_port_is_named_before_anything_starts(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        answer = portal("up", "--port", str(port), "--data", str(tmp_path / "data"))
    assert answer.returncode == 2
    assert f"Port {port} on 127.0.0.1 is taken" in answer.stderr
    assert "--port" in answer.stderr
    assert not (tmp_path / "data" / "postgres").exists()
    assert not (tmp_path / "data" / "secret_key").exists()


@pytest.mark.parametrize("port", ["0", "65536", "http", "-1"])
def test_an_impossible_port_is_refused(port: str, tmp_path: Path) -> None:
    answer = portal("up", "--port", port, "--data", str(tmp_path / "data"))
    assert answer.returncode == 2
    assert "--port" in answer.stderr
    assert not (tmp_path / "data").exists()


def test_status_and_stop_without_a_portal(tmp_path: Path) -> None:
    answer = portal("status", "--data", str(tmp_path / "data"))
    assert answer.returncode == views.NOT_RUNNING
    assert "./portal up" in answer.stdout
    answer = portal("status", "--json", "--data", str(tmp_path / "data"))
    assert json.loads(answer.stdout)["running"] is False
    assert portal("stop", "--data", str(tmp_path / "data")).returncode == 0
    assert not (tmp_path / "data").exists()


def test_reset_deletes_only_what_is_ours_and_only_when_told(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    assert portal("reset", "--yes", "--data", str(tmp_path)).returncode == 2
    assert (tmp_path / "thesis.tex").exists()

    data = DataFolder(tmp_path / "data")
    data.open()
    answer = portal("reset", "--data", str(data.path))
    assert answer.returncode == 2
    assert "--yes" in answer.stderr
    assert data.exists()
    assert portal("reset", "--yes", "--data", str(data.path)).returncode == 0
    assert not data.path.exists()


def test_reset_leaves_a_running_portal_alone(data: DataFolder) -> None:
    data.acquire()
    assert portal("reset", "--yes", "--data", str(data.path)).returncode == 2
    assert data.exists()


def test_logs_show_the_end_and_follow(data: DataFolder) -> None:
    log = data.log / "web.log"
    log.write_text("".join(f"line {number}\n" for number in range(50)))
    answer = portal("logs", "web", "-n", "2", "--data", str(data.path))
    assert answer.stdout == "line 48\nline 49\n"
    answer = portal("logs", "wbe", "--data", str(data.path))
    assert answer.returncode == 2
    assert "web" in answer.stderr

    command = [sys.executable, str(ROOT / "portal"), "logs", "web", "-f", "-n", "1", "--data", str(data.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as following:
        assert following.stdout is not None
        assert following.stdout.readline() == "line 49\n"
        with log.open("a") as file:
            file.write("line 50\n")
        assert following.stdout.readline() == "line 50\n"
        following.send_signal(signal.SIGINT)
        assert following.wait(30) == 0


def test_arguments_of_other_programs_are_handed_on_untouched() -> None:
    assert split(["test", "-x", "--data", "d"]) == (["test"], ["-x", "--data", "d"])
    assert split(["rmctl", "--data", "d", "agent", "run", "--data", "e"]) == (
        ["rmctl", "--data", "d"],
        ["agent", "run", "--data", "e"],
    )
    assert split(["rmctl", "--", "--help"]) == (["rmctl"], ["--help"])
    assert split(["manage", "drift", "--data", "d"]) == (["manage", "--data", "d"], ["drift"])
    assert split(["up", "--port", "1"]) == (["up", "--port", "1"], [])


def test_no_python_that_is_new_enough(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    module = script()
    monkeypatch.setattr(module, "OLDEST", (99, 0))
    monkeypatch.setenv("PATH", "")
    assert module.main() == 2
    assert "needs 99.0 or newer" in capsys.readouterr().err


def test_a_newer_python_on_path_is_found_and_a_broken_one_passed_over(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, status in (("python3.13", 127), ("python3.12", 0)):
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\nexit {status}\n")
        path.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert script().newer_python() == str(tmp_path / "python3.12")


def test_the_agent_does_not_get_the_portals_secrets(data: DataFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in AGENT_HIDDEN:
        monkeypatch.setenv(name, "secret")
    variables = child_environment(data, Address("127.0.0.1", free_port()))
    assert variables["DATABASE_URL"] == "secret"
    assert "secret" not in agent_environment(variables).values()


def test_listening_everywhere_still_names_the_hosts(data: DataFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RMPORTAL_URL", "RMPORTAL_ALLOWED_HOSTS"):
        monkeypatch.delenv(name, raising=False)
    variables = child_environment(data, Address("0.0.0.0", 8080))
    assert variables["RMPORTAL_URL"] == "http://127.0.0.1:8080"
    assert socket.gethostname() in variables["RMPORTAL_ALLOWED_HOSTS"].split(",")
    assert "*" not in variables["RMPORTAL_ALLOWED_HOSTS"]
    assert Address("::1", 80).local_url == "http://[::1]:80"


def test_isolated_environments_know_no_other_portal(data: DataFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATABASE_URL", "REDIS_URL", "RMPORTAL_URL", "RMPORTAL_SECRET_KEY", "RMCTL_TOKEN"):
        monkeypatch.setenv(name, "http://other")
    assert "http://other" not in child_environment(data, None, isolated=True).values()


def test_durations_and_table() -> None:
    assert [views.duration(seconds) for seconds in (9.6, 90.0, 7200.0, 200000.0)] == ["10 s", "2 min", "2 h", "2 d"]
    row = {"name": "web", "pid": 7, "state": "ready", "restarts": 1, "uptime_seconds": 5.0, "pss_bytes": 2**20}
    gone = {**row, "pid": None, "state": "stopped", "uptime_seconds": None, "pss_bytes": None}
    lines = views.table([row, gone])
    assert len({len(line) for line in lines}) == 1
    assert lines[-1].split() == ["total", "1.0", "MiB"]


def test_colours_only_on_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from deploy.local.console import Console

    leader, follower = os.openpty()
    with os.fdopen(follower, "w") as terminal, (tmp_path / "file").open("w") as file:
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.delenv("NO_COLOR", raising=False)
        assert Console(terminal).colours
        assert not Console(file).colours
        monkeypatch.setenv("NO_COLOR", "1")
        assert not Console(terminal).colours
    os.close(leader)


def test_a_healthy_web_process_is_one_that_says_so(tmp_path: Path) -> None:
    import asyncio

    async def ask(answer: bytes) -> bool:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            return await Address("127.0.0.1", server.sockets[0].getsockname()[1]).answers()

    began = time.monotonic()
    assert asyncio.run(ask(b"HTTP/1.1 200 OK\r\n\r\n")) is True
    assert asyncio.run(ask(b"HTTP/1.1 503 Service Unavailable\r\n\r\n")) is False
    assert time.monotonic() - began < 30
