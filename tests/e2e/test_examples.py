"""The workflows of examples/ on a real portal: each does what its file says, shown by the numbers that it makes.

All of them are pushed and started together, so that their runs overlap; each test waits for its own.
"""

import csv
import gzip
import http.client
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from examples.bucket import Bucket
from rmctl.client import Client
from rmctl.sdk.compile import compile_file

from .conftest import ROOT, DemoPortal, wait_until

EXAMPLES = ROOT / "examples"
ENDED = ("succeeded", "failed", "cancelled")
RUN_SECONDS = 180
NODES = EXAMPLES / "data" / "nodes.csv"
DAY = 86400
# The class of service and the creation day of every pod, read here by other code than the examples'.
with gzip.open(EXAMPLES / "data" / "pods_default.csv.gz", "rt", encoding="utf-8", newline="") as stream:
    PODS = [(row["qos"], int(row["creation_time"]) // DAY) for row in csv.DictReader(stream)]


class Author:
    """Somebody of the tenant vision who pushes the examples and starts runs of them."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.workflows: dict[str, int] = {}
        self.runs: dict[str, int] = {}

    def push(self, file: str) -> None:
        for workflow in compile_file(EXAMPLES / file):
            if workflow.bundle is not None:
                self.client.upload_bundle(workflow.bundle, "vision")
            self.workflows[workflow.spec.name] = self.client.push(workflow.definition, "vision")["id"]

    def trigger(self, workflow: str, run: str = "", **params: Any) -> None:
        """Start a run, to be known by this name or that of its workflow."""
        self.runs[run or workflow] = self.client.trigger(self.workflows[workflow], params)["id"]

    def end(self, run: int) -> str:
        """The state in which a run ends."""
        state = lambda: self.client.run(run)["state"]  # noqa: E731
        return str(wait_until(lambda: (found := state()) in ENDED and found, RUN_SECONDS, f"the end of run {run}"))

    def states(self, run: int) -> dict[str, Any]:
        """The states of a run's tasks; of a mapped one how many instances it has."""
        nodes = self.client.run_graph(run)
        return {node["id"]: f"{node['width']} {node['state']}" if node["mapped"] else node["state"] for node in nodes}

    def job(self, run: int, task: str) -> dict[str, Any]:
        """The job of a task."""
        (node,) = (node for node in self.client.run_graph(run) if node["id"] == task)
        return self.client.job(node["job"])

    def result(self, run: int, task: str) -> Any:
        return self.job(run, task)["result"]

    def artifact(self, run: int, task: str, name: str) -> bytes:
        job = self.job(run, task)["id"]
        (found,) = (row for row in self.client.pages(f"jobs/{job}/artifacts") if row["name"] == name)
        return self.client.request("GET", f"jobs/{job}/artifacts/{found['id']}").content


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    """The bucket that README says to start for the examples that need one."""
    with Bucket(0) as found:
        thread = threading.Thread(target=found.serve_forever)
        thread.start()
        yield found
        found.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def author(demo: DemoPortal, bucket: Bucket) -> Iterator[Author]:
    """The author, once everything has been pushed and all that needs no answer has been started."""
    with Client(demo.url) as anonymous:
        token = anonymous.login("mia", demo.people["mia"], "examples")
    with Client(demo.url, token) as client:
        found = Author(client)
        for file in sorted(EXAMPLES.glob("*.py")):
            if file.name not in ("bucket.py", "gpu_trace.py"):  # The demo itself runs the latter.
                found.push(file.name)
        found.push("hello.yaml")
        found.trigger("sensor", bucket=bucket.url)
        body = {"first": "2023-06-01T00:00Z", "last": "2023-06-30T00:00Z", "max_active_runs": 8}
        found.runs["backfill"] = client.post("backfills", {"workflow": found.workflows["daily"], **body})["id"]
        for name in ("etl", "train", "sweep", "orders", "release", "hello"):
            found.trigger(name)
        found.trigger("release", "refused")
        found.trigger("train", "untrained", steps=0)
        found.trigger("groups", bucket=bucket.url)
        found.trigger("groups", "broken groups", bucket=bucket.url, limit=10)
        yield found


def test_etl_loads_every_row_of_the_trace(author: Author, tmp_path: Path) -> None:
    run = author.runs["etl"]
    assert author.end(run) == "succeeded"
    assert author.states(run)["clean"] == "4 succeeded"
    by_day = Counter(day for _, day in PODS)
    (day, most) = by_day.most_common(1)[0]
    found = author.result(run, "check")
    assert (found["pods"], found["busiest"]["day"], found["busiest"]["pods"]) == (len(PODS), day, most)
    (tmp_path / "warehouse.sqlite").write_bytes(author.artifact(run, "load", "warehouse.sqlite"))
    with closing(sqlite3.connect(tmp_path / "warehouse.sqlite")) as warehouse:
        assert dict(warehouse.execute("SELECT day, pods FROM by_day")) == by_day
        by_class = warehouse.execute("SELECT qos, sum(pods) FROM fact GROUP BY qos")
        assert dict(by_class) == Counter(qos for qos, _ in PODS)


def test_training_publishes_a_model_that_is_better_than_a_constant(author: Author) -> None:
    run = author.runs["train"]
    assert author.end(run) == "succeeded"
    judged = author.result(run, "publish")
    # A quarter of the newest fifth of the pods that ran has failed.
    assert (judged["pods"], judged["constant"]) == (1451, 0.7464)
    assert judged["accuracy"] > 0.9 and judged["ranking"] > 0.9
    assert b'"weights"' in author.artifact(run, "publish", "model.json")


def test_training_goes_on_from_what_it_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from examples.train import fit

    pods = "data/pods_default.csv.gz"
    for folder in ("whole", "evicted"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / "whole")
    whole = fit(pods, 300)
    monkeypatch.chdir(tmp_path / "evicted")
    fit(pods, 250)  # Its last checkpoint is that of step 200.
    said: list[str] = []
    monkeypatch.setattr("builtins.print", said.append)
    assert fit(pods, 300) == whole
    assert said == ["5804 pods, 300 steps, 200 of them done before"]


def test_training_stops_at_the_gate_without_training(author: Author) -> None:
    run = author.runs["untrained"]
    assert author.end(run) == "failed"
    assert author.states(run) == {"fit": "succeeded", "judge": "failed", "publish": "upstream_failed"}
    log, _ = author.client.log(author.job(run, "judge")["id"])
    assert "the model is right about 74.6%, a constant about 74.6%: not published" in log.decode()


def test_sweep_finds_the_best_factor(author: Author) -> None:
    run = author.runs["sweep"]
    assert author.end(run) == "succeeded"
    assert author.states(run)["score"] == "10 succeeded"
    days = Counter(day for _, day in PODS)
    series = [days[day] for day in range(115, 149)]

    def error(factor: float) -> float:
        """The closed form of the recursion: weights that fall off geometrically."""
        forecasts = [
            sum(factor * (1 - factor) ** back * series[day - back] for back in range(day))
            + (1 - factor) ** day * series[0]
            for day in range(len(series) - 1)
        ]
        misses = [abs(real - said) for real, said in zip(series[1:], forecasts, strict=True)]
        return round(sum(misses) / len(misses), 2)

    errors = {factor: error(factor) for factor in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)}
    best = min(errors, key=lambda factor: errors[factor])
    assert author.result(run, "best") == {"factor": best, "error": errors[best]}
    table = csv.DictReader(author.artifact(run, "best", "scores.csv").decode().splitlines())
    assert {float(row["factor"]): float(row["error"]) for row in table} == errors


def test_new_orders_start_the_revenue(author: Author) -> None:
    run = author.runs["orders"]
    assert author.end(run) == "succeeded"
    caused = wait_until(
        lambda: author.client.get("runs", workflow=author.workflows["revenue"])["results"], RUN_SECONDS, "a run"
    )
    assert len(caused) == 1 and caused[0]["trigger"] == "dataset"
    assert author.end(caused[0]["id"]) == "succeeded"
    # 40 apples at 0.25, 3 loaves at 3.50, 2 coffees at 7.
    assert author.result(caused[0]["id"], "total") == {"deliveries": 1, "worth": 34.5}
    (event,) = author.client.pages(f"runs/{caused[0]['id']}/datasets")
    assert (event["uri"], event["run"], event["task"]) == ("shop://orders", run, "take")


@pytest.mark.parametrize(("run", "option"), [("release", "approve"), ("refused", "reject")])
def test_release_waits_for_an_answer_and_follows_it(author: Author, run: str, option: str) -> None:
    number = author.runs[run]

    def asked() -> Any:
        return [row for row in author.client.pages("approvals", mine="true") if row["run"] == number]

    (question,) = wait_until(asked, RUN_SECONDS, "the question")
    shown = {"before_ms": 40, "after_ms": 30, "faster": "25%"}
    assert question["shown"] == {"measured": shown} and author.states(number)["ask"] == "deferred"
    author.client.post(f"approvals/{question['id']}/answer", {"option": option, "values": {"percent": 15}})
    assert author.end(number) == "succeeded"
    if option == "reject":
        assert author.states(number) == {"measure": "succeeded", "ask": "succeeded", "roll_out": "skipped"}
    else:
        assert author.result(number, "roll_out") == ["web-1", "web-2", "web-3"]
        said = author.artifact(number, "roll_out", "release.txt").decode().splitlines()
        assert said == ["released on 3 of 20 machines, by the word of mia", "web-1", "web-2", "web-3"]


def test_sensor_waits_for_the_file(author: Author, bucket: Bucket) -> None:
    run = author.runs["sensor"]
    wait_until(lambda: author.states(run)["arrived"] == "deferred", RUN_SECONDS, "a poke that found nothing")
    bucket.files["/nodes.csv"] = NODES.read_bytes()
    assert author.end(run) == "succeeded"
    with NODES.open(encoding="utf-8", newline="") as stream:
        nodes = list(csv.DictReader(stream))
    cards: Counter[str] = Counter()
    for node in nodes:
        cards[node["model"]] += int(node["gpu"])
    seen = {"url": f"{bucket.url}/nodes.csv", "bytes": NODES.stat().st_size}
    assert author.result(run, "arrived") == {"done": True, "value": seen}
    assert author.result(run, "count") == {"nodes": len(nodes), "gpus": cards}


def test_groups_leave_nothing_behind(author: Author, bucket: Bucket) -> None:
    whole, broken = author.runs["groups"], author.runs["broken groups"]
    assert author.end(whole) == "succeeded"
    assert set(author.states(whole).values()) == {"succeeded"}
    assert author.result(whole, "by_model.checks.whole") == author.result(whole, "by_gpu.checks.whole") == 6212
    # The booking and one file of each group.
    assert author.result(whole, "clean") == 3
    assert author.end(broken) == "failed"
    states = author.states(broken)
    assert [name for name, state in states.items() if state == "failed"] == ["by_model.checks.common"]
    assert states["clean"] == "succeeded" and author.result(broken, "clean") == 3
    assert not [name for name in bucket.files if name.startswith("/run-")]


def test_backfill_makes_up_for_thirty_days(author: Author) -> None:
    backfill = author.runs["backfill"]

    def ended() -> Any:
        return (found := author.client.get(f"backfills/{backfill}"))["state"] != "running" and found

    found = wait_until(ended, RUN_SECONDS, "the end of the backfill")
    assert (found["state"], found["total"]) == ("succeeded", 30)
    runs = list(author.client.pages("runs", workflow=author.workflows["daily"]))
    # The timetable may have made one of its own.
    runs = [run for run in runs if run["backfill"] == backfill]
    results = {run["logical_time"][:10]: author.result(run["id"], "arrivals") for run in runs}
    days = Counter(day for _, day in PODS)
    first = datetime(2023, 6, 1, tzinfo=UTC)
    expected = {f"{first + timedelta(days=number):%Y-%m-%d}": days[116 + number] for number in range(30)}
    assert {date: result["pods"] for date, result in results.items()} == expected
    line = author.artifact(runs[0]["id"], "report", f"{runs[0]['logical_time'][:10]}.csv").decode().splitlines()[1]
    assert line.startswith(f"{runs[0]['logical_time'][:10]},{expected[runs[0]['logical_time'][:10]]},")


def test_hello_greets_in_both_languages(author: Author) -> None:
    run = author.runs["hello"]
    assert author.end(run) == "succeeded"
    greetings = [row["job"] for row in author.client.run_tasks(run) if row["name"] == "greet" and row["index"] >= 0]
    logs = [author.client.log(job)[0].decode() for job in greetings]
    assert logs == ["hello world, in English\n", "hello world, in Deutsch\n"]


def test_bucket_answers_as_a_bucket_does(bucket: Bucket) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", bucket.server_port)

    def asked(method: str, path: str, content: bytes | None = None) -> tuple[int, bytes]:
        connection.request(method, path, content)
        answer = connection.getresponse()
        return answer.status, answer.read()

    with closing(connection):
        assert asked("GET", "/a")[0] == 404
        assert asked("PUT", "/a", b"one")[0] == 204
        assert asked("GET", "/a") == (200, b"one")
        assert asked("DELETE", "/a")[0] == 204
        assert asked("DELETE", "/a")[0] == 404
