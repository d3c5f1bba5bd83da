"""Operators: http, sql, container and wait_for_file, in a DAG file and as the programs that they run."""

import json
from pathlib import Path
from typing import Any

import pytest

from rmctl import DAG, SdkError, container, http, sql, wait_for_file
from rmctl.operators import Refused, file
from rmctl.operators import http as http_program
from rmctl.spec import parse_workflow
from rmctl.stored import environment_name

from .portal import FakePortal


@pytest.fixture
def connected(portal: FakePortal, monkeypatch: pytest.MonkeyPatch) -> FakePortal:
    """The fake portal as the connection `api` of a task."""
    host, port = portal.url.removeprefix("http://").split(":")
    fields = {"type": "http", "host": host, "port": int(port), "login": "mia", "password": "p@ss", "schema": "api/v1"}
    fields["extra"] = {"headers": {"X-From": "connection"}}
    monkeypatch.setenv(environment_name("connection", "api"), json.dumps(fields))
    return portal


def test_they_are_tasks_like_others() -> None:
    with DAG("w") as dag:
        http("get", "{{ params.path }}", connection="api", expected=[200, 404], retries=2)
        sql("query", "select :n", connection="db", parameters={"n": 1}, connections=["more"])
        wait_for_file("there", "/data/{{ ds }}/*.csv", poke_interval="5m", exponential_backoff=True, soft_fail=True)
        container("boxed", "python:3.12", ["python", "-c", "print('a b')"])
        with pytest.raises(SdkError, match="leave image out"):
            http("x", "http://a", image="python:3.12")
        with pytest.raises(SdkError, match="literally"):
            http("y", "http://a", connection=dag.tasks["get"])  # type: ignore[arg-type]
        with pytest.raises(SdkError, match="give its url"):
            http("z")
        with pytest.raises(SdkError, match="the same connection"):
            sql("q", "select 1", connection="db", expand=[{"connection": "other"}])
        http("each", method="POST", expand={"url": ["http://a", "http://b"], "json": [1, 2]})
        sql("rows", "select 1", connection="db", expand=[{"statement": "select 2", "rows": 5}])
    fields = {**dag.definition(), "params": {"properties": {"path": {"type": "string", "default": "x"}}}}
    compiled = parse_workflow(fields).compiled
    item = compiled["each"].expansion({}, {}).item(1)
    assert compiled["each"].resolve({}, {}, item=item) == {
        "url": "http://a", "json": 2, "method": "POST", "timeout": 60,
    }  # fmt: skip
    [item] = [compiled["rows"].expansion({}, {}).item(0)]
    assert compiled["rows"].resolve({}, {}, item=item) == {"statement": "select 2", "rows": 5, "connection": "db"}
    get = compiled["get"].base["groups"][0]
    assert get["command"] == ["python", "-m", "rmctl.render", "bash", "-c", "exec python -m rmctl.operators.http"]
    assert get["secrets"] == {"RM_CONNECTION_api": "connection:api"}
    query = compiled["query"]
    assert query.base["groups"][0]["script"] == "exec python -m rmctl.operators.sql"
    assert query.base["groups"][0]["env"]["RM_CONNECTIONS"] == "db,more"
    assert query.resolve({}, {})["parameters"] == {"n": 1}
    assert compiled["there"].poked and compiled["there"].options.factor == 2.0  # type: ignore[union-attr]
    boxed = compiled["boxed"].base["groups"][0]
    assert (boxed["image"], boxed["script"]) == ("python:3.12", "exec python -c 'print('\"'\"'a b'\"'\"')'")


def test_a_request_goes_with_its_connection(connected: FakePortal, monkeypatch: Any, tmp_path: Path) -> None:
    connected.on("POST rows", (201, {"id": 7}, {"Content-Type": "application/json"}))
    inputs = {"url": "rows", "method": "POST", "connection": "api", "json": {"a": 1}, "params": {"q": "x"}}
    result = http_program.operate({**inputs, "headers": {"X-Own": "1"}})
    assert (result["status"], result["json"]) == (201, {"id": 7})
    asked = connected.asked[-1]
    assert (asked.body, asked.query) == ({"a": 1}, {"q": "x"})
    assert (asked.headers["X-From"], asked.headers["X-Own"]) == ("connection", "1")
    assert asked.headers["Authorization"].startswith("Basic ")
    connected.on("GET text", (200, b"plain"))
    assert http_program.operate({"url": f"{connected.url}/api/v1/text"})["text"] == "plain"
    connected.on("GET large", (200, b"x" * 300_000))
    monkeypatch.setenv("RM_ARTIFACTS", str(tmp_path))
    kept = http_program.operate({"url": "large", "connection": "api", "artifact": "sub/large.bin"})
    assert (kept["bytes"], (tmp_path / "sub/large.bin").stat().st_size) == (300_000, 300_000)
    with pytest.raises(Refused, match="more than 200 KiB") as refused:
        http_program.operate({"url": "large", "connection": "api"})
    assert refused.value.final


