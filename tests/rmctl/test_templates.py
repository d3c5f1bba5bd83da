"""Templates: which texts are some, what is refused at the push, what they need, and how they render in the task."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from rmctl.render import Moment, ds_nodash, ts_nodash_with_tz
from rmctl.spec import SpecError, parse_workflow
from rmctl.spec.templates import KEY, STATUS
from rmctl.stored import environment_name

PARAMS = {"type": "object", "properties": {"n": {"type": "integer", "default": 3}}}


def bash(name: str, script: str = "true", *upstream: str, **fields: Any) -> dict[str, Any]:
    return {"id": name, "kind": "bash", "script": script, "upstream": list(upstream), **fields}


def parsed(*tasks: dict[str, Any], **fields: Any) -> Any:
    return parse_workflow({"schema": 1, "name": "etl", "params": PARAMS, "tasks": list(tasks), **fields})


def faults(*tasks: dict[str, Any], **fields: Any) -> list[tuple[str, str]]:
    with pytest.raises(SpecError) as refused:
        parsed(*tasks, **fields)
    return [(fault["field"], fault["message"]) for fault in refused.value.errors]


def run(
    task: dict[str, Any], folder: Path, *, results: dict[str, Any] | None = None, secrets: dict[str, str] | None = None,
    before: tuple[dict[str, Any], ...] = (), params: dict[str, Any] | None = None, **job: Any,
) -> Any:  # fmt: skip
    """Run a task's job as an agent does, in a folder of its own."""
    compiled = parsed(*before, task).compiled[task["id"]]
    params = {"n": 3} if params is None else params
    job = {"run_id": 7, "logical_time": "2026-03-14T01:30:00+01:00", "params": params, **job}
    made = compiled.job(compiled.resolve(results or {}, params), **job)
    group = made["groups"][0]
    (folder / "artifacts").mkdir()
    (folder / "inputs.json").write_text(json.dumps(made["inputs"]))
    env = {
        "PATH": "/usr/bin:/bin", "RM_INPUTS": str(folder / "inputs.json"), "RM_ARTIFACTS": str(folder / "artifacts"),
        "TMPDIR": str(folder), "PYTHONPATH": str(Path(__file__).parents[2]), **group["env"], **(secrets or {}),
    }  # fmt: skip
    command = [sys.executable if group["command"][0] == "python" else group["command"][0], *group["command"][1:]]
    return subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, timeout=60)


# At the push


def test_only_what_has_a_tag_is_a_template() -> None:
    plain = bash("a", 'echo ${#list[@]} ${x:-{} } "{}"', env={"A": "{x}"})
    assert parsed(plain).compiled["a"].template is None
    kept = bash("a", "docker inspect --format '{{.State}}' x", template=False)
    compiled = parsed(kept).compiled["a"]
    assert compiled.template is None
    assert compiled.base["groups"][0]["script"] == kept["script"]


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo {{ ds }}\necho {{ ds }} {{ ds ", "line 2, column 15"),
        ("{% if ds %}\nx", "line 1, column 1"),
        ("echo {{ ds\n", "column 6"),
        ("a\n  {% wrong %}", "line 2, column 3"),
        ("{{ dss }}", "there is no dss here. Did you mean ds?"),
        ("{{ ds | nodash }}", "there is no filter nodash"),
        ("{% include 'x' %}", "no include"),
        ("{{ ti.xcom_pull(task_ids=params.n) }}", "give task_ids literally"),
        ("{{ ti.xcom_pull() }}", "give task_ids literally"),
        ("{{ var.value[ds] }}", "name the variable literally"),
        ("{{ conn[ds] }}", "name the connection literally"),
        ("{{ conn.get(ds) }}", "give the name literally"),
        ("{{ ti.xcom_pull('nobody') }}", "there is no task nobody"),
        ("{{ ti.xcom_pull('late') }}", "does not come before a"),
        ("{{ params.m }}", "params.m: the workflow has no such parameter"),
        ("{{ ds }} ${#x}", 'Write "{{ \'{#\' }}"'),
        ("{{ " + "(" * 5000 + ")" * 5000 + " }}", "nested too deeply"),
    ],
)
def test_what_cannot_be_read_is_refused_at_the_push(script: str, said: str) -> None:
    found = faults(bash("a", script), bash("late", "true", "a"))
    assert len(found) == 1
    field, message = found[0]
    assert field.startswith("tasks[0]") and said in message


def test_faults_name_the_variable_or_argument_and_come_together() -> None:
    task = bash("a", "{{ x }}", env={"A": "{{ y }}"}, arguments={"b": {"value": ["fine", {"deep": "{{ z }}"}]}})
    assert [field for field, _ in faults(task)] == ["tasks[0].script", "tasks[0].env.A", "tasks[0].arguments.b"]


