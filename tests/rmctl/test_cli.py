"""The command line against a portal on a real socket: output, JSON and exit statuses."""

import hashlib
import io
import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import rmctl
from rmctl.client import load_config

from .portal import Asked, FakePortal, page, problem

JOB = {
    "id": 7, "name": "train", "tenant": "vision", "state": "pending", "priority": 0, "reason": "submitted",
    "detail": "Looked at next.", "exit_code": None, "submitted_at": "2026-01-01T00:00:00Z", "started_at": None,
    "ended_at": None,
}  # fmt: skip


def attempt(token: int, state: str = "running") -> dict[str, Any]:
    return {"id": 100 + token, "token": token, "state": state}


def with_log(portal: FakePortal, job_id: int, logs: dict[int, bytes], ended: dict[str, Any]) -> None:
    """A job that runs through its attempts: each look at it shows a bit more."""
    looks = iter(range(10_000))

    def job(_: Asked) -> Any:
        return 200, {**JOB, **(ended if next(looks) >= len(logs) else {"state": "running"})}

    def log(asked: Asked) -> Any:
        data = logs[int(asked.query["attempt"])]
        offset = int(asked.query["offset"])
        piece = data[offset : offset + 4]
        return 200, piece, {"X-Log-Size": str(len(data)), "X-Log-Complete": "true"}

    portal.on("POST jobs", (201, JOB))
    portal.on(f"GET jobs/{job_id}", job)
    portal.on(f"GET jobs/{job_id}/attempts", page(*(attempt(token) for token in sorted(logs, reverse=True))))
    portal.on(f"GET jobs/{job_id}/logs", log)


def test_submit_sends_what_the_options_say(portal: FakePortal, rm: Any) -> None:
    portal.on("POST jobs", (201, JOB))
    done = rm(
        "submit", "--cpu", "1", "--memory", "1Gi", "--gpu", "1", "--gpu-model", "A100", "-e", "A=b=c", "--retries", "2",
        "--label", "zone=a", "--pool", "main", "-t", "vision", "--", "python", "x.py", "--help",
    )  # fmt: skip
    assert (done.status, done.err) == (0, "")
    assert done.out == f"job 7 submitted: {portal.url}/jobs/7/\n"
    [asked] = portal.requests("POST", "jobs")
    assert asked.headers["Authorization"] == "Bearer secret-token"
    assert asked.body == {
        "name": "python",
        "tenant": "vision",
        "groups": [
            {
                "command": ["python", "x.py", "--help"],
                "env": {"A": "b=c"},
                "resources": {"cpu": "1", "memory": "1Gi", "gpu": {"count": 1, "models": ["A100"]}},
            }
        ],
        "retries": {"limit": 2},
        "intent": {"pool": "main", "require": {"labels": {"zone": ["a"]}}},
    }


def test_submit_takes_a_file_and_ships_others(
    portal: FakePortal, rm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    portal.on("POST jobs", (201, JOB))
    portal.on("POST bundles", (201, {"sha256": "c" * 64}))
    monkeypatch.chdir(tmp_path)
    Path("job.yaml").write_text("name: train\ngroups:\n- command: [python, x.py]\n  resources: {cpu: 2}\n")
    Path("x.py").write_text("print(1)")
    done = rm("submit", "-f", "job.yaml", "--memory", "2Gi", "--ship", "*.py", "--json")
    assert done.status == 0
    assert done.json["id"] == 7
    body = portal.requests("POST", "jobs")[0].body
    assert body["bundle"] == "c" * 64
    assert body["groups"][0]["resources"] == {"cpu": 2, "memory": "2Gi"}
    assert portal.requests("POST", "bundles")[0].content[:2] == b"\x1f\x8b"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--cpu", "-1", "--", "true"], "groups[0].resources.cpu"),
        (["job.yaml"], "job.yaml is no command; a job in a file is submitted with -f."),
        (["--memory", "512m", "--", "true"], 'did you mean "512Mi"'),
        (["-e", "RM_X=1", "--", "true"], "RM_X"),
        (["-e", "novalue", "--", "true"], "give NAME=VALUE"),
        ([], "exactly one of command and script"),
        (["--nonsense"], "--nonsense"),
        (["-f", "/nowhere.yaml"], "cannot be read"),
        (["--ship", "*.nothing", "--", "true"], "matches '*.nothing'"),
    ],
)
def test_a_wrong_job_is_refused_before_anything_is_sent(
    portal: FakePortal, rm: Any, arguments: list[str], said: str
) -> None:
    done = rm("submit", *arguments)
    assert done.status == 2
    assert said in done.err
    assert portal.asked == []


