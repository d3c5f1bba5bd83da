"""The Python SDK: what a DAG file compiles to, what YAML compiles to, and what is refused."""

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

import rmctl
from rmctl import DAG, SdkError, bash, chain, empty, param, task
from rmctl.sdk import bundle, yaml_loader
from rmctl.sdk.compile import CompiledWorkflow, compile_file
from rmctl.sdk.yaml_loader import YamlError, parse
from rmctl.spec import SpecError, parse_workflow

from .definitions import EXAMPLES

HEADER = "from rmctl import DAG, bash, chain, empty, param, task\n"


def compiled(folder: Path, text: str, name: str = "flow.py") -> CompiledWorkflow:
    path = folder / name
    path.write_text(HEADER + text if name.endswith(".py") else text, encoding="utf-8")
    [workflow] = compile_file(path)
    return workflow


def tasks_of(workflow: CompiledWorkflow) -> dict[str, dict[str, Any]]:
    return {task["id"]: task for task in workflow.definition["tasks"]}


def upstream_of(dag: DAG) -> dict[str, set[str]]:
    return {name: set(made.upstream) for name, made in dag.tasks.items()}


@task
def double(value: int, times: int = 2) -> int:
    return value * times


def test_a_task_function_is_a_plain_function_outside_a_dag() -> None:
    assert double(4) == 8
    assert double.partial(times=3)(value=4) == 12
    assert double.__name__ == "double"


def test_calls_make_tasks_with_references() -> None:
    with DAG("d", params={"n": 3}) as dag:
        first = double(1)
        second = double(first["part"], times=param("n"))
        double.partial(times=second).expand(value=[1, 2])
    made = dag.definition()["tasks"]
    assert [entry["id"] for entry in made] == ["double", "double__1", "double__2"]
    assert made[1]["arguments"] == {"value": {"result": "double", "key": "part"}, "times": {"param": "n"}}
    assert made[2]["arguments"] == {"times": {"result": "double__1"}}
    assert made[2]["map"] == {"over": {"value": {"value": [1, 2]}}}
    assert dag.definition()["params"]["properties"] == {"n": {"type": "integer", "default": 3}}


def test_arrows_link_both_ways() -> None:
    with DAG("d") as dag:
        a, b, c, d, e = (empty(name) for name in "abcde")
        a >> [b, c] >> d
        e << d
        [b, c] >> e
    assert upstream_of(dag) == {"a": set(), "b": {"a"}, "c": {"a"}, "d": {"b", "c"}, "e": {"b", "c", "d"}}


def test_chain_pairs_lists() -> None:
    with DAG("d") as dag:
        a, b, c, d, e, f = (empty(name) for name in "abcdef")
        chain(a, [b, c], [d, e], f)
    assert upstream_of(dag) == {"a": set(), "b": {"a"}, "c": {"a"}, "d": {"b"}, "e": {"c"}, "f": {"d", "e"}}
    with DAG("d"), pytest.raises(SdkError, match="cannot be paired"):
        chain([empty("a"), empty("b")], [empty("c")])


def test_options_go_into_the_definition() -> None:
    @task(id="own", resources={"cpu": 2}, retries=3, trigger_rule="all_done", map_limit=7, time_limit="5m")
    def work(x: int) -> int:
        return x

    with DAG("d") as dag:
        work.expand(x=[1])
        work.override(id="other", priority=4)(x=1)
    own, other = dag.definition()["tasks"]
    assert (own["id"], own["retries"], own["trigger_rule"], own["map"]["limit"]) == (
        "own",
        {"limit": 3},
        "all_done",
        7,
    )
    assert (other["id"], other["priority"], other["resources"]) == ("other", 4, {"cpu": 2})


def test_what_becomes_of_a_preempted_task_is_said_by_it_or_by_the_defaults() -> None:
    with DAG("d", defaults={"on_preempt": "fail", "notice": "1m"}) as dag:
        bash("saves", "true", on_preempt="requeue", notice="5m", priority=-5)
        bash("plain", "true")
    compiled = parse_workflow(dag.definition()).compiled
    said = {name: [compiled[name].base[key] for key in ("on_preempt", "notice", "priority")] for name in compiled}
    assert said == {"saves": ["requeue", 300, -5], "plain": ["fail", 60, 0]}