@pytest.mark.parametrize(
    ("task", "text"),
    [
        ({"kind": "wait_until", "arguments": {"time": {"value": "{{ ds }}T06:00"}}}, "{{ ds }}T06:00"),
        (
            {"kind": "trigger_run", "trigger_run": {"workflow": "o"}, "arguments": {"x": {"value": ["{{ ds }}"]}}},
            "{{ ds }}",
        ),
        ({"kind": "approval", "approval": {"subject": "Release {{ ds }}?"}}, "Release {{ ds }}?"),
    ],
)
def test_a_task_without_a_job_has_no_templates(task: dict[str, Any], text: str) -> None:
    [(field, message)] = faults({"id": "a", **task})
    assert field == "tasks[0]" and text in message and f"of kind {task['kind']} has no job" in message
    if task["kind"] != "wait_until":
        assert parsed({"id": "a", **task, "template": False}).compiled["a"].template is None


def test_sensors_and_tasks_that_decide_are_rendered() -> None:
    look = {
        "id": "look", "kind": "python", "file": "f.py", "function": "f", "poke": {"interval": 5},
        "arguments": {"path": {"value": "s3://lake/{{ ds }}"}},
    }  # fmt: skip
    pick = bash("pick", "echo '\"{{ params.n }}\"' > $RM_RESULT", decides="branch")
    compiled = parsed(look, pick, bash("b", "true", "pick"), bundle="a" * 64).compiled
    rendered = ["python", "-m", "rmctl.render"]
    poke = [*rendered, "python", "-m", "rmctl.runner", "--poke", "f.py", "f"]
    assert compiled["look"].base["groups"][0]["command"] == poke
    assert compiled["pick"].base["groups"][0]["command"] == [*rendered, "bash", "-c", pick["script"]]
    assert compiled["look"].poked and compiled["pick"].decides == "branch"


def test_a_template_has_a_largest_size() -> None:
    [(field, message)] = faults(bash("a", arguments={"x": {"value": "{{ ds }}" + "x" * 300_000}}))
    assert field == "tasks[0].arguments.x" and "at most 256 Ki" in message


def test_names_of_the_template_itself_and_guarded_ones_are_fine() -> None:
    loop = "{% set x = 1 %}{% for y in [1] %}{{ x + y }}{% endfor %}"
    parsed(bash("a", loop + "{{ z | default('q') }}{{ u is defined }}"))


def test_nothing_of_a_template_runs_at_the_push() -> None:
    began = time.monotonic()
    parsed(bash("a", "{{ 9 ** 9 ** 9 ** 9 }}{% for i in range(10 ** 9) %}{{ i }}{% endfor %}"))
    assert time.monotonic() - began < 2


def test_what_templates_read_is_found() -> None:
    script = (
        "{{ ti.xcom_pull('one') }} {{ task_instance.xcom_pull(task_ids=['one', 'two'], key='k') }} "
        "{{ var.value.a }} {{ var.json['b'].deep }} {{ var.value.get('c', '1') }} {{ var.value.d | default('') }} "
        "{{ var.value.get('e') }} {{ conn.db.host }} {{ conn.get('other').password }} {{ params.n }}"
    )
    needs = parsed(bash("one"), bash("two"), bash("a", script, "one", "two")).compiled["a"].template.needs
    assert needs.results == {"one", "two"}
    assert (needs.variables, needs.optional) == ({"a", "b", "e"}, {"c", "d"})
    assert (needs.connections, needs.parameters) == ({"db", "other"}, {"n"})


def test_what_they_read_comes_with_the_job_and_no_more() -> None:
    task = bash("a", "{{ var.value.get('x', 1) }} {{ conn.db.host }}", variables=["y"])
    secrets = parsed(task).compiled["a"].base["groups"][0]["secrets"]
    assert secrets == {
        "RM_VARIABLE_x": "variable?:x", "RM_VARIABLE_y": "variable:y", "RM_CONNECTION_db": "connection:db"
    }  # fmt: skip
    assert parsed(bash("a")).compiled["a"].base["groups"][0]["secrets"] == {}


def test_a_definition_without_templates_keeps_its_digest() -> None:
    later = {"template", "variables", "connections", "depends_on_past"}
    assert not later & parsed(bash("a")).definition["tasks"][0].keys()


# In the task