def test_run_follows_every_attempt_and_ends_with_the_jobs_status(portal: FakePortal, rm: Any) -> None:
    with_log(
        portal,
        7,
        {1: b"first try\n", 3: b"second try\n"},
        {"state": "failed", "exit_code": 42, "detail": "No."},
    )
    done = rm("run", "--", "false")
    assert done.status == 42
    assert done.out == "first try\nsecond try\n"
    assert "attempt 3" in done.err
    assert "job 7 failed. No." in done.err


@pytest.mark.parametrize(
    ("ended", "status"),
    [
        ({"state": "succeeded", "exit_code": 0}, 0),
        ({"state": "failed", "exit_code": 3}, 3),
        ({"state": "failed", "exit_code": None}, 1),
        ({"state": "cancelled", "exit_code": None}, 1),
    ],
)
def test_status_of_run(portal: FakePortal, rm: Any, ended: dict[str, Any], status: int) -> None:
    with_log(portal, 7, {1: b"x\n"}, ended)
    assert rm("run", "--json", "--", "true").status == status


def test_logs(portal: FakePortal, rm: Any) -> None:
    with_log(portal, 7, {1: b"some log\n"}, {"state": "succeeded"})
    assert rm("logs", "7", "--attempt", "1").out == "some log\n"
    with_log(portal, 8, {1: b"\xff\x00 not text"}, {"state": "succeeded"})
    assert rm("logs", "8", "--attempt", "1").bytes == b"\xff\x00 not text"
    done = rm("logs", "-f", "7")
    assert (done.status, done.out) == (0, "some log\n")


def test_why_shows_the_reason_and_the_funnel(portal: FakePortal, rm: Any) -> None:
    told = {
        "job": 7,
        "reason": "no_node_matches",
        "title": "No node matches the intent",
        "detail": "zone=a: no node.",
        "position": 3,
        "tried": [
            {
                "flavor": "cpu",
                "outcome": "no_node_matches",
                "detail": "",
                "funnel": [{"filter": "labels", "rejected": 9, "remaining": 0, "only": 9}],
            }
        ],
    }
    portal.on("GET jobs/7/why", (200, told))
    done = rm("why", "7")
    assert done.status == 0
    for text in (
        "No node matches the intent (no_node_matches)",
        "zone=a: no node.",
        "position 3",
        "labels",
        "9",
    ):
        assert text in done.out
    assert rm("why", "7", "--json").json == told


def test_why_shows_when_the_job_starts_and_the_terms_of_its_place(portal: FakePortal, rm: Any) -> None:
    soon, later = (datetime.now(UTC) + timedelta(minutes=minutes, seconds=30) for minutes in (10, 40))
    told = {
        "job": 7,
        "reason": "waiting_for_capacity",
        "title": "Waiting for free capacity",
        "position": 2,
        "order": {"priority": 50.0, "ageing": 28.07, "fair_share": -5.0, "total": 73.07},
        "run_time": {"p50_seconds": 60.0, "p90_seconds": 300.0, "basis": "by 34 runs of this job"},
        "start": {
            "p50": soon.isoformat(),
            "p90": later.isoformat(),
            "basis": "from the run times of 3 jobs",
            "unknown": "",
            "reserved_at": soon.isoformat(),
        },
    }
    portal.on("GET jobs/7/why", (200, told))
    out = rm("why", "7").out
    assert "position 2 in its queue: priority 50, ageing +28.07, fair share -5 = 73.07" in out
    assert "estimated start in 10 min, 9 times of 10 in 40 min" in out
    assert "by 34 runs of this job" in out and "a start is reserved for it in 10 min" in out
    unknown = {**told, "start": {**told["start"], "p50": None, "unknown": "it is on hold."}}
    portal.on("GET jobs/7/why", (200, unknown))
    assert "estimated start not known: it is on hold." in rm("why", "7").out


