"""`rmctl runs` and `rmctl backfill`: what is asked of the portal, and what is printed."""

import json
from typing import Any

import pytest

from .portal import FakePortal, page

ESTIMATE = {"task_hours": 1.5, "cpu_hours": 3.0, "money": 0.75, "unknown": ["new"]}
CLEARED = {
    "run": 7, "version": 2, "count": 2, "in_flight": 1, "to_come": 3,
    "added": ["new"], "removed": [], "changed": [], "remapped": [],
    "tasks": [
        {"name": "load", "index": 3, "label": "Bern", "state": "failed", "job": 12},
        {"name": "after", "index": -1, "label": None, "state": "running", "job": 13},
    ],
    "estimate": ESTIMATE,
}  # fmt: skip
BACKFILL = {
    "id": 4, "workflow_name": "etl", "version": 1, "state": "running", "first": "2026-01-01T00:00:00Z",
    "last": "2026-01-31T00:00:00Z", "order": "forward", "max_active_runs": 4, "owner": "max", "total": 31,
    "position": 12, "made": 10, "counts": {"succeeded": 6, "failed": 1, "running": 3},
    "created_at": "2026-02-01T00:00:00Z",
}  # fmt: skip
PLAN = {
    "times": 31, "runs": 30, "estimate": ESTIMATE,
    "slots": [{"logical_time": "2026-01-01T00:00:00Z", "action": "exists", "run": 3, "state": "succeeded"}],
}  # fmt: skip


@pytest.mark.parametrize("dry_run", [True, False])
def test_clear_says_what_and_what_it_costs(portal: FakePortal, rm: Any, dry_run: bool) -> None:
    portal.on("POST runs/7/clear", (200, CLEARED))
    flags = ["--dry-run"] if dry_run else []
    done = rm("runs", "clear", "7", "load[3]", "--failed", "--newest", "--no-downstream", *flags)
    assert done.status == 0, done.err
    [asked] = portal.asked
    assert asked.query.get("dry_run") == ("1" if dry_run else None)
    assert asked.body == {
        "tasks": ["load[3]"], "upstream": False, "downstream": False, "only_failed": True, "newest": True, "reason": "",
    }  # fmt: skip
    assert "load[3]" in done.out and "new in the newest version, will run: new" in done.out
    verb = "would be cleared" if dry_run else "cleared"
    assert f"run 7: 2 {verb}, 1 of them stopped first, and 3 instances run that were never made, on" in done.out
    assert "about 2 h of tasks, 3 h of a core, 0.75 by the nodes' prices; without a history: new" in done.out


def test_mark_stop_note_and_tries(portal: FakePortal, rm: Any) -> None:
    run = {"id": 7, "state": "running", "note": "late"}
    for verb in ("mark", "cancel", "note"):
        portal.on(f"POST runs/7/{verb}", (200, run))
    assert "load, x[1] marked skipped" in rm("runs", "mark", "7", "skipped", "load", "x[1]", "--reason", "no").out
    assert rm("runs", "stop", "7").out == "run 7: running\n"
    assert rm("runs", "note", "7", "late").out == "run 7: late\n"
    assert [asked.body for asked in portal.asked] == [
        {"tasks": ["load", "x[1]"], "state": "skipped", "reason": "no"}, {}, {"note": "late"}
    ]  # fmt: skip
    old = {
        "name": "load", "index": -1, "number": 1, "state": "failed", "job": 5, "version": 1, "closed_by": "user:max",
        "closed_at": "2026-01-01T00:00:00Z", "detail": "Exited with status 1.", "started_at": None, "ended_at": None,
    }  # fmt: skip
    portal.on("GET runs/7/tries", page(old))
    done = rm("runs", "tries", "7", "load")
    assert portal.asked[-1].query["name"] == "load"
    assert "Exited with status 1." in done.out and "user:max" in done.out


