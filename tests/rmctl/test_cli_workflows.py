"""Workflows by the command line: checked, pushed and triggered."""

from pathlib import Path
from typing import Any

import pytest

from .portal import Asked, FakePortal, page


def test_push_and_trigger(portal: FakePortal, rm: Any, tmp_path: Path) -> None:
    (tmp_path / "flow.py").write_text(
        "from rmctl import DAG, task\n@task\ndef f(): return 1\nwith DAG('flow', params={'n': 1}):\n    f()\n"
    )
    pushed = {"id": 5, "tenant": "vision", "name": "flow", "version": 2, "digest": "d", "created": True}
    portal.on("POST bundles", (201, {"sha256": "x"}))
    portal.on("POST workflows", (201, pushed))
    done = rm("push", str(tmp_path / "flow.py"), "--tenant", "vision")
    assert (done.status, done.out) == (0, f"flow: version 2 (1 tasks, 1 files): {portal.url}/workflows/5/\n")
    upload, push = portal.asked
    assert upload.query == {"tenant": "vision"}
    assert push.body["tenant"] == "vision"
    assert push.body["definition"]["tasks"][0]["function"] == "f"
    portal.on("POST workflows", (201, {**pushed, "created": False}))
    assert "unchanged, version 2" in rm("push", str(tmp_path / "flow.py")).out

    portal.on("GET workflows", page({"id": 4, "name": "flow-old"}, {"id": 5, "name": "flow"}))
    portal.on("POST workflows/5/trigger", (201, {"id": 12, "state": "queued"}))
    done = rm("trigger", "flow", "-p", "n=5", "-p", "who=me", "--note", "try")
    assert done.out == f"run 12 of flow started: {portal.url}/runs/12/\n"
    assert portal.asked[-1].body == {"params": {"n": 5, "who": "me"}, "note": "try"}
    assert rm("trigger", "missing").status == 3
    assert rm("trigger", "flow", "-p", "n=[1").status == 2


@pytest.mark.parametrize(("state", "status"), [("succeeded", 0), ("failed", 1), ("cancelled", 1)])
def test_trigger_waits_and_tells(portal: FakePortal, rm: Any, state: str, status: int) -> None:
    looks = iter(range(100))
    times = {"started_at": "2026-01-01T00:00:00Z", "ended_at": "2026-01-01T00:00:02Z"}

    def run(_: Asked) -> Any:
        now = state if next(looks) % 2 else "running"
        return 200, {"id": 12, "state": now, "done": 1, "total": 2, **times}

    node = {"id": "demand", "state": state, "width": 3, "counts": {"succeeded": 2, "failed": 1}, **times}
    portal.on("GET workflows/5", (200, {"id": 5, "name": "flow"}))
    portal.on("POST workflows/5/trigger", (201, {"id": 12, "state": "queued"}))
    portal.on("GET runs/12", run)
    portal.on("GET runs/12/graph", (200, {"nodes": [node], "edges": [], "levels": []}))
    failed = {"name": "demand", "index": 1, "state": "failed", "detail": "Exited with status 1.", "job": 7}
    portal.on("GET runs/12/tasks", page(failed))
    portal.on("GET jobs/7/logs", (200, b"Traceback\nKeyError: 'x'\n"))
    done = rm("trigger", "5", "--wait")
    assert done.status == status
    assert f"run 12 {state} in 2.0 s" in done.out
    assert done.out.count("demand ") == 1
    assert ("demand[1]: Exited with status 1." in done.err and "| KeyError: 'x'" in done.err) == (
        state == "failed"
    )
    done = rm("trigger", "5", "--wait", "--json")
    assert (done.status, done.json["state"], done.json["tasks"]) == (status, state, [failed])


def test_push_check_needs_no_portal(rm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RMCTL_URL", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "good.yaml").write_text("name: x\ntasks:\n  a: {script: 'true'}\n")
    (tmp_path / "bad.yaml").write_text(
        "name: x\ntasks:\n  a: {script: 'true', upstream: [b]}\n  b: {script: x, upstream: [a]}\n"
    )
    (tmp_path / "broken.yaml").write_text("name: [x\n")
    assert "x is fine (1 tasks" in rm("push", "--check", str(tmp_path / "good.yaml")).out
    done = rm("push", "--check", str(tmp_path / "bad.yaml"))
    assert (done.status, "a → b → a" in done.err) == (2, True)
    done = rm("push", "--check", str(tmp_path / "broken.yaml"))
    assert (done.status, "broken.yaml: line 2, column 1" in done.err) == (2, True)
    assert rm("push", "--check", str(tmp_path / "nothing.py")).status == 2
    done = rm("push", str(tmp_path / "good.yaml"))
    assert (done.status, "rmctl login" in done.err) == (2, True)
