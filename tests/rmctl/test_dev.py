"""`rmctl dev`: a whole workflow on the author's machine, with what runs, what is passed on, and what is said."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from rmctl.dev.interval import interval_of
from rmctl.spec import parse_workflow

EXAMPLES = Path(__file__).parents[2] / "examples"

FLOW = '''
import os, sys
from rmctl import (DAG, Dataset, Poked, TaskGroup, TaskSkipped, approval, artifact, bash, connection, context, empty,
                   param, task, trigger_run, variable, wait_for, wait_for_dataset, wait_for_run, wait_until)

@task
def start(n):
    artifact("kept.txt").write_text("kept")
    assert context().run_id == "dev" and context().params == {"n": n} and os.getcwd().endswith("/start/work")
    return {"items": list(range(n)), "label": ("a", "b")}

@task
def square(x, extra):
    return {"x": x * x, "extra": extra}

@task.branch
def pick(label): return ["ways." + label[1]]

@task.short_circuit
def go(): return 0

@task.sensor(poke_interval="1s")
def ready():
    return Poked(True, 7)

@task.bash
def script(n): return "echo '{\\"n\\": %d}' > $RM_RESULT" % n

@task
def render(text): return [text, variable("v"), connection("c").password, os.environ["TOKEN"]]

@task
def skip(): raise TaskSkipped("nothing today")

@task
def boom(x):
    values = {}
    return values["missing"] + x

@task
def odd(): return {1, 2}

with DAG("all", schedule="@daily", params={"n": 2}) as dag:
    s = start(param("n"))
    q = square.partial(extra=script(ready())["n"]).expand(x=s["items"])
    p = pick(s["label"])
    with TaskGroup("ways"):
        ways = [bash("a", "echo a"), bash("b", "echo {{ ti.xcom_pull(task_ids='start', key='items') }} {{ ds }}")]
    p >> ways >> empty("join", trigger_rule="none_failed_min_one_success")
    ask = approval("ask", "Go?", show={"s": s}, form={"properties": {"n": {"type": "integer", "default": 3}}})
    ask >> bash("asked", "echo $RM_ARG_A > out; cat out", arguments={"a": ask})
    reject = approval("refused", "Really?")
    reject >> bash("unasked", "echo no")
    go() >> bash("stopped", "echo no")
    wait_for("w", "10m") >> wait_until("u", "06:30") >> trigger_run("t", "other", params={"x": q}) >> \\
        wait_for_run("wr", "other") >> wait_for_dataset("wd", Dataset("s3://a") | Dataset("s3://b"))
    render.override(variables=["v"], connections=["c"], secrets={"TOKEN": "token"})("{{ data_interval_start }}")
    skip() >> bash("behind", "echo no")
    boom(1) >> bash("not_run", "echo no")
    odd()
    bash("status", "exit 3")
    made = bash("make", "echo made").as_setup()
    clean = bash("clean", "echo cleaned").as_teardown(setups=made)
    made >> bash("slow", "sleep 60", time_limit="1s") >> clean
    bash("missing", "echo", connections=["nowhere"])
'''

STORED = 'variables: {v: {deep: 1}}\nconnections: {c: "postgres://me:p%40ss@db/x"}\nsecrets: {token: hidden}\n'
COMMAND = ["--logical-time", "2026-03-02", "--answer", "ask=approve", "--answer", "refused=reject", "--json"]


@pytest.fixture
def flow(tmp_path: Path) -> list[str]:
    (tmp_path / "flow.py").write_text(FLOW)
    (tmp_path / "stored.yaml").write_text(STORED)
    return [str(tmp_path / "flow.py"), "--variables", str(tmp_path / "stored.yaml"), "--folder", str(tmp_path / "out")]


@pytest.mark.parametrize("isolated", [False, True])
def test_a_workflow_of_everything(rm: Any, flow: list[str], tmp_path: Path, isolated: bool) -> None:
    before = dict(os.environ), os.getcwd()
    done = rm("dev", *flow, *COMMAND, *(["--isolated"] if isolated else []))
    assert (dict(os.environ), os.getcwd()) == before
    assert done.status == 1 and done.json["state"] == "failed"
    by_state: dict[str, set[str]] = {}
    for name, state in done.json["tasks"].items():
        by_state.setdefault(state, set()).add(name)
    assert by_state == {
        "succeeded": {"start", "ready", "script", "square", "pick", "ways.b", "join", "ask", "asked", "refused", "go",
                      "w", "u", "t", "wr", "wd", "render", "make", "clean"},
        "skipped": {"ways.a", "unasked", "stopped", "skip", "behind"},
        "failed": {"boom", "odd", "status", "slow", "missing"},
        "upstream_failed": {"not_run"},
    }  # fmt: skip
    results = done.json["results"]
    assert results["start"] == {"items": [0, 1], "label": ["a", "b"]}
    assert results["square"] == [{"x": 0, "extra": 7}, {"x": 1, "extra": 7}]
    assert results["ask"] == {"option": "approve", "values": {"n": 3}, "by": "dev"}
    assert results["render"] == ["2026-03-01 00:00:00+00:00", '{"deep": 1}', "p@ss", "hidden"]
    assert "  │ [0, 1] 2026-03-02\n" in done.err
    assert "which cannot be stored as JSON" in done.err
    assert "It ran longer than its time limit of 1 seconds." in done.err
    assert "connection nowhere is missing: put it under connections of" in done.err
    assert "would wait for s3://a or s3://b; passed over" in done.err
    assert "would start a run of other with {\"x\": [{" in done.err
    if not isolated:
        number = FLOW.splitlines().index('    return values["missing"] + x') + 1
        assert f"{tmp_path}/flow.py:{number}\n" in done.err and f"❱ {number:>4} │     return values" in done.err
    assert "KeyError: 'missing'" in done.err
    assert (tmp_path / "out/start/artifacts/kept.txt").read_text() == "kept"
    assert json.loads((tmp_path / "out/run.json").read_text())["results"] == results
    assert not (tmp_path / "out/start/work").exists()


def test_one_task_with_what_it_needs(rm: Any, tmp_path: Path) -> None:
    out = ["--folder", str(tmp_path / "out")]
    done = rm("dev", str(EXAMPLES / "etl.py"), "--task", "clean", "-p", "pods=data/pods_default.csv.gz", "--json", *out)
    assert done.status == 0 and list(done.json["tasks"]) == ["partitions", "clean"]
    classes = done.json["results"]["partitions"]["classes"]
    assert len(done.json["results"]["clean"]) == len(classes) > 1
    done = rm("dev", str(EXAMPLES / "hello.yaml"), "-p", "who=Mia", *out)
    assert done.status == 0 and "hello Mia, in Deutsch" in done.out and "hello succeeded" in done.out


MAPS = """
from rmctl import DAG, Cache, approval, bash, param, run_state, state, task, zipped