def test_show_a_run_and_the_instances_of_a_task(portal: FakePortal, rm: Any) -> None:
    nodes = [
        {"id": "load", "state": "succeeded", "job": 5, "detail": "", "width": None, "counts": {}},
        {"id": "train", "state": "running", "job": None, "detail": "", "width": 4, "counts": {"succeeded": 1}},
    ]
    path = {"tasks": ["load", "train"], "spent_seconds": 30.0, "total_seconds": 60.0, "share": 50, "ended": False}
    portal.on("GET runs/7", (200, {"id": 7, "workflow_name": "etl", "version": 2, "state": "running", "note": "late"}))
    portal.on("GET runs/7/graph", (200, {"nodes": nodes}))
    portal.on("GET runs/7/path", (200, {**path, "left_seconds": 90.0}))
    done = rm("runs", "show", "7")
    assert "run 7 of etl, version 2: running" in done.out and "note: late" in done.out and "1/4" in done.out
    assert "longest path: load → train, 30 s so far, about 90 s to go by its latest runs" in done.out
    portal.on("GET runs/7/path", (200, {**path, "left_seconds": None, "ended": True}))
    assert "longest path: load → train, 30 s of 60 s, 50 %" in rm("runs", "show", "7").out
    assert json.loads(rm("runs", "show", "7", "--json").out)["path"]["share"] == 50
    row = {"name": "train", "index": 3, "label": "Bern", "state": "failed", "job": 12, "detail": "Exited."}
    portal.on("GET runs/7/tasks", page(row))
    done = rm("runs", "show", "7", "train", "--state", "failed")
    assert "train[3] Bern" in done.out and "Exited." in done.out
    assert (portal.asked[-1].query["name"], portal.asked[-1].query["state"]) == ("train", "failed")
    portal.on("GET runs/7/tasks", page())
    done = rm("runs", "show", "7", "nope")
    assert done.status == 2 and "Run 7 has no task nope" in done.err


def test_a_backfill_is_made_by_the_clock_of_its_workflow(portal: FakePortal, rm: Any) -> None:
    portal.on("GET workflows/5", (200, {"id": 5, "name": "etl", "timezone": "Europe/Berlin"}))
    portal.on("POST backfills", (201, {**BACKFILL, "plan": PLAN}))
    done = rm("backfill", "create", "5", "--from", "2026-01-01", "--to", "2026-07-31", "-p", "n=5", "--dry-run")
    assert done.status == 0, done.err
    body = portal.asked[-1].body
    assert (body["first"], body["last"]) == ("2026-01-01T00:00:00+01:00", "2026-07-31T23:59:59.999999+02:00")
    assert (body["params"], body["existing"], body["max_active_runs"]) == ({"n": 5}, "none", 4)
    assert "a backfill would make 30 runs for 31 logical times" in done.out
    assert "exists" in done.out
    more = ["--version", "1", "--no-cache"]
    done = rm("backfill", "create", "5", "--from", "2026-01-01T06:00Z", "--to", "2026-01-31", *more)
    assert portal.asked[-1].body["first"] == "2026-01-01T06:00:00+00:00"
    assert portal.asked[-1].body["no_cache"] is True and "no_cache" not in body
    assert "backfill 4 makes 30 runs for 31 logical times: " in done.out and "/backfills/4/" in done.out


def test_a_time_that_is_none_is_refused_here(portal: FakePortal, rm: Any) -> None:
    portal.on("GET workflows/5", (200, {"id": 5, "name": "etl", "timezone": "UTC"}))
    done = rm("backfill", "create", "5", "--from", "yesterday", "--to", "2026-01-31")
    assert done.status == 2
    assert "--from 'yesterday': give a date" in done.err


def test_list_show_and_act(portal: FakePortal, rm: Any) -> None:
    portal.on("GET backfills", page(BACKFILL))
    portal.on("GET backfills/4", (200, BACKFILL))
    portal.on("GET runs", page({"id": 9, "logical_time": "2026-01-03T00:00:00Z", "started_at": None, "ended_at": None}))
    assert "9 of 31, 1 failed" in rm("backfill", "list", "--state", "running").out
    shown = rm("backfill", "show", "4").out
    assert "2 had a run already" in shown and "2026-01-03" in shown
    assert json.loads(rm("backfill", "show", "4", "--json").out)["failed"][0]["id"] == 9
    for verb in ("pause", "resume", "cancel", "rerun"):
        portal.on(f"POST backfills/4/{verb}", (200, {**BACKFILL, "state": verb}))
        assert rm("backfill", verb, "4").out == f"backfill 4: {verb}, 9 of 31, 1 failed\n"
    assert portal.asked[-1].body == {"newest": False, "reason": ""}