def test_a_definition_that_says_nothing_of_preemption_keeps_its_digest() -> None:
    with DAG("d") as dag:
        bash("plain", "true")
    [plain] = parse_workflow(dag.definition()).definition["tasks"]
    assert plain.keys() == {"id", "kind", "script", "trigger_rule", "upstream"}


def test_yaml_says_it_in_the_same_words() -> None:
    definition, _ = yaml_loader.workflow(
        "name: d\ntasks:\n  a: {script: 'true', on_preempt: fail, notice: 90s}\n"
    )
    base = parse_workflow(definition).compiled["a"].base
    assert (base["on_preempt"], base["notice"]) == ("fail", 90)


@pytest.mark.parametrize(
    ("options", "code"),
    [({"on_preempt": "stay"}, "not_a_choice"), ({"notice": "2h"}, "out_of_range")],
)
def test_a_wrong_wish_about_preemption_is_refused_by_its_field(options: dict[str, Any], code: str) -> None:
    with DAG("d") as dag:
        bash("a", "true", **options)
    with pytest.raises(SpecError) as refused:
        parse_workflow(dag.definition())
    [fault] = refused.value.errors
    assert (fault["field"], fault["code"]) == (f"tasks[0].{next(iter(options))}", code)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: double(), "value must be given"),
        (lambda: double(1, 2, 3), "takes 2 positional arguments, 3"),
        (lambda: double(1, value=2), "given twice"),
        (lambda: double(1, tiems=2), "has no argument tiems; it takes value, times"),
        (lambda: double.expand(), "at least one argument with a list"),
        (lambda: double.expand_zip(), "at least one list"),
        (lambda: double.expand_kwargs([{"value": 1}, 2]), "item 1: give an object"),
        (lambda: double.expand_kwargs([{"value": 1}, {"valu": 2}]), "item 1: has no argument valu"),
        (lambda: double.expand_kwargs([{"times": 1}]), "item 0: value must be given"),
        (lambda: double.partial(times=1).expand_kwargs([{"value": 1, "times": 2}]), "times is given by partial"),
        (lambda: bash("b", "true", expand={}), "at least one argument with a list"),
        (lambda: task(lambda *rest: rest)(1), "given by name"),
        (lambda: task(retrys=1)(lambda: 1), "no option retrys"),
        (lambda: task(task_id="a")(lambda: 1), "what Airflow calls so is id"),
        (lambda: task(execution_timeout=5)(lambda: 1), "what Airflow calls so is time_limit"),
        (lambda: DAG(dag_id="a"), "what Airflow calls so is the first argument"),
        (lambda: DAG("a", default_args={}), "what Airflow calls so is defaults"),
        (lambda: DAG("a", tags=["x"]), "no option tags; options are description, schedule"),
        (lambda: [bash("a", "x"), bash("a", "y")], "two tasks a"),
        (lambda: double(1)["a"]["b"], "only one key"),
        (lambda: empty("a") >> 3, "Only tasks"),
        (lambda: double({1: object()}).definition(lambda f: ""), "is a object"),
        (lambda: double([double(1)]).definition(lambda f: ""), "own argument"),
    ],
)
def test_mistakes_are_named(make: Any, said: str) -> None:
    with DAG("d"), pytest.raises(SdkError, match=said):
        make()


def test_results_cannot_be_looked_into_while_the_dag_is_written() -> None:
    with DAG("d"):
        result = double(1)
        with pytest.raises(TypeError, match="expand"):
            list(result)
        with pytest.raises(TypeError, match="branch"):
            bool(result)


def test_tasks_of_two_dags_do_not_mix() -> None:
    with DAG("one"):
        first = empty("a")
    with DAG("two"):
        with pytest.raises(SdkError, match="different DAGs"):
            first >> empty("b")
        with pytest.raises(SdkError, match="another DAG"):
            double(first)
    with pytest.raises(SdkError, match="inside a block"):
        bash("a", "true")