@task(state=True)
def load(size):
    assert run_state.get("seen") is None
    version = state.set("cursor", state.get("cursor", 0) + 1)
    assert state.compare_and_set("cursor", version + 1, 9) is None
    run_state.set("seen", version)
    return {"sizes": list(range(size)), "names": ["a", "b", "c"], "rows": [{"name": "x"}, {"name": "y", "size": 9}]}

@task(cache=Cache("1d", version="2"), slots="db", max_active=2, deadline="2h")
def one(name, size=1): return f"{name}{size}"

@task(state=True)
def greedy(): state.set("two words", 1)

@task
def not_asked(): state.set("n", 1)

with DAG("w", params={"size": 2}, deadline="3h", time_limit="4h", on_failure=["team"]) as dag:
    made = load(param("size"))
    one.override(id="product").expand(name=made["names"], size=made["sizes"])
    one.override(id="places").expand_zip(name=made["names"], size=made["sizes"], fillvalue=7)
    one.override(id="rows", map_index_template="{{ name }}!").expand_kwargs(made["rows"])
    one.override(id="uneven", on_failure="owner").expand_zip(name=made["names"], size=made["sizes"])
    made >> bash(
        "script", "python -m rmctl.sdk.state --run set n_$RM_ARG_A$RM_ARG_B 1; "
        "python -m rmctl.sdk.state --run keys | wc -l > $RM_RESULT", expand=zipped(a=["x", "y"], b=[1, 2]), state=True)
    approval("ask", "Go?", expand={"who": ["u", "v"]}) >> bash("unasked", "echo no")
    greedy(), not_asked()