def test_cancel(portal: FakePortal, rm: Any) -> None:
    portal.on("POST jobs/7/cancel", (200, {**JOB, "state": "cancelling"}))
    portal.on("POST runs/3/cancel", (200, {"id": 3, "state": "cancelled"}))
    assert rm("cancel", "7", "--reason", "wrong data").out == "job 7: cancelling\n"
    assert portal.asked[-1].body == {"reason": "wrong data"}
    assert rm("cancel", "3", "--run").out == "run 3: cancelled\n"


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


def test_lists_are_tables_or_json(portal: FakePortal, rm: Any) -> None:
    portal.on("GET jobs", page({**JOB, "name": "ev\x1b[31mil", "detail": "Wait\ning"}))
    done = rm(
        "list", "jobs", "--state", "pending", "--tenant", "vision", "--filter", "owner=mia", "--limit", "5"
    )
    assert portal.asked[-1].query == {"state": "pending", "tenant": "vision", "owner": "mia", "limit": "5"}
    assert "\x1b" not in done.out
    header, line = done.out.splitlines()
    assert header.split() == ["id", "name", "tenant", "state", "priority", "time", "submitted", "detail"]
    assert line.split()[:4] == ["7", "ev[31mil", "vision", "pending"]
    assert rm("list", "jobs", "--json").json[0]["id"] == 7
    rm("list", "jobs", "--state", "pending,running")
    assert portal.asked[-1].all_query["state"] == ["pending", "running"]


ROWS = {
    "workflows": ({"id": 1, "name": "etl", "tenant": "vision", "version": 4, "paused": False, "schedule": "@daily",
                   "next_run_at": None}, ["etl", "4", "@daily"]),
    "runs": ({"id": 2, "workflow_name": "etl", "state": "running", "trigger": "manual", "logical_time": "2026",
              "started_at": "2026-01-01T00:00:00Z", "ended_at": "2026-01-01T00:02:00Z",
              "created_at": "2026-01-01T00:00:00Z"}, ["etl", "running", "2 min"]),
    "nodes": ({"id": 3, "name": "n1", "cluster": "local", "state": "ready", "cpu_millicores": 2000,
               "allocated_cpu_millicores": 500, "memory_bytes": 2**32, "allocated_memory_bytes": 2**30, "running": 1,
               "gpus": [{"model": "A100", "allocated_milli": 0}], "last_seen_at": None},
              ["n1", "0.5 / 2", "1.0 GiB / 4.0 GiB", "1 × A100"]),
    "pools": ({"id": 4, "name": "main", "query": {"labels": {}}}, ["main"]),
    "quotas": ({"id": 5, "name": "vision", "tenant": "vision", "depth": 1, "cells": [
        {"flavor": "cpu", "resource": "cpu", "used": 500, "nominal": 2000, "borrowing_limit": None}]},
        ["vision", "0.5", "2", "∞"]),
    "budgets": ({"id": 9, "domain": None, "tenant": "vision", "user": None, "measure": "gpu_hours", "period": "month",
                 "amount": 100.0, "hard": True, "used": 95.25, "per_hour": 2.0, "resets_at": "2026-12-01T00:00:00Z",
                 "exhausted_at": "2026-11-21T12:22:30Z"},
                ["tenant vision", "gpu_hours a month", "95.25", "100", "hard", "2026-11-21 12:22", "2026-12-01 00:00"]),
    "events": ({"id": 6, "at": "2026-01-01T00:00:00Z", "verb": "job.submitted", "subject_type": "job",
                "subject_id": 7, "actor": "user:mia", "facts": {"name": "x"}, "reason": ""},
               ["job.submitted", "job:7", "name=x"]),
    "tenants": ({"slug": "vision", "name": "Vision", "domain": "lab", "suspended": False}, ["vision", "active"]),
}  # fmt: skip