SAME = {
    "python": (
        """
with DAG("same", schedule="@daily", params={"n": 3}, defaults={"retries": 1, "resources": {"cpu": "200m"}}) as dag:
    a = bash("a", "echo a", env={"X": "1"})
    b = bash("b", "echo $RM_ARG_N", arguments={"n": param("n")}, expand={"item": ["x", "y"]}, trigger_rule="all_done")
    a >> b >> empty("end")
""",
        """
name: same
schedule: "@daily"
params: {type: object, properties: {n: {type: integer, default: 3}}}
defaults: {retries: {limit: 1}, resources: {cpu: 0.2}}
tasks:
  a: {script: echo a, env: {X: "1"}}
  b:
    script: echo $RM_ARG_N
    arguments: {n: {param: n}}
    map: {over: {item: {value: [x, y]}}}
    trigger_rule: all_done
    upstream: [a]
  end: {kind: empty, upstream: [b]}
""",
    ),
    "dates": (
        """
import datetime
with DAG("dated", start_date=datetime.date(2026, 1, 31), timezone="Europe/Berlin", catchup=True):
    empty("a")
""",
        """
name: dated
start_date: 2026-01-31
timezone: Europe/Berlin
catchup: true
tasks: [{id: a, kind: empty}]
""",
    ),
}


@pytest.mark.parametrize("name", SAME)
def test_python_yaml_and_json_are_the_same_version(tmp_path: Path, name: str) -> None:
    python, yaml = SAME[name]
    one, other = compiled(tmp_path, python), compiled(tmp_path, yaml, "flow.yaml")
    assert one.definition == other.definition
    assert one.spec.digest() == other.spec.digest()
    assert parse_workflow(json.loads(one.spec.canonical())).digest() == one.spec.digest()
    assert one.bundle is None


