"""Jobs by the command line: submitted, followed, explained, cancelled; their logs and checkpoints."""

import hashlib
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import rmctl

from .portal import JOB, Asked, FakePortal, page


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
    assert (done.status, done.out, done.err) == (0, "some log\n", "")
    with_log(portal, 9, {1: b"some log\n"}, {"state": "succeeded"})
    portal.on("GET jobs/9", (200, {**JOB, "state": "succeeded", "origin": "run:4"}))
    portal.on("GET runs/4/tasks", page({"name": "train", "index": 3, "label": "Bern"}))
    done = rm("logs", "9", "--attempt", "1")
    assert (done.out, done.err) == ("some log\n", "train[3] Bern of run 4\n")
    assert [asked.query["job"] for asked in portal.asked if asked.path == "runs/4/tasks"] == ["9"]


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
    portal.on("GET jobs/7/checkpoints/2", (200, data, {"Transfer-Encoding": "chunked"}))
    broken = rm("checkpoints", "7", "--save", str(tmp_path))
    assert broken.status == 4 and "cannot be reached" in broken.err
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("job-7-0-0.tar.gz", data)]


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
