"""Lists by the command line, and what is set beside them: budgets and regions."""

from typing import Any

import pytest

from .portal import JOB, FakePortal, page, problem


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


def test_an_unknown_list_is_refused(portal: FakePortal, rm: Any) -> None:
    done = rm("list", "job")
    assert (done.status, "Did you mean jobs?" in done.err) == (2, True)


def test_top_once(portal: FakePortal, rm: Any) -> None:
    telemetry = {"cpu_percent": 50.0, "memory_used": 2**30, "memory_total": 2**32}
    portal.on("GET nodes", page({**ROWS["nodes"][0], "telemetry": telemetry}))
    done = rm("top", "--once")
    assert "n1" in done.out
    assert [text for text in ("25%", "50%", "25%") if text in done.out] == ["25%", "50%", "25%"]


def test_events_are_followed_until_the_portal_refuses(portal: FakePortal, rm: Any) -> None:
    row = {"id": 5, "at": "2026-01-01T10:00:00Z", "verb": "job.failed", "subject_type": "job", "subject_id": 7,
           "actor": "system", "reason": "Lost.", "facts": {"node": "n1"}}  # fmt: skip
    there = {"results": [row], "next": "http://x/?cursor=c", "follow": "http://x/?cursor=c", "previous": None}
    refused = problem(403, "forbidden", "No.")
    portal.on("GET events", lambda asked: refused if "cursor" in asked.query else (200, there))
    done = rm("list", "events", "--follow", "--filter", "verb=job.*")
    assert (done.status, done.out) == (3, "5  2026-01-01 10:00:00  job.failed  job:7  system  Lost. node=n1\n")
    sent = {"settled": "true", "ordering": "id", "verb": "job.*", "cursor": "c"}
    assert sent.items() <= portal.asked[-1].query.items()
    assert rm("list", "events", "--follow", "--json").json == row
    assert rm("list", "jobs", "--follow").status == 2
