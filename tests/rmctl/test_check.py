"""`rmctl push --check`: every fault of a file at once, each with its line."""

import json
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.branches import left_out_by_branch
from engine.dag import Graph, TaskNode, TaskState, advance
from rmctl.sdk.check import Finding, check_file
from rmctl.spec import parse_workflow
from rmctl.spec.review import unreachable

from .portal import FakePortal, problem

EXAMPLES = Path(__file__).parents[2] / "examples"
NOW = datetime(2026, 3, 1, tzinfo=UTC)
S, F, K = TaskState.SUCCEEDED, TaskState.FAILED, TaskState.SKIPPED

HEADER = "from rmctl import DAG, bash, empty, param, task\n"


def found(folder: Path, text: str, name: str = "flow.py") -> list[Finding]:
    path = folder / name
    path.write_text(HEADER + text if name.endswith(".py") else text, encoding="utf-8")
    return check_file(path, NOW).findings


def said(findings: list[Finding]) -> dict[tuple[int, str], str]:
    return {(finding.place.line if finding.place else 0, finding.field): finding.code for finding in findings}


def test_all_faults_of_a_python_file_come_at_once_with_their_lines(tmp_path: Path) -> None:
    text = """
@task
def numbers(n: int) -> list[str]:
    return ["a"]
@task
def total(values: int, more: str = "x") -> dict[str, int]:
    return {"a": 1}
@task.branch
def pick(x) -> str:
    return "left" if x else "rigt"
@task
def use(a: list[int], b: "str | None"): ...
with DAG("w", params={"k": "text"}, schedule="30 2 * * *", timezone="Europe/Berlin", end_date="2020-01-01") as dag:
    n = numbers(
        param("k"))
    t = total(n, more=5)
    p = pick(t["a"])
    left = empty("left")
    p >> left
    use.partial(a=numbers(1)).expand(b=t)
with DAG("other") as other:
    a = bash("a", "x", secrets={"A": "b c"})
    b = bash("b", "x", resources={"cpu": "-1"})
    a >> b
    b >> a
"""
    findings = found(tmp_path, text)
    assert said(findings) == {
        (11, "tasks.pick.function"): "unknown_choice",
        (14, "end_date"): "never_comes",
        (15, "tasks.numbers.arguments.n"): "wrong_type",
        (17, "tasks.total.arguments.values"): "wrong_type",
        (17, "tasks.total.arguments.more"): "wrong_type",
        (21, "tasks.use.arguments.a"): "wrong_type",
        (21, "tasks.use.map.over.b"): "wrong_type",
        (23, "tasks.a.secrets.A"): "bad_secret",
        (24, "tasks.b.resources.cpu"): "negative",
        (26, "tasks.a.upstream"): "cycle",
        (14, "schedule"): "clock_change",
    }
    assert {finding.workflow for finding in findings} == {"w", "other"}
    by_field = {finding.field: finding.message for finding in findings}
    assert by_field["tasks.total.arguments.values"] == (
        "total takes values as int, but is given the result of numbers (list[str])."
    )


def test_every_way_to_map_is_held_against_the_function(tmp_path: Path) -> None:
    text = """
@task
def make() -> dict[str, int]: return {"a": 1}
@task
def use(a: int, b: str, c: float = 1.0): ...
@task
def loose(a: int, **more): ...
with DAG("w", params={"n": 1}) as dag:
    use.override(id="product").expand(a=[1], b=[2])
    use.override(id="places").expand_zip(a=["x"], b=make())
    use.override(id="rows").expand_kwargs([{"a": 1, "b": "x", "c": []}])
    use.override(id="whole").expand_kwargs(make())
    use.override(id="number").expand_kwargs(param("n"))
    loose.override(id="open").expand_kwargs([{"a": 1, "z": []}, {"a": "x"}])
"""
    assert said(found(tmp_path, text)) == {
        (10, "tasks.product.map.over.b"): "wrong_type",
        (11, "tasks.places.map.zip.a"): "wrong_type",
        (11, "tasks.places.map.zip.b"): "wrong_type",
        (12, "tasks.rows.map.kwargs.value[0].c"): "wrong_type",
        (13, "tasks.whole.map.kwargs"): "wrong_type",
        (14, "tasks.number.map.kwargs"): "wrong_type",
        (15, "tasks.open.map.kwargs.value[1].a"): "wrong_type",
    }
    (tmp_path / "work.py").write_text("def use(a: int, b: str, c: float = 1.0): ...\n")
    rows = [{"a": 1, "b": "x"}, {"a": 1, "d": 2}]
    text = f"name: w\ntasks:\n  m: {{file: work.py, function: use, map: {{kwargs: {{value: {json.dumps(rows)}}}}}}}\n"
    assert [(f.field, f.code) for f in found(tmp_path, text, "flow.yaml")] == [
        ("tasks.m.map.kwargs.value[1]", "required"),
        ("tasks.m.map.kwargs.value[1].d", "unknown_argument"),
    ]
    # What a result gives is seen when the run gets there.
    text = "name: w\ntasks:\n  a: {script: x}\n  m: {file: work.py, function: use, map: {kwargs: {result: a}}}\n"
    assert found(tmp_path, text, "flow.yaml") == []