def test_airflows_names(tmp_path: Path) -> None:
    script = (
        "echo '{{ ds }} {{ ds_nodash }} {{ ts }} {{ ts_nodash }} {{ logical_date.year }} {{ run_id }} {{ dag.dag_id }} "
        "{{ task.task_id }} {{ ti.map_index }} {{ params.n + 1 }} {{ macros.ds_add(ds, 5) }} "
        "{{ macros.ds_format(ds, \"%Y-%m-%d\", \"%d.%m.\") }} {{ (logical_date + macros.timedelta(days=1)) | ds }} "
        "{{ data_interval_start | ts_nodash }} {{ data_interval_end.in_timezone(\"Europe/Berlin\") }} "
        "{{ dag_run.conf.n }} {{ data_interval_start.subtract(months=1).start_of(\"month\").to_date_string() }}'"
    )
    interval = ["2026-03-13T00:00:00+01:00", "2026-03-14T00:00:00+01:00"]
    done = run(bash("a", script), tmp_path, interval=interval)
    assert done.stderr == ""
    assert done.stdout.split() == [
        "2026-03-14", "20260314", "2026-03-14T00:30:00+00:00", "20260314T003000", "2026", "7", "etl", "a", "-1", "4",
        "2026-03-19", "14.03.", "2026-03-15", "20260312T230000", "2026-03-14", "00:00:00+01:00", "3", "2026-02-01",
    ]  # fmt: skip


def test_results_of_other_tasks(tmp_path: Path) -> None:
    before = (bash("one"), bash("two"))
    script = "echo {{ ti.xcom_pull(task_ids='one') }} {{ ti.xcom_pull(['one', 'two'], key='k') | tojson }}"
    done = run(bash("a", script, "one", "two"), tmp_path, before=before, results={"one": {"k": 5}, "two": None})
    assert done.stdout == "{k: 5} [5, null]\n"


def test_variables_and_arguments(tmp_path: Path) -> None:
    task = bash(
        "a", "echo $A $RM_ARG_DAY; cat $RM_INPUTS", env={"A": "{{ ds }}"},
        arguments={"day": {"value": {"at": "{{ ds }}", "n": 1}}, "raw": {"param": "text"}},
    )  # fmt: skip
    properties = {"text": {"type": "string", "default": ""}}
    compiled = parse_workflow({"schema": 1, "name": "e", "params": {"properties": properties}, "tasks": [task]})
    assert compiled.compiled["a"].template is not None
    task["arguments"]["raw"] = {"value": "plain"}
    done = run(task, tmp_path)
    day = '{"at": "2026-03-14", "n": 1}'
    assert done.stdout == f'2026-03-14 {day}\n{{"day": {day}, "raw": "plain"}}'
    assert KEY not in done.stdout


def test_what_comes_from_outside_is_never_a_template(tmp_path: Path) -> None:
    script = "echo '{{ ti.xcom_pull(\"one\") }}' \"$RM_ARG_GIVEN\""
    task = bash("a", script, "one", arguments={"given": {"result": "one"}})
    done = run(task, tmp_path, before=(bash("one"),), results={"one": "{{ 1 + 1 }}"})
    assert done.stdout == "{{ 1 + 1 }} {{ 1 + 1 }}\n"


