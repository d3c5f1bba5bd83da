"""What would happen and what would have happened, by the command line."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from .portal import FakePortal, page

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