def test_faults_of_yaml_have_line_and_column(tmp_path: Path) -> None:
    (tmp_path / "work.py").write_text("def load(rows: int, mode): ...\n")
    text = """name: w
tasks:
  first:
    script: echo
    retries: {limit: -1}
  second:
    file: work.py
    function: load
    arguments: {rows: {value: x}, extra: {value: 1}}
    upstream: [first, nobody]
  third: {file: work.py, function: lod}
"""
    findings = found(tmp_path, text, "flow.yaml")
    places = {(f.place.line, f.place.column): (f.field, f.code) for f in findings if f.place}
    assert places == {
        (5, 15): ("tasks.first.retries.limit", "out_of_range"),
        (9, 5): ("tasks.second.arguments", "required"),
        (9, 17): ("tasks.second.arguments.rows", "wrong_type"),
        (9, 35): ("tasks.second.arguments.extra", "unknown_argument"),
        (10, 23): ("tasks.second.upstream[1]", "unknown_upstream"),
        (11, 26): ("tasks.third.function", "unknown_function"),
    }


@pytest.mark.parametrize("name", ["a.py", "b.yaml"])
def test_a_file_that_cannot_be_read_says_where(tmp_path: Path, name: str) -> None:
    [finding] = found(tmp_path, "with DAG('w') as\n" if name == "a.py" else "name: [x\n", name)
    assert finding.code == "unusable_file" and finding.place is not None and finding.place.line == 2


def test_what_is_right_or_not_plainly_wrong_is_not_reported(tmp_path: Path) -> None:
    text = """
from typing import Any, Optional, TypedDict
from somewhere_else import Odd
def wraps(function): return lambda n: function(str(n))
class Row(TypedDict):
    name: str
    size: int
@task
def rows() -> list[Row]: return []
@task
def names(names: list[str], n: float, deep: "Optional[dict[str, Any]]" = None) -> "str | None": ...
@task
def one(row: Row, size: "int | str", odd: Odd, flag: int): ...
@task
@wraps
def wrapped(x: str): ...
@task.sensor
def ready() -> bool: return True
@task
def after(done: str, seen: tuple[int, ...], *, later: Any = 1) -> int: return 1
@task
def ask(x: float): ...
with DAG("w", params={"size": 1}) as dag:
    r = rows()
    names(r["name"], 1)
    one.partial(size=param("size"), odd=r, flag=True).expand(row=r)
    s = ready()
    after(s, [1, 2])
    ask(after.override(id="b")(s, []))
"""
    (tmp_path / "somewhere_else.py").write_text("class Odd: ...\n")
    (tmp_path / "flow.yaml").write_text(
        "name: w\nfiles: [flow.py, somewhere_else.py]\ntasks:\n"
        "  a: {file: flow.py, function: wrapped, arguments: {n: {value: 1}}}\n"
    )
    assert found(tmp_path, text) == check_file(tmp_path / "flow.yaml", NOW).findings == []


