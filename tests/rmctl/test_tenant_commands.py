"""`rmctl next`, `dataset`, `webhook`, `variable` and `connection`, and the SDK's schedules."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from rmctl.sdk.compile import compile_file
from rmctl.sdk.dag import DAG, bash
from rmctl.sdk.datasets import Dataset
from rmctl.sdk.options import SdkError

from .portal import FakePortal


def test_next_shows_the_local_times(portal: FakePortal, rm: Any) -> None:
    runs = [{"run_at": "2026-07-01T22:00:00Z", "logical_time": "2026-06-30T22:00:00Z"}]
    portal.on("GET workflows/5", (200, {"id": 5, "name": "etl"}))
    found = {"schedule": "@daily", "timezone": "Europe/Berlin", "paused": True, "runs": runs}
    portal.on("GET workflows/5/upcoming", (200, found))
    done = rm("next", "5", "-n", "3")
    assert done.status == 0
    assert "Thu 2026-07-02 00:00:00 CEST" in done.out and "Wed 2026-07-01 00:00:00 CEST" in done.out
    assert "paused" in done.err
    assert portal.asked[-1].query == {"count": "3"}
    portal.on("GET workflows/5/upcoming", (200, {**found, "runs": [], "schedule": "@continuous"}))
    assert "runs follow each other" in rm("next", "5").out


def test_a_push_shows_the_warnings(portal: FakePortal, rm: Any, tmp_path: Path) -> None:
    file = tmp_path / "flow.yaml"
    file.write_text('name: flow\nschedule: "30 2 * * *"\ntimezone: Europe/Berlin\ntasks: {a: {script: "true"}}\n')
    warning = {"field": "schedule", "message": "Nobody is on call then.", "code": "nobody_there"}
    row = {"id": 5, "version": 1, "created": True, "warnings": [warning]}
    portal.on("POST workflows", (201, row))
    told = rm("push", str(file)).err
    assert "warning: schedule: Nobody is on call then." in told and "in Europe/Berlin" in told
    checked = rm("push", "--check", str(file))
    assert checked.status == 0 and "does not exist there" in checked.err


def test_variables_and_connections(portal: FakePortal, rm: Any) -> None:
    portal.on("POST tenants/vision/variables", lambda asked: (201, asked.body))
    assert rm("variable", "set", "limit", "5", "-t", "vision").out == "variable limit is set\n"
    assert portal.asked[-1].body == {"name": "limit", "value": "5"}
    portal.on("GET tenants/vision/variables/limit", (200, {"name": "limit", "value": "5"}))
    assert rm("variable", "get", "limit", "-t", "vision").out == "5\n"
    portal.on("POST tenants/vision/connections", lambda asked: (201, {"name": asked.body["name"]}))
    options = ["--host", "h", "--password", "hunter2!", "--extra", '{"a": 1}', "-t", "vision"]
    done = rm("connection", "set", "db", *options)
    assert "hunter2" not in done.out
    assert portal.asked[-1].body == {"name": "db", "host": "h", "password": "hunter2!", "extra": {"a": 1}}
    assert rm("connection", "set", "db", "--extra", "[1]", "-t", "vision").status == 2


def test_datasets_and_webhooks(portal: FakePortal, rm: Any) -> None:
    portal.on("POST dataset-events", lambda asked: (201, {"id": 9, "uri": asked.body["uri"]}))
    assert rm("dataset", "update", "s3://a", "--extra", '{"n": 1}').out == "event 9 of s3://a\n"
    assert portal.asked[-1].body["extra"] == {"n": 1}
    portal.on("POST webhooks", (201, {"id": 3, "name": "hook", "secret": "rmhook_x"}))
    done = rm("webhook", "create", "hook", "--workflow", "etl")
    assert "/api/v1/webhooks/3/deliveries" in done.out and "rmhook_x" in done.out
    portal.on("GET datasets", (200, {"next": None, "results": [{"id": 1, "uri": "s3://a", "updated_at": None}]}))
    assert "s3://a" in rm("dataset", "list").out


def test_schedules_of_the_sdk(tmp_path: Path) -> None:
    file = tmp_path / "flows.py"
    file.write_text(
        "from datetime import timedelta\nfrom rmctl import DAG, Dataset, bash\n"
        "a, b, c = (Dataset(f's3://{name}') for name in 'abc')\n"
        "with DAG('one', schedule=[timedelta(minutes=90), '@daily']): bash('x', 'true', outlets=[a, 's3://d'])\n"
        "with DAG('two', schedule=a & (b | c)): bash('x', 'true', depends_on_past=True)\n"
        "with DAG('three', schedule=[a, b], end_date='2030-01-01'): bash('x', 'true')\n"
        "with DAG('four', schedule='@hourly', datasets=a): bash('x', 'true', template=False)\n"
    )
    one, two, three, four = (compiled.definition for compiled in compile_file(file))
    assert (one["schedule"], one["tasks"][0]["outlets"]) == ("every 5400s; @daily", ["s3://a", "s3://d"])
    assert (two["schedule"], two["datasets"]) == (None, {"all": ["s3://a", {"any": ["s3://b", "s3://c"]}]})
    assert two["tasks"][0]["depends_on_past"] is True
    assert (three["datasets"], three["end_date"]) == ({"all": ["s3://a", "s3://b"]}, "2030-01-01")
    assert (four["schedule"], four["datasets"]) == ("@hourly", {"all": ["s3://a"]})
    assert four["tasks"][0]["template"] is False


def test_datasets_are_given_once() -> None:
    with pytest.raises(SdkError, match="either in schedule or in datasets"):
        DAG("x", schedule=Dataset("a"), datasets=Dataset("b"))
    with DAG("y", schedule=timedelta(hours=1)) as dag:
        bash("x", "true")
    assert dag.definition()["schedule"] == ["every 3600s"]