def test_python_tasks_get_rendered_arguments(tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text("def f(day, n):\n    print(day, n)\n")
    task = {
        "id": "a", "kind": "python", "file": "job.py", "function": "f",
        "arguments": {"day": {"value": "{{ ds }}"}, "n": {"value": 2}},
    }  # fmt: skip
    spec = parse_workflow({"schema": 1, "name": "e", "bundle": "b" * 64, "tasks": [task]})
    assert spec.compiled["a"].base["groups"][0]["command"][2] == "rmctl.render"
    made = spec.compiled["a"].resolve({}, {})
    (tmp_path / "in.json").write_text(json.dumps(made))
    env = {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "RM_INPUTS": str(tmp_path / "in.json"),
        "PYTHONPATH": str(Path(__file__).parents[2]), "TMPDIR": str(tmp_path), "RM_WORKFLOW": "e", "RM_TASK_ID": "a",
        "RM_RUN_ID": "1", "RM_LOGICAL_TIME": "2026-03-14T00:00:00+00:00",
    }  # fmt: skip
    command = [sys.executable, *spec.compiled["a"].base["groups"][0]["command"][1:]]
    done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("2026-03-14 2\n", "")


STORED = {
    environment_name("variable", "a"): "text",
    environment_name("variable", "b.c"): '{"deep": [1]}',
    environment_name("connection", "db"): json.dumps(
        {"type": "postgres", "host": "h", "login": "me", "password": "p@ss/word", "port": 5432, "schema": "s"}
    ),
    "RM_CONNECTIONS": "db",
}


def test_variables_and_connections_of_the_tenant(tmp_path: Path) -> None:
    script = (
        "echo {{ var.value.a }} {{ var.json.get('b.c').deep[0] }} {{ var.value.get('none', 'other') }} "
        "{{ var.value.gone | default('gone') }} '{{ conn.db.get_uri() }}' {{ conn.db.port }}"
    )
    done = run(bash("a", script), tmp_path, secrets=STORED)
    assert done.stdout == "text 1 other gone postgres://me:p%40ss%2Fword@h:5432/s 5432\n"
    kept = (tmp_path / "artifacts" / "rendered-command.txt").read_text()
    assert "me:***@h" in kept and "p%40ss" not in kept


def test_the_rendered_command_is_kept(tmp_path: Path) -> None:
    run(bash("a", "echo {{ ds }}", env={"DAY": "{{ ds_nodash }}"}), tmp_path)
    assert (tmp_path / "artifacts" / "rendered-command.txt").read_text() == "DAY=20260314\necho 2026-03-14"


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("x\n{{ ti.nothing }}", "script: line 2: "),
        ("{{ params.get('m').deep }}", "script: line 1: "),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{{ ds.__class__.__mro__ }}", "unsafe"),
        ("{% for i in range(10 ** 9) %}{% endfor %}", "range"),
        ("{{ 'x' * 200000 }}", "longer than"),
        ("{% for i in range(90000) %}{{ ds }}{% endfor %}", "longer than"),
        ("{{ conn.db.host }}", "no connection db"),
        ("{{ var.value.a }}", "a"),
    ],
)
def test_a_template_that_does_not_render_fails_the_task(script: str, said: str, tmp_path: Path) -> None:
    done = run(bash("a", script), tmp_path)
    assert done.returncode == STATUS
    assert done.stdout == "" and said in done.stderr and done.stderr.count("\n") == 1


def test_a_template_without_an_end_ends(tmp_path: Path) -> None:
    loop = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    task = {"id": "a", "kind": "bash", "script": loop, "upstream": []}
    compiled = parsed(task).compiled["a"]
    inputs = compiled.resolve({}, {})
    (tmp_path / "in.json").write_text(json.dumps(inputs))
    env = {
        "PATH": "/usr/bin:/bin", "RM_INPUTS": str(tmp_path / "in.json"), "RM_WORKFLOW": "e", "RM_TASK_ID": "a",
        "RM_RUN_ID": "1", "RM_LOGICAL_TIME": "2026-03-14T00:00:00+00:00", "TMPDIR": str(tmp_path),
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }  # fmt: skip
    program = "import sys, rmctl.render as r; r.SECONDS = 1; r.main(['true', sys.argv[1]])"
    done = subprocess.run([sys.executable, "-c", program, loop], env=env, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (STATUS, "template: it did not render within 1 seconds\n")


def test_months_end_at_their_last_day() -> None:
    moment = Moment.fromisoformat("2026-03-31T05:06:07+00:00")
    assert moment.add(months=1).to_datetime_string() == "2026-04-30 05:06:07"
    assert moment.subtract(months=1).to_date_string() == "2026-02-28"
    assert moment.add(months=9).to_date_string() == "2026-12-31"
    assert moment.subtract(years=2, months=1).to_date_string() == "2024-02-29"
    assert moment.start_of("week").to_date_string() == "2026-03-30"
    assert (ds_nodash(moment), ts_nodash_with_tz(moment)) == ("20260331", "20260331T050607+0000")


def test_templates_are_looked_at_beside_other_faults() -> None:
    """All faults come at once, also of tasks whose other fields have any shape."""
    tasks: list[Any] = [
        {"id": "a", "kind": "bash", "script": "echo {{ ds", "trigger_rule": "nope"},
        {"id": "b", "kind": "bash", "script": "echo {{ params.nope }}", "env": 5, "arguments": {"x": 5, "y": {}}},
        {"id": "c", "kind": 7, "script": "{{"},
        5,
        {"id": "d", "kind": "bash", "script": 7, "env": {"A": "{{ ds", "B": 5}},
    ]
    with pytest.raises(SpecError) as refused:
        parse_workflow({"name": "w", "schedule": "61 * * * *", "defaults": 3, "params": [], "tasks": tasks})
    faults = {(fault["field"], fault["code"]) for fault in refused.value.errors}
    assert {("tasks[0].script", "bad_template"), ("tasks[1]", "unknown_param")} <= faults
    assert ("tasks[4].env.A", "bad_template") in faults
    assert {"tasks[0].trigger_rule", "schedule", "tasks[2].kind"} <= {field for field, _ in faults}