@pytest.mark.parametrize(
    ("body", "annotation", "rule", "reported"),
    [
        ('return "a" if x else "b"', "", "all_success", {"join"}),
        ('return "a" if x else "b"', "", "none_failed_min_one_success", set()),
        ('return ["a", "b"]', "", "all_success", set()),
        ('return "a"', "", "none_failed_min_one_success", {"b"}),
        ("return x", "", "all_success", set()),
        ("return x", " -> str", "all_success", {"join"}),
        ("return x", " -> list[str]", "all_success", set()),
        ('return "left"', "", "one_success", {"b"}),
    ],
)
def test_tasks_that_a_branch_never_leads_to(
    tmp_path: Path, body: str, annotation: str, rule: str, reported: set[str]
) -> None:
    text = f"""
from rmctl import TaskGroup
@task.branch
def pick(x){annotation}:
    {body}
with DAG("w") as dag:
    with TaskGroup("left", prefix_group_id=False):
        a = bash("a", "x")
    pick(1) >> [a, bash("b", "x")] >> bash("join", "x", trigger_rule="{rule}")
"""
    findings = found(tmp_path, text)
    assert {finding.field.split(".")[1] for finding in findings} == reported
    assert all(finding.code == "unreachable" for finding in findings)


def test_functions_in_the_block_of_their_dag_are_held_against_their_use(tmp_path: Path) -> None:
    """As most files are written; of two with one name nothing is known."""
    text = """
with DAG("w") as dag:
    @task
    def rows() -> str: return "a"
    @task
    def use(rows: list[int]): ...
    @task.branch
    def pick(): return "nowhere"
    use(rows())
    pick() >> bash("a", "x")
    if True:
        @task
        def twice() -> str: return "a"
    else:
        @task
        def twice() -> list[int]: return [1]
    use.override(id="again")(twice())
"""
    assert {finding.field for finding in found(tmp_path, text)} == {"tasks.use.arguments.rows", "tasks.pick.function"}


@st.composite
def small_graphs(draw: st.DrawFn) -> tuple[dict[str, Any], list[frozenset[str]]]:
    """A definition of up to five tasks, the first a branch, and what it may choose."""
    rules = ["all_success", "all_failed", "all_skipped", "one_success", "one_failed", "one_done", "none_failed",
             "none_failed_min_one_success", "none_skipped", "all_done"]  # fmt: skip
    tasks: list[dict[str, Any]] = [{"id": "t0", "kind": "bash", "script": "x", "decides": "branch"}]
    for number in range(1, draw(st.integers(2, 5))):
        upstream = draw(st.lists(st.sampled_from([task["id"] for task in tasks]), max_size=3, unique=True))
        kind = draw(st.sampled_from([{"kind": "empty"}, {"kind": "bash", "script": "x"}]))
        tasks.append({"id": f"t{number}", **kind, "upstream": upstream, "trigger_rule": draw(st.sampled_from(rules))})
    below = [task["id"] for task in tasks if "t0" in task.get("upstream", ())]
    some = st.frozensets(st.sampled_from(below)) if below else st.just(frozenset())
    return parse_workflow({"name": "w", "tasks": tasks}).definition, draw(st.lists(some, min_size=1, max_size=3))


def every_run(definition: dict[str, Any], ways: list[frozenset[str]]) -> set[str]:
    """The tasks that run in some run: every way to end of every task is tried with the engine."""
    tasks = {task["id"]: task for task in definition["tasks"]}
    graph = Graph({name: TaskNode(task["trigger_rule"], tuple(task["upstream"])) for name, task in tasks.items()})
    ends = [(S,) if task["kind"] == "empty" else (S, F, K) for task in tasks.values()]
    reached: set[str] = set()
    for way, *chosen in product(ways, *ends):
        end = dict(zip(tasks, chosen, strict=True))
        counters, ready, started = graph.counters(), list(graph.initial), set()
        while ready:
            name = ready.pop(0)
            started.add(name)
            skip: list[str] = []
            if name == "t0" and end[name] == S:
                skip = [other for other in left_out_by_branch(graph, name, way) if other not in started]
            ready += advance(graph, {name: end[name]}, counters, skip).ready
        reached |= started
    return reached


@given(small_graphs())
def test_nothing_that_a_run_can_reach_is_called_unreachable(
    case: tuple[dict[str, Any], list[frozenset[str]]],
) -> None:
    definition, ways = case
    reported = {
        definition["tasks"][int(fault["field"][6:].split("]")[0])]["id"]
        for fault in unreachable(definition, {"t0": ways})
    }
    assert not reported & every_run(definition, ways)