def test_the_bundle_has_the_file_its_helpers_and_the_globs(tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_text("def help(): return 1\n")
    (tmp_path / "unrelated.py").write_text("")
    (tmp_path / "data" / "deep").mkdir(parents=True)
    (tmp_path / "data" / "a.csv").write_text("1")
    (tmp_path / "data" / "deep" / "b.csv").write_text("2")
    made = compiled(
        tmp_path,
        "import helper\n@task\ndef f(): return helper.help()\nwith DAG('d', files=['data/**/*.csv']):\n    f()\n",
    )
    assert made.files == ["data/a.csv", "data/deep/b.csv", "flow.py", "helper.py"]
    assert "helper" not in sys.modules
    assert made.bundle is not None
    with tarfile.open(fileobj=io.BytesIO(made.bundle)) as archive:
        assert archive.getnames() == made.files
        assert {(m.mtime, m.uid, m.uname, m.mode) for m in archive.getmembers()} == {(0, 0, "", 0o644)}
    assert made.definition["bundle"] == bundle.digest(made.bundle)


def test_equal_contents_give_equal_bundles(tmp_path: Path) -> None:
    made = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.txt").write_text("same")
        os.utime(tmp_path / name / "x.txt", (len(made) * 1e9, 1e9))
        made.append(
            compiled(tmp_path / name, "@task\ndef f(): pass\nwith DAG('d', files=['x.txt']):\n    f()\n")
        )
    assert made[0].bundle == made[1].bundle
    assert made[0].spec.digest() == made[1].spec.digest()
    (tmp_path / "two" / "x.txt").write_text("other")
    changed = compiled(tmp_path / "two", "@task\ndef f(): pass\nwith DAG('d', files=['x.txt']):\n    f()\n")
    assert changed.spec.digest() != made[0].spec.digest()


@pytest.mark.parametrize("pattern", ["../secret", "/etc/passwd", "missing*.csv", "link", ""])
def test_bundles_stay_in_their_folder(tmp_path: Path, pattern: str) -> None:
    folder = tmp_path / "flow"
    folder.mkdir()
    (tmp_path / "secret").write_text("x")
    (folder / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(SdkError, match="files:"):
        bundle.find(folder, [pattern])


def test_a_link_inside_the_folder_is_shipped_as_a_file(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("x")
    (tmp_path / "link").symlink_to("real")
    content = bundle.pack(bundle.find(tmp_path, ["link"]))
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        assert [(m.name, m.isreg()) for m in archive.getmembers()] == [("link", True)]


def test_a_bundle_has_a_limit(tmp_path: Path) -> None:
    with open(tmp_path / "big", "wb") as stream:
        stream.truncate(101 * 10**6)
    with pytest.raises(SdkError, match=r"101 MB of files; at most 100 MB.*largest is big"):
        bundle.pack(bundle.find(tmp_path, ["big"]))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1\n", "there is no DAG"),
        ("1 / 0\n", "could not be run:\n(?s:.*)flow.py.*line 2(?s:.*)ZeroDivisionError"),
        ("def broken(:\n", "SyntaxError"),
        (
            "with DAG('d'):\n    bash('a', 'x')\n    bash('a', 'y')\n",
            r"flow.py:4: DAG d: there are two tasks a",
        ),
        (
            "def make():\n    @task\n    def inner(): pass\n    return inner\nwith DAG('d'):\n    make()()\n",
            "defined inside another",
        ),
        (
            "for n in 'de':\n    with DAG(n):\n        @task\n        def load(): pass\n        load()\n",
            r"flow.py:\d: Task load: the file gives the name load to something else",
        ),
        (
            "@task\ndef load(): pass\nwith DAG('d'):\n    load = load()\n",
            "gives the name load to something else",
        ),
    ],
)
def test_a_broken_file_is_explained(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(SdkError, match=said):
        compiled(tmp_path, text)


def test_faults_of_a_definition_name_the_task(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as refused:
        compiled(
            tmp_path,
            "with DAG('d'):\n    a = bash('a', 'x', resources={'cpu': -1})\n    b = empty('b')\n    a >> b >> a\n",
        )
    assert {error["field"] for error in refused.value.errors} == {"tasks.a.resources.cpu", "tasks.a.upstream"}


def test_several_workflows_in_one_file(tmp_path: Path) -> None:
    (tmp_path / "two.py").write_text(HEADER + "for n in 'ab':\n    with DAG(n):\n        empty('x')\n")
    assert [workflow.spec.name for workflow in compile_file(tmp_path / "two.py")] == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: x\ntasks:\n  a: {script: 'x\n", "line [34], column"),
        ("name: x\n\ttasks: []\n", "line 2, column 1"),
        ("name: x\nschedule: @daily\n", "line 2, column 11: .*put the value in quotes"),
        ("name: x\nname: y\n", 'line 2, column 1: "name" is given twice'),
        ("a: !!python/object:os.system x\n", "line 1, column 4"),
        ("a: &a [*a]\n", "contains itself"),
        ("yes: x\n", "a key is read as true"),
        ("1: x\n", 'write "1"'),
        ("- x\n", "a workflow is a mapping"),
        ("", "a workflow is a mapping"),
        ("name: x\nfiles: a\n", "files must be a list"),
        ("name: x\ntasks: {a: echo}\n", "task a must be a mapping"),
        ("a: \x00\n", "line 1, column 4"),
    ],
)
def test_broken_yaml_is_one_error_with_a_place(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(SdkError, match=said):
        compiled(tmp_path, text, "flow.yaml")


def test_yaml_that_grows_when_aliases_are_followed_is_refused() -> None:
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9))
    with pytest.raises(YamlError, match="aliases"):
        parse(bomb)
    with pytest.raises(YamlError, match="MiB"):
        parse("x: " + "a" * (5 * 2**20))
    with pytest.raises(YamlError, match="nested"):
        parse("[" * 5000 + "]" * 5000)


def test_yaml_ships_the_files_of_its_python_tasks(tmp_path: Path) -> None:
    (tmp_path / "work.py").write_text("def f(): return 1\n")
    made = compiled(tmp_path, "name: x\ntasks:\n  a: {file: work.py, function: f}\n", "flow.yaml")
    assert made.files == ["work.py"]
    assert tasks_of(made)["a"]["kind"] == "python"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_compile(path: Path) -> None:
    assert compile_file(path)


def test_importing_the_sdk_loads_nothing_heavy() -> None:
    code = (
        "import sys, rmctl\nfrom rmctl import DAG, task, bash, artifact, context\nimport rmctl.runner\n"
        "heavy = {'pydantic', 'typer', 'httpx', 'rich', 'yaml', 'inspect', 'dataclasses', 'typing', 'cronsim'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    # -S -I: nothing of the environment's own start-up (coverage, editable installs) may hide in the answer.
    path = str(Path(rmctl.__file__).parents[1])
    loaded = subprocess.run(
        [sys.executable, "-S", "-I", "-c", f"import sys; sys.path.insert(0, {path!r})\n{code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert loaded.stdout.strip() == "[]"


def test_the_spec_loads_no_client() -> None:
    code = "import sys, rmctl.spec; print(sorted({'httpx', 'typer', 'rich', 'yaml'} & set(sys.modules)))"
    folder = Path(rmctl.__file__).parents[1]
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=folder
    )
    assert loaded.stdout.strip() == "[]"