"""


def test_every_way_to_map_and_state_that_stays_in_the_folder(rm: Any, tmp_path: Path) -> None:
    (tmp_path / "flow.py").write_text(MAPS)
    command = ["dev", str(tmp_path / "flow.py"), "--folder", str(tmp_path / "out"), "--answer", "ask=reject", "--json"]
    for cursor in (1, 2):
        done = rm(*command)
        assert {name for name, state in done.json["tasks"].items() if state == "failed"} == {
            "uneven", "greedy", "not_asked",
        }  # fmt: skip
        results = done.json["results"]
        assert results["product"] == ["a0", "a1", "b0", "b1", "c0", "c1"]
        assert results["places"] == ["a0", "b1", "c7"] and results["rows"] == ["x1", "y9"]
        assert results["script"] == [2, 3]
        assert "[1] y!\n" in done.err
        assert done.json["tasks"]["unasked"] == "skipped"
        kept = json.loads((tmp_path / "out/state.json").read_text())
        assert kept["values"] == {"cursor": {"version": cursor, "value": cursor}}
    for said in (
        "not heeded here: time limit of a run 4h", "not heeded here: deadline 3h after the start of the run",
        "nothing comes from its cache, without its slots db (1), without its max_active 2, without its deadline 2h",
        "would tell owner: uneven has failed", "would tell team: the run has failed",
        "name has 3 items, size has 2 items", "is not a key: letters, digits", "give it state=True",
    ):  # fmt: skip
        assert said in done.err
    (tmp_path / "out/state.json").write_text("{}")
    done = rm(*command)
    assert done.status == 2 and "state.json: this is no state" in done.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--task", "strat"], "Did you mean start?"),
        (["-p", "n=x"], "params.n: Must be of type integer"),
        (["--answer", "start=yes"], "those that ask are ask, refused"),
        (["--answer", "ask=maybe"], "'maybe' is not one of approve, reject."),
        (["--logical-time", "today"], "give a time such as"),
        (["--workflow", "other"], "it has all"),
        (["--variables", "/nowhere/at/all"], "No such file"),
    ],
)
def test_wrong_words_are_refused(rm: Any, flow: list[str], arguments: list[str], said: str) -> None:
    if "maybe" in arguments[-1]:
        arguments = [*arguments, "--task", "ask"]
    done = rm("dev", *flow, *arguments)
    assert done.status == 2 and said in done.err


def test_nobody_to_ask_and_nothing_to_wait_for(rm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "flow.py").write_text(
        "from rmctl import DAG, approval, task\n@task.sensor\ndef ready(): return False\n"
        "with DAG('w') as dag:\n    ready() >> approval('ask', 'Go?')\n"
    )
    done = rm("dev", str(tmp_path / "flow.py"), "--no-wait", "--folder", str(tmp_path / "out"))
    assert done.status == 1 and "give --answer ask=approve" in done.out and "passed over (--no-wait)" in done.out


def test_a_file_that_does_not_compile_is_not_run(rm: Any, tmp_path: Path) -> None:
    (tmp_path / "flow.yaml").write_text("name: w\ntasks: {a: {script: x, upstream: [b]}}\n")
    done = rm("dev", str(tmp_path / "flow.yaml"))
    assert done.status == 2 and "flow.yaml:2:35: error: tasks.a.upstream[0]" in done.err


def test_functions_that_only_the_portal_has_are_named(rm: Any, tmp_path: Path) -> None:
    text = f"name: w\nbundle: {'b' * 64}\ntasks: {{a: {{file: work.py, function: f}}}}\n"
    (tmp_path / "flow.yaml").write_text(text)
    done = rm("dev", str(tmp_path / "flow.yaml"))
    assert done.status == 2 and "work.py is in a bundle of the portal: take the bundle out of flow.yaml" in done.err


def test_a_debugger_stops_in_a_task(tmp_path: Path) -> None:
    (tmp_path / "flow.py").write_text(
        "from rmctl import DAG, task\n@task\ndef a():\n    x = 41\n    breakpoint()\n    return x\n"
        "with DAG('w') as dag:\n    a()\n"
    )
    command = [sys.executable, "-m", "rmctl", "dev", str(tmp_path / "flow.py"), "--folder", str(tmp_path / "out")]
    done = subprocess.run(
        command, input="p x + 1\nc\n", capture_output=True, text=True, timeout=60, check=False, cwd=EXAMPLES.parent
    )
    assert done.returncode == 0 and "(Pdb) 42" in done.stdout


def test_the_data_interval_is_the_one_that_was_complete_last() -> None:
    def interval(schedule: Any, at: str, **fields: Any) -> list[str]:
        definition = parse_workflow(
            {"name": "w", "schedule": schedule, "tasks": [{"id": "a", "kind": "empty"}], **fields}
        ).definition
        found = interval_of(definition, datetime.fromisoformat(at).replace(tzinfo=UTC))
        return [f"{moment:%d %H:%M}" for moment in found or ()]

    assert interval("@daily", "2026-03-02T00:00") == ["01 00:00", "02 00:00"]
    assert interval("@daily", "2026-03-02T23:59", timezone="Europe/Berlin") == ["02 00:00", "03 00:00"]
    assert interval("every 6h", "2026-03-02T13:00", start_date="2026-03-01T01:00") == ["02 07:00", "02 13:00"]
    assert interval(["0 6 * * *", "0 18 * * *"], "2026-03-02T12:00") == ["01 18:00", "02 06:00"]
    assert interval("@continuous", "2026-03-02") == interval(None, "2026-03-02") == []