@pytest.mark.parametrize("kind", ROWS)
def test_every_list(portal: FakePortal, rm: Any, kind: str) -> None:
    row, texts = ROWS[kind]
    portal.on(f"GET {kind}", page(row))
    done = rm("list", kind)
    assert done.status == 0
    assert all(text in done.out for text in texts), done.out
    portal.on(f"GET {kind}", page())
    done = rm("list", kind)
    assert (done.out, done.err) == ("", f"no {kind} that you can see\n")


def test_budgets_are_set_changed_and_removed(portal: FakePortal, rm: Any) -> None:
    row, _ = ROWS["budgets"]
    row = {**row, "user": "max", "period": "7d", "set_by": "tenant", "free_at": None}
    portal.on("POST budgets", (201, row))
    portal.on("PATCH budgets/9", (200, row))
    portal.on("DELETE budgets/9", (204, b""))
    done = rm("budget", "set", "cost", "100", "--per", "7d", "--tenant", "vision", "--user", "max", "--warn")
    assert done.status == 0 and "max in tenant vision" in done.out and "gpu_hours in 7d" in done.out
    (asked,) = portal.requests("POST", "budgets")
    assert asked.body == {
        "measure": "cost", "amount": 100.0, "period": "7d", "tenant": "vision", "user": "max", "hard": False,
    }  # fmt: skip
    assert rm("budget", "change", "9", "--amount", "5", "--hard").status == 0
    assert portal.requests("PATCH", "budgets/9")[0].body == {"amount": 5.0, "hard": True}
    assert rm("budget", "change", "9").status == 2
    assert rm("budget", "remove", "9").out == "Budget 9 is gone.\n"


def test_jobs_are_listed_by_label(portal: FakePortal, rm: Any) -> None:
    portal.on("GET jobs", page())
    assert rm("jobs", "--label", "app=trainer", "-l", "env=prod", "--state", "running").status == 0
    (asked,) = portal.requests("GET", "jobs")
    assert asked.all_query["label"] == ["app=trainer", "env=prod"] and asked.all_query["state"] == ["running"]


def test_regions_are_listed_set_and_removed(portal: FakePortal, rm: Any) -> None:
    eu = {"name": "eu", "carbon": 300.0, "round_trips": {"us": 90.0}}
    portal.on("GET regions", page(eu))
    lines = rm("regions", "list").out.splitlines()
    assert [line.split() for line in lines[1:]] == [["eu", "300", "us", "90"], ["us", "eu", "90"]]
    portal.on("GET regions/eu", (200, eu))
    portal.on("PUT regions/eu", (200, eu))
    assert rm("regions", "set", "eu", "--way", "ap=150").status == 0
    assert rm("regions", "set", "eu", "--carbon", "250", "--replace").status == 0
    bodies = [asked.body for asked in portal.requests("PUT", "regions/eu")]
    assert bodies == [
        {"carbon": 300.0, "round_trips": {"us": 90.0, "ap": 150.0}},
        {"carbon": 250.0, "round_trips": {}},
    ]
    portal.on("GET regions/ap", (404, {"title": "Not found", "status": 404, "code": "not_found", "detail": "No."}))
    portal.on("PUT regions/ap", (200, {"name": "ap", "carbon": None, "round_trips": {"eu": 150.0}}))
    assert "eu 150" in rm("regions", "set", "ap", "--way", "eu=150").out
    assert rm("regions", "set", "eu").status == 2
    done = rm("regions", "set", "eu", "--way", "us=far")
    assert done.status == 2 and "--way us=far: milliseconds as a number" in done.err
    portal.on("DELETE regions/eu", (204, b""))
    assert rm("regions", "remove", "eu").out == "Region eu is forgotten, with the ways to it.\n"