@pytest.mark.parametrize(("status", "final"), [(400, True), (404, True), (429, False), (500, False), (503, False)])
def test_a_bad_answer_fails_the_task(connected: FakePortal, status: int, final: bool) -> None:
    connected.on("GET x", (status, b"because"))
    with pytest.raises(Refused, match=f"status {status}, expected is 200 to 299: because") as refused:
        http_program.operate({"url": "x", "connection": "api"})
    assert refused.value.final is final
    assert http_program.operate({"url": "x", "connection": "api", "expected": [status]})["status"] == status


def test_an_address_that_is_none() -> None:
    with pytest.raises(Refused, match="no http address"):
        http_program.operate({"url": "rows"})
    with pytest.raises(Refused, match=r"127\.0\.0\.1:9: "):
        http_program.operate({"url": "http://127.0.0.1:9/"})


def test_files_are_waited_for(portal: FakePortal, tmp_path: Path) -> None:
    assert file.operate({"path": f"{tmp_path}/*.csv"}) == {"done": False, "value": None}
    (tmp_path / "a.csv").touch()
    assert file.operate({"path": f"{tmp_path}/*.csv"}) == {"done": True, "value": [str(tmp_path / "a.csv")]}
    assert file.operate({"path": "http://127.0.0.1:9/x"})["done"] is False


def test_sql_through_a_connection(monkeypatch: Any, tmp_path: Path) -> None:
    pytest.importorskip("sqlalchemy", reason="an extra of rmctl, needed by the task only")
    from rmctl.operators import sql as program

    fields = {"type": "sqlite", "schema": str(tmp_path / "data.db")}
    monkeypatch.setenv(environment_name("connection", "db"), json.dumps(fields))
    monkeypatch.setenv("RM_ARTIFACTS", str(tmp_path))

    def run(statement: str, **inputs: Any) -> Any:
        return program.operate({"statement": statement, "connection": "db", **inputs})

    run("create table t (n integer, name text)")
    for number in range(3):
        assert run("insert into t values (:n, :name)", parameters={"n": number, "name": "x"}) == {"rowcount": 1}
    assert run("select * from t where n > :n", parameters={"n": 1}) == [{"n": 2, "name": "x"}]
    with pytest.raises(Refused, match="more than 2 rows"):
        run("select * from t", rows=2)
    assert run("select * from t", artifact="t.csv") == {"artifact": "t.csv", "rows": 3, "columns": ["n", "name"]}
    assert (tmp_path / "t.csv").read_text().splitlines() == ["n,name", "0,x", "1,x", "2,x"]
    with pytest.raises(Refused, match="no such table"):
        run("select * from absent")


def test_a_whole_run_of_them(portal: FakePortal, rm: Any, tmp_path: Path) -> None:
    portal.on("GET rows/5", (200, [1, 2], {"Content-Type": "application/json"}))
    portal.on("GET gone", (404, b"nothing"))
    (tmp_path / "flow.py").write_text(
        "from rmctl import DAG, http, wait_for_file\n"
        "with DAG('w', params={'n': 5}) as dag:\n"
        f"    there = wait_for_file('there', {str(tmp_path / '*.py')!r})\n"
        "    there >> http('rows', 'rows/{{ params.n }}', connection='api') >> http('gone', 'gone', connection='api')\n"
    )
    (tmp_path / "stored.yaml").write_text(f"connections: {{api: '{portal.url}/api/v1'}}\n")
    where = ["--folder", str(tmp_path / "out"), "--variables", str(tmp_path / "stored.yaml"), "--json"]
    done = rm("dev", str(tmp_path / "flow.py"), *where)
    assert done.json["tasks"] == {"there": "succeeded", "rows": "succeeded", "gone": "failed"}, done.err
    assert done.json["results"]["rows"]["json"] == [1, 2]
    assert done.json["results"]["there"] == [str(tmp_path / "flow.py")]
    assert "error: the answer has status 404" in done.err