@pytest.mark.parametrize("name", ["etl.py", "gpu_trace.py", "hello.yaml"])
def test_the_examples_are_fine(name: str) -> None:
    checked = check_file(EXAMPLES / name, NOW)
    assert checked.findings == [] and all(checked.compiled)


def test_schedules_that_are_over(tmp_path: Path) -> None:
    def fields(**given: Any) -> list[str]:
        text = f"name: w\ntasks: {{a: {{script: x}}}}\n{json.dumps(given)[1:-1].replace(', ', chr(10))}\n"
        return [finding.field for finding in found(tmp_path, text, "flow.yaml") if finding.code == "never_comes"]

    assert fields(schedule="@daily", start_date="2026-05-01", end_date="2026-04-01") == ["end_date"]
    assert fields(schedule="every 6h", end_date="2026-02-01") == ["end_date"]
    assert fields(schedule="every 6h", end_date="2026-02-01", catchup=True) == []
    assert fields(schedule="@monthly", end_date="2026-02-10") == []
    assert fields(end_date="2020-01-01") == []


# With a portal


def test_the_portal_is_asked_for_what_only_it_knows(portal: FakePortal, rm: Any, tmp_path: Path) -> None:
    file = tmp_path / "flow.yaml"
    file.write_text("name: flow\ntasks:\n  a: {script: x}\n  b:\n    script: x\n    resources: {cpu: 900}\n")
    fault = {"field": "tasks[1].resources", "message": "Task b: too large.", "code": "exceeds_every_node"}
    portal.on("POST workflows", problem(422, "exceeds_every_node", "refused", [fault]))
    done = rm("push", "--check", str(file))
    assert done.status == 2 and f"{file}:6:5: error: tasks.b.resources: Task b: too large." in done.err
    assert "is fine" not in done.out
    asked = portal.requests("POST", "workflows")[-1]
    assert (asked.query, asked.body["bundle_follows"]) == ({"dry_run": "1"}, True)
    done = rm("push", str(file))
    assert done.status == 2 and f"{file}:6:5: error: " in done.err
    done = rm("push", "--check", "--json", str(file))
    assert (done.status, done.json["ok"], done.json["asked"]) == (2, False, portal.url)
    [finding] = done.json["findings"]
    assert (finding["file"], finding["line"], finding["code"]) == (str(file), 6, "exceeds_every_node")
    warning = {"field": "tasks[0]", "message": "Not there yet.", "code": "unknown_workflow"}
    portal.on("POST workflows", (200, {"id": 1, "version": 1, "created": True, "warnings": [warning]}))
    done = rm("push", "--check", str(file))
    assert done.status == 0 and "warning: tasks.a: Not there yet." in done.err and "is fine" in done.out
    asked_before = len(portal.asked)
    assert rm("push", "--check", "--offline", str(file)).status == 0
    assert len(portal.asked) == asked_before


def test_what_was_found_here_is_not_said_again_in_the_words_of_the_portal(
    portal: FakePortal, rm: Any, tmp_path: Path
) -> None:
    (tmp_path / "flow.yaml").write_text(
        "name: flow\nschedule: '@daily'\nend_date: 2019-01-01\ntasks: {a: {script: x}}\n"
    )
    faults = [{"field": field, "message": "Never.", "code": "never_comes"} for field in ("end_date", "start_date")]
    portal.on("POST workflows", problem(422, "never_comes", "refused", faults))
    done = rm("push", "--check", "--json", str(tmp_path / "flow.yaml"))
    assert [finding["field"] for finding in done.json["findings"]] == ["end_date", "start_date"]


def test_a_portal_that_is_away_is_a_note(portal: FakePortal, rm: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("rmctl.client.FIRST_PAUSE_SECONDS", 0)
    monkeypatch.setenv("RMCTL_URL", "http://127.0.0.1:9")
    (tmp_path / "flow.yaml").write_text("name: flow\ntasks: {a: {script: x}}\n")
    done = rm("push", "--check", str(tmp_path / "flow.yaml"))
    assert done.status == 0 and "were not looked at" in done.err
