"""The command line itself against a portal on a real socket: refusals, exit statuses, signing in, how it starts."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import rmctl
from rmctl.client import load_config

from .portal import JOB, FakePortal, page, problem


@pytest.mark.parametrize(
    ("status", "code", "exit_status"),
    [(400, "invalid", 2), (401, "unauthenticated", 3), (403, "forbidden", 3), (404, "not_found", 3), (409, "stale", 2),
     (500, "internal", 1)],
)  # fmt: skip
def test_refusals_have_their_status(
    portal: FakePortal, rm: Any, status: int, code: str, exit_status: int
) -> None:
    portal.on(
        "GET jobs/9/why", problem(status, code, "It is so.", [{"field": "f", "message": "m", "code": "c"}])
    )
    done = rm("why", "9")
    assert done.status == exit_status
    assert done.err == "error: It is so.\n  f: m\n"
    done = rm("why", "9", "--json")
    assert (done.status, json.loads(done.err)["code"]) == (exit_status, code)


def test_a_portal_that_is_away_is_status_4(
    portal: FakePortal, rm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    portal.close()
    monkeypatch.setattr("rmctl.client.TRIES", 1)
    done = rm("list", "jobs")
    assert done.status == 4
    assert "cannot be reached" in done.err


def test_login_keeps_a_token(portal: FakePortal, rm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RMCTL_URL")
    monkeypatch.delenv("RMCTL_TOKEN")
    me = {
        "username": "mia",
        "operator": False,
        "roles": [{"role": "member", "tenant": "vision", "domain": None}],
    }
    portal.on("POST login", lambda asked: (201, {"token": "new"}) if asked.body["password"] == "right"
              else problem(401, "unauthenticated", "Wrong."))  # fmt: skip
    portal.on("GET me", (200, me))
    monkeypatch.setattr(sys, "stdin", io.StringIO("wrong\n"))
    assert rm("login", portal.url, "--user", "mia").status == 3
    assert load_config().token == ""
    monkeypatch.setattr(sys, "stdin", io.StringIO("right\n"))
    assert rm("login", portal.url, "--user", "mia", "--tenant", "vision").status == 0
    assert (load_config().url, load_config().token, load_config().tenant) == (portal.url, "new", "vision")
    done = rm("whoami")
    assert ("mia at" in done.out, "vision" in done.out) == (True, True)
    assert portal.asked[-1].headers["Authorization"] == "Bearer new"
    monkeypatch.setattr(sys, "stdin", io.StringIO("piped\n"))
    assert rm("login", portal.url, "--token", "-").status == 0
    assert load_config().token == "piped"


def rmctl_process(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rmctl", *arguments],
        cwd=Path(rmctl.__file__).parents[1],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_help_loads_neither_client_nor_spec() -> None:
    code = (
        "import sys\nfrom rmctl.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "print(sorted({'httpx', 'pydantic', 'yaml', 'rich.live', 'msgspec'} & set(sys.modules)))"
    )
    folder = Path(rmctl.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_as_a_process(portal: FakePortal) -> None:
    portal.on("GET jobs", page(JOB))
    done = rmctl_process("list", "jobs", "--json")
    assert (done.returncode, json.loads(done.stdout)[0]["id"]) == (0, 7)
    done = rmctl_process("why", "3", FORCE_COLOR="1", NO_COLOR="1")
    assert done.returncode == 3
    assert "\x1b[3" not in done.stderr
    assert rmctl_process("agent", "--help").returncode == 0
    done = rmctl_process("--version")
    assert done.stdout == f"rmctl {rmctl.__version__}\n"