def test_checkpoints_are_listed_and_downloaded(portal: FakePortal, rm: Any, tmp_path: Path) -> None:
    data = b"packed"
    kept = {"group": 0, "rank": 0, "at": "2026-01-01T00:00:00Z", "size": 6, "created_at": "2026-01-01T00:00:00Z"}
    digest = hashlib.sha256(data).hexdigest()
    newest, older = {**kept, "id": 2, "attempt": 2, "sha256": digest}, {**kept, "id": 1, "attempt": 1, "sha256": "0"}
    portal.on("GET jobs/7/checkpoints", page(newest, older))
    portal.on("GET jobs/7/checkpoints/2", (200, data))
    done = rm("checkpoints", "7")
    assert digest[:12] in done.out and len(done.out.splitlines()) == 3
    assert rm("checkpoints", "7", "--save", str(tmp_path)).status == 0
    assert (tmp_path / "job-7-0-0.tar.gz").read_bytes() == data
    portal.on("GET jobs/7/checkpoints/2", (200, b"torn"))
    assert "did not arrive whole" in rm("checkpoints", "7", "--save", str(tmp_path)).err


def test_checkpoint_is_for_tasks(rm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RM_CHECKPOINT", raising=False)
    outside = rm("checkpoint")
    assert outside.status == 2 and "RM_CHECKPOINT is not set" in outside.err
    rmctl.checkpoint()  # A script that runs outside a task needs no other words.

    path = tmp_path / "checkpoint"
    monkeypatch.setenv("RM_CHECKPOINT", str(path))
    assert rm("checkpoint").status == 0 and path.exists()
    os.utime(path, (0, 0))
    assert rm("checkpoint").status == 0 and path.stat().st_mtime > 1e9

    monkeypatch.setenv("RM_CHECKPOINT", str(tmp_path))
    taken = rm("checkpoint")
    assert taken.status == 2 and "RM_CHECKPOINT: Is a directory" in taken.err


def test_an_unknown_list_is_refused(portal: FakePortal, rm: Any) -> None:
    done = rm("list", "job")
    assert (done.status, "Did you mean jobs?" in done.err) == (2, True)


def test_top_once(portal: FakePortal, rm: Any) -> None:
    telemetry = {"cpu_percent": 50.0, "memory_used": 2**30, "memory_total": 2**32}
    portal.on("GET nodes", page({**ROWS["nodes"][0], "telemetry": telemetry}))
    done = rm("top", "--once")
    assert "n1" in done.out
    assert [text for text in ("25%", "50%", "25%") if text in done.out] == ["25%", "50%", "25%"]


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


OUTCOMES = {
    "jobs": 3, "started": 3, "finished": 3, "wait_mean_seconds": 90.0, "wait_p50_seconds": 60.0,
    "wait_p95_seconds": 200.0, "slowdown_mean": 2.5, "slowdown_p95": 4.0, "utilisation": {"cpu": 0.5, "gpu": 0.25},
    "evictions": 1, "lost_seconds": 12.0, "fairness": 0.987,
}  # fmt: skip


def course(minutes: float | None, **more: Any) -> dict[str, Any]:
    at = None if minutes is None else (datetime.now(UTC) + timedelta(minutes=minutes, seconds=30)).isoformat()
    known = {"outcome": "ended", "starts_at": at, "ends_at": at, "waits_seconds": 1.0, "nodes": [], "evicted_for": []}
    return {**known, "detail": "", **more}


def test_simulate_sends_the_file_and_the_options_and_shows_who_is_affected(
    portal: FakePortal, rm: Any, tmp_path: Path
) -> None:
    told = {
        "at": "2026-01-01T00:00:00Z",
        "until": "2026-01-02T00:00:00Z",
        "total": 3,
        "affected": 2,
        "before": OUTCOMES,
        "after": {**OUTCOMES, "wait_mean_seconds": 10.0},
        "jobs": [
            {"job": None, "name": "new (added)", "tenant": "vision", "changed": True, "before": None,
             "after": course(None, outcome="waiting", detail="2 jobs are ahead")},
            {"job": 7, "name": "train", "tenant": "vision", "changed": True, "before": course(90),
             "after": course(10, evicted_for=[9, None])},
            {"job": 8, "name": "same", "tenant": "vision", "changed": False, "before": course(5), "after": course(5)},
        ],
    }  # fmt: skip
    portal.on("POST simulate", (200, told))
    cells = [{"flavor": "a100", "resource": "gpu"}, {"flavor": "cpu", "resource": "cpu"}]
    portal.on("GET quotas", page({"name": "vision", "cells": cells}))
    (tmp_path / "spec.yaml").write_text("groups: [{command: [train]}]\n")
    (tmp_path / "changes.yaml").write_text("horizon: 12h\ncordon_nodes: [{node: n1, at_seconds: 60}]\n")
    done = rm(
        "simulate", "-f", str(tmp_path / "changes.yaml"), "--job", str(tmp_path / "spec.yaml"), "--add-nodes", "n7=2",
        "--cordon-node", "n2", "--lose-cluster", "west", "--quota", "vision.gpu=+2",
        "--quota", "speech.cpu-spot.cpu=500m", "--cancel", "9", "--policy", "conservative",
    )  # fmt: skip
    assert done.status == 0, done.err
    body = portal.asked[-1].body
    assert body == {
        "horizon_seconds": 43_200,
        "policy": "conservative",
        "cordon_nodes": [{"node": "n1", "at_seconds": 60}, {"node": "n2"}],
        "jobs": [{"spec": {"groups": [{"command": ["train"]}]}}],
        "cancel": [{"job": 9}],
        "add_nodes": [{"like": "n7", "count": 2}],
        "lose_clusters": [{"cluster": "west"}],
        "quotas": [
            {"quota": "vision", "flavor": "a100", "resource": "gpu", "change": 2000},
            {"quota": "speech", "flavor": "cpu-spot", "resource": "cpu", "nominal": 500},
        ],
    }
    for text in ("2 of 3 jobs", "train", "in 10 min", "evicted for job 9, another", "2 jobs are ahead", "0.987"):
        assert text in done.out, text
    assert "same" not in done.out
    assert rm("simulate", "--json").json == told


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--quota", "vision=2"], "QUOTA.RESOURCE=AMOUNT"),
        (["--quota", "vision.gpu=many"], "not an amount"),
        (["--quota", "none.gpu=+1"], "no quota none"),
        (["--quota", "vision.gpu=+1"], "name the flavor of vision.gpu: one of a100, h100"),
        (["--add-nodes", "n1=x"], "NODE=COUNT"),
        (["--horizon", "soon"], "is not a duration"),
        (["--file", "/none.yaml"], "cannot be read"),
    ],
)
def test_simulate_says_what_is_wrong_before_it_asks(portal: FakePortal, rm: Any, options: list[str], text: str) -> None:
    cells = [{"flavor": flavor, "resource": "gpu"} for flavor in ("a100", "h100")]
    portal.on("GET quotas", page({"name": "vision", "cells": cells}))
    done = rm("simulate", *options)
    assert done.status == 2 and text in done.err
    assert not [asked for asked in portal.asked if asked.method == "POST"]


def test_replay_compares_policies(portal: FakePortal, rm: Any) -> None:
    told = {
        "since": "2026-01-01T00:00:00Z", "until": "2026-01-02T00:00:00Z", "jobs": 3, "nodes": 2, "left_out": 1,
        "recorded": OUTCOMES, "policies": {"easy": OUTCOMES, "fcfs": {**OUTCOMES, "fairness": 0.5}},
    }  # fmt: skip
    portal.on("POST replay", (200, told))
    done = rm("replay", "--from", "24h", "--to", "2026-01-02T00:00", "--policy", "easy", "--policy", "fcfs")
    assert done.status == 0
    body = portal.asked[-1].body
    assert body["policies"] == ["easy", "fcfs"] and body["until"] == "2026-01-02T00:00:00+00:00"
    ago = datetime.now(UTC) - datetime.fromisoformat(body["since"])
    assert timedelta(hours=24) <= ago < timedelta(hours=24, minutes=1)
    for text in ("3 jobs on 2 nodes, 1 left out", "recorded", "easy", "fcfs", "0.500", "50.0 %"):
        assert text in done.out, text
    done = rm("replay", "--from", "yesterday")
    assert done.status == 2 and "how long ago: 24h" in done.err
