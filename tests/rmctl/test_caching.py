"""`cache` and `state` of tasks as authors write them: in Python, in YAML, and what is refused."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from rmctl.sdk.caching import code_digest
from rmctl.sdk.compile import compile_file
from rmctl.sdk.state import State, StateError
from rmctl.spec import SpecError, parse_workflow
from rmctl.spec.caching import Circumstances, key_of

FLOW = """
from datetime import timedelta
from rmctl import DAG, Cache, bash, task
import helper

@task(cache=Cache(timedelta(hours=2), version="2", ignore=["verbose"]), state=True)
def load(day, verbose=False):
    return helper.rows(day)

with DAG("etl", files=["data.csv"]) as dag:
    load(day="x", verbose=True) >> bash("show", "cat data.csv", cache="1d")
"""


def task_of(**fields: Any) -> dict[str, Any]:
    return {"schema": 1, "name": "etl", "tasks": [{"id": "a", "kind": "bash", "script": "true", **fields}]}


@pytest.fixture
def flow(tmp_path: Path) -> Path:
    (tmp_path / "flow.py").write_text(FLOW)
    (tmp_path / "helper.py").write_text("from inner import deep\ndef rows(day): return deep(day)\n")
    (tmp_path / "inner.py").write_text("def deep(day): return day\n")
    (tmp_path / "data.csv").write_text("1\n")
    return tmp_path


def test_what_the_author_says_stands_in_the_definition(flow: Path) -> None:
    [made] = compile_file(flow / "flow.py")
    load, show = made.definition["tasks"]
    code = load["cache"].pop("code")
    assert load["cache"] == {"ttl": "2h", "version": "2", "ignore": ["verbose"]} and len(code) == 64
    assert load["state"] is True and show["cache"] == {"ttl": "1d"} and "state" not in show
    assert made.spec.compiled["load"].base["groups"][0]["env"]["RM_STATE"] == "1"
    assert "RM_STATE" not in made.spec.compiled["show"].base["groups"][0]["env"]


def test_yaml_says_the_same(flow: Path) -> None:
    (flow / "flow.yaml").write_text(
        "name: etl\nfiles: [helper.py, inner.py]\ntasks:\n"
        "  load: {file: helper.py, function: rows, cache: 2h, state: true}\n"
    )
    [made] = compile_file(flow / "flow.yaml")
    [load] = made.definition["tasks"]
    assert load["cache"]["ttl"] == "2h" and len(load["cache"]["code"]) == 64 and load["state"] is True


@pytest.mark.parametrize(
    ("file", "text", "differs"),
    [
        ("inner.py", "def deep(day): return 2 * day\n", True),
        ("data.csv", "2\n", True),
        ("other.py", "x = 2\n", False),
        ("helper.py", "from inner import deep\ndef rows(day): return deep(day)\n", False),
    ],
)
def test_the_code_is_what_the_file_leads_to_and_what_it_may_read(
    flow: Path, file: str, text: str, differs: bool
) -> None:
    (flow / "other.py").write_text("x = 1\n")
    names = ("flow.py", "helper.py", "inner.py", "other.py", "data.csv")
    before = code_digest("flow.py", {name: flow / name for name in names})
    (flow / file).write_text(text)
    assert (code_digest("flow.py", {name: flow / name for name in names}) != before) is differs


@pytest.mark.parametrize(
    "line", ["import importlib", "from importlib import import_module", "exec('import other')", "import broken(("]
)
def test_where_it_cannot_be_told_everything_counts(flow: Path, line: str) -> None:
    (flow / "inner.py").write_text(f"{line}\n")
    shipped = {name: flow / name for name in ("flow.py", "helper.py", "inner.py", "other.py")}
    (flow / "other.py").write_text("x = 1\n")
    before = code_digest("flow.py", shipped)
    (flow / "other.py").write_text("x = 2\n")
    assert code_digest("flow.py", shipped) != before


def test_packages_and_relative_imports_are_followed(tmp_path: Path) -> None:
    (tmp_path / "lib" / "sub").mkdir(parents=True)
    files = {
        "flow.py": "import lib.sub.one\n",
        "lib/__init__.py": "",
        "lib/sub/__init__.py": "",
        "lib/sub/one.py": "from ..two import x\nfrom . import three\n",
        "lib/two.py": "x = 1\n",
        "lib/sub/three.py": "y = 1\n",
        "lib/four.py": "z = 1\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    shipped = {name: tmp_path / name for name in files}
    digests = {code_digest("flow.py", shipped)}
    for count, name in enumerate(("lib/two.py", "lib/sub/three.py", "lib/__init__.py", "lib/four.py"), 2):
        (tmp_path / name).write_text("changed = 1\n")
        digests.add(code_digest("flow.py", shipped))
        assert len(digests) == (count if name != "lib/four.py" else count - 1), name


LISTS = {"x": {"value": [1, 2]}, "y": {"value": [3, 4]}}
PRODUCT = {"over": LISTS}


@pytest.mark.parametrize(
    ("mapping", "ignored"),
    [(PRODUCT, []), ({"zip": LISTS}, ["y"]), ({"kwargs": {"value": [{"x": 1, "y": 2}]}}, ["y"])],
)
def test_every_kind_of_mapped_task_may_have_a_cache(mapping: dict[str, Any], ignored: list[str]) -> None:
    parse_workflow(task_of(cache={"ttl": "1d", "ignore": ignored}, map=mapping))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"cache": {"ttl": 0}}, "cache.ttl"),
        ({"cache": {"ttl": "2d", "until": 1}}, "until"),
        ({"cache": {"ttl": "1d", "ignore": ["nope"]}}, "ignore names nope, but the task has no such argument"),
        ({"cache": "1d", "setup": True}, "A setup is there for its effect"),
        ({"cache": "1d", "teardown": {}}, "A teardown is there for its effect"),
        ({"cache": "1d", "kind": "empty", "script": None}, "cache does not belong to a task of kind empty"),
        ({"state": True, "kind": "empty", "script": None}, "state does not belong to a task of kind empty"),
        ({"cache": "1d", "script": "echo {{ run_id }}"}, "run_id is different in every run"),
        ({"cache": "1d", "script": "echo {{ dag_run.run_id }}"}, "run_id is different in every run"),
        ({"cache": "1d", "env": {"A": "{{ ti.try_number }}"}}, "try_number is different at every try"),
        ({"cache": "1d", "script": "echo {{ macros.datetime.now() }}"}, "the time of rendering is always another"),
        ({"cache": "1d", "script": "echo {{ macros.random.random() }}"}, "it is different every time"),
        (
            {"cache": {"ttl": "1d", "ignore": ["x"]}, "map": {"over": {"x": {"value": [1]}}}},
            "all instances would be the same one",
        ),
        (
            {"cache": {"ttl": "1d", "ignore": ["x", "y"]},
             "map": {"zip": {"x": {"value": [1]}, "y": {"value": [2]}}}},
            "ignore names x and y, over which the task is mapped",
        ),
        (
            {"cache": {"ttl": "1d", "ignore": ["z"]}, "map": {"kwargs": {"value": [{"x": 1}]}}},
            "ignore names z, but the task has no such argument",
        ),
        ({"cache": {"ttl": "1d", "ignore": ["x"]}, "map": PRODUCT}, "instances that differ in nothing else"),
        ({"cache": {"ttl": "1d", "ignore": ["x", "y"]}, "map": {"zip": LISTS}}, "x and y, over which the task is"),
        ({"cache": {"ttl": "1d", "ignore": ["z"]}, "map": {"zip": LISTS}}, "ignore names z, but the task has no such"),
    ],
)
def test_what_makes_no_sense_is_refused(fields: dict[str, Any], said: str) -> None:
    made = task_of(**fields)
    made["tasks"][0] = {name: value for name, value in made["tasks"][0].items() if value is not None}
    with pytest.raises(SpecError) as refused:
        parse_workflow(made)
    assert said in str(refused.value) or said in str(refused.value.errors)


@pytest.mark.parametrize(
    "mapping",
    [
        {"zip": {"x": {"value": [1]}, "y": {"value": [2]}}},
        {"kwargs": {"value": [{"x": 1, "y": 2}]}},
        # Who knows what a result gives.
        {"kwargs": {"result": "b"}},
    ],
)
def test_a_cache_goes_with_every_way_to_map(mapping: dict[str, Any]) -> None:
    made = task_of(cache={"ttl": "1d", "ignore": ["y"]}, map=mapping)
    made["tasks"].append({"id": "b", "kind": "bash", "script": "true"})
    task = parse_workflow(made).compiled["a"]
    around = Circumstances(1, {}, "2026-01-01", [], 0, {})
    expansion = task.expansion({"b": [{"x": 1, "y": 2}]}, {})
    keys = {key_of(task, task.resolve({}, {}, item=item), around).digest for item in (expansion.item(0), {"x": 1})}
    assert len(keys) == 1
    assert key_of(task, task.resolve({}, {}, item={"x": 2}), around).digest not in keys


def test_values_of_different_kinds_have_different_keys() -> None:
    task = parse_workflow(task_of(cache="1d", arguments={"p": {"value": 1}})).compiled["a"]
    around = Circumstances(1, {}, "2026-01-01", [], -1, {})
    values = (1, "1", 1.5, True, None, [1], {"1": 1}, "")
    assert len({key_of(task, {"p": value}, around).digest for value in values}) == len(values)
    assert key_of(task, {"p": 1}, around).digest != key_of(task, {"p": 1}, around._replace(tenant=2)).digest
    assert key_of(task, {"p": {"a": 1, "b": 2}}, around) == key_of(task, {"p": {"b": 2, "a": 1}}, around)
    # Nothing of the run that no template reads.
    assert key_of(task, {"p": 1}, around) == key_of(task, {"p": 1}, around._replace(logical_time="2027-01-01"))


def test_older_definitions_keep_their_digest() -> None:
    assert "cache" not in parse_workflow(task_of()).definition["tasks"][0]
    assert "state" not in parse_workflow(task_of()).definition["tasks"][0]


def test_outside_a_task_state_lives_as_long_as_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RM_STATE", raising=False)
    monkeypatch.delenv("RM_JOB_ID", raising=False)
    kept = State("workflow")
    assert kept.get("n", 5) == 5 and kept.get_versioned("n") == (None, 0)
    first = kept.compare_and_set("n", 0, [1])
    assert first and kept.compare_and_set("n", 0, [2]) is None and kept.get("n") == [1]
    kept.set("gone", 1)
    kept.delete("gone")
    assert kept.set("gone", 1) == first + 2, "a version never comes again"
    kept.delete("gone")
    assert kept.update("n", lambda value: [*value, 2]) == [1, 2]
    kept.set("m", {"at": timedelta(1).days})
    assert kept.keys() == ["m", "n"]
    kept.delete("n")
    kept.delete("n")
    assert kept.keys() == ["m"]
    for value in (object(), float("nan"), "x" * 70_000):
        with pytest.raises(StateError, match="n: the value"):
            kept.set("n", value)
    monkeypatch.setenv("RM_JOB_ID", "1")
    with pytest.raises(StateError, match="state=True"):
        kept.get("n")
