"""DAGs of Airflow as workflows: from what Airflow said about them, which is recorded, without Airflow."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from rmctl.airflow.convert import Imported, convert
from rmctl.airflow.dag import Options
from rmctl.airflow.write import write
from rmctl.sdk.compile import compile_file

from .recorded import recorded

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def imported(name: str, dag: str | None = None, *, now: datetime = NOW) -> Imported:
    made = {one.name: one for one in convert(recorded(name), Options("/airflow/bin/python", now))}
    return made[dag or name]


def tasks(one: Imported) -> dict[str, dict[str, Any]]:
    return {task["id"]: task for task in one.definition["tasks"]}


def said(one: Imported, level: str) -> dict[str, list[str]]:
    return {finding.message: finding.tasks for finding in one.findings if finding.level == level}


@pytest.fixture(scope="module")
def classic() -> Imported:
    return imported("classic")


@pytest.fixture(scope="module")
def taskflow() -> Imported:
    return imported("taskflow")


@pytest.fixture(scope="module")
def wrapped() -> Imported:
    return imported("wrapped")


@pytest.mark.parametrize(
    ("name", "dag"), [("classic", "classic"), ("taskflow", "taskflow"), ("taskflow", "nightly"), ("wrapped", "wrapped")]
)
def test_what_is_written_compiles(name: str, dag: str, tmp_path: Path) -> None:
    one = imported(name, dag)
    [compiled] = compile_file(write(one, tmp_path))
    assert [task["id"] for task in compiled.definition["tasks"]] == [task["id"] for task in one.definition["tasks"]]
    assert compiled.files == sorted(one.files)


def test_when_it_runs(classic: Imported, taskflow: Imported) -> None:
    assert {name: classic.definition[name] for name in ("schedule", "start_date", "max_active_runs")} == {
        "schedule": "30 6 * * 1-5", "start_date": "2024-01-01", "max_active_runs": 2,
    }  # fmt: skip
    assert "catchup" not in classic.definition
    assert classic.definition["description"] == "Weighs things\n\nTags: scale"
    assert taskflow.definition["datasets"] == {"all": ["s3://lake/orders", "s3://lake/rates"]}
    assert "schedule" not in taskflow.definition
    nightly = imported("taskflow", "nightly")
    assert (nightly.definition["schedule"], nightly.definition["catchup"]) == ("0 0 * * *", True)
    assert any("logical time" in message for message in said(nightly, "changed"))


def test_parameters(taskflow: Imported) -> None:
    assert taskflow.definition["params"]["properties"] == {
        "factor": {"type": "integer", "minimum": 1, "default": 2},
        "note": {"type": ["null", "string"], "default": None},
    }


def test_bash_tasks_keep_their_templates_and_retries(classic: Imported) -> None:
    hello = tasks(classic)["hello"]
    assert (hello["kind"], hello["script"], hello["env"]) == ("bash", "echo {{ ds }} {{ params.unit }}", {"A": "b"})
    assert hello["retries"] == {"limit": 2, "delay": "3m", "factor": 2.0, "jitter": 0.0, "max_delay": "1d"}
    heavy = tasks(classic)["load.heavy"]
    assert (heavy["time_limit"], heavy["group"]) == ("2h", "load")
    assert classic.definition["defaults"] == {"time_limit": "7d"}


def test_functions_are_taken_out_of_the_file_with_what_they_use(classic: Imported) -> None:
    weight = tasks(classic)["weight"]
    assert (weight["file"], weight["function"]) == ("tasks.py", "weigh")
    assert weight["arguments"] == {
        "amount": {"value": 3}, "unit": {"value": "{{ params.unit }}"}, "ds": {"value": "{{ ds }}"},
    }  # fmt: skip
    text = classic.files["tasks.py"]
    assert "airflow import" not in text and "def told" not in text
    assert set(classic.files) == {"tasks.py", "helpers.py", "airflow_native.py"}
    module: dict[str, Any] = {}
    exec(text.replace("from helpers import rounded", "rounded = round"), module)
    assert module["weigh"](2, "t", ds="2026-01-01") == 2000


def test_the_way_is_decided_here(classic: Imported, taskflow: Imported) -> None:
    made = tasks(classic)
    assert made["pick"]["decides"] == "branch" and made["pick"]["arguments"] == {"weight": {"result": "weight"}}
    assert (made["gate"]["decides"], made["latest"]["decides"]) == ("short_circuit", "short_circuit")
    assert made["latest"]["ignore_downstream_trigger_rules"] is False
    assert made["joined"]["trigger_rule"] == "none_failed_min_one_success"
    assert tasks(taskflow)["checks.large"]["ignore_downstream_trigger_rules"] is False


def test_what_waits(classic: Imported, taskflow: Imported) -> None:
    made = tasks(classic)
    assert made["there"]["poke"] == {"interval": "30s", "timeout": "10m", "soft_fail": True}
    assert made["file"]["arguments"]["path"] == {"value": "/data/{{ ds }}.csv"}
    assert made["pause"]["arguments"] == {"duration": {"value": "90s"}}
    assert made["evening"]["arguments"] == {"time": {"value": "18:30:00"}}
    assert (made["other"]["wait_for_run"]["workflow"], made["other"]["arguments"]) == (
        "upstream_dag", {"before": {"value": "1d"}},
    )  # fmt: skip
    assert made["start"]["trigger_run"]["wait"] is True
    assert made["start"]["arguments"] == {"unit": {"param": "unit"}, "n": {"value": 1}}
    assert tasks(taskflow)["ready"]["poke"] == {"interval": "15s", "timeout": "2m"}


def test_mapping_setup_teardown_outlets_and_results(taskflow: Imported) -> None:
    made = tasks(taskflow)
    assert made["scale"]["map"]["over"] == {"number": {"result": "numbers"}}
    assert made["scale"]["arguments"] == {"factor": {"value": 2}}
    assert made["room"]["setup"] is True and made["clean"]["teardown"] == {"setups": ["room"]}
    assert made["total"]["outlets"] == ["s3://lake/total"]
    assert made["show"]["returns"] == "script"
    assert made["show"]["arguments"] == {"product": {"result": "total", "key": "product"}}


def test_every_way_to_map_over_functions_and_runs() -> None:
    made = tasks(imported("taskflow", "nightly"))
    assert made["add"]["map"]["kwargs"] == {"result": "rows"} and "arguments" not in made["add"]
    assert made["add__1"]["map"]["kwargs"] == {"value": [{"a": 1}, {"a": 2, "b": 1}]}
    assert made["pair"]["map"]["over"] == {"a": {"result": "add__2"}, "b": {"value": [10, 20]}}
    assert made["pair"]["map"]["order"] == ["a", "b"]
    assert (made["each"]["kind"], made["each"]["map"]["kwargs"]) == ("trigger_run", {"result": "rows"})


def test_names_of_instances_are_carried_where_they_look_up_arguments(taskflow: Imported) -> None:
    assert tasks(taskflow)["scale"]["map"]["label"] == "{{ task.op_kwargs['number'] }} kg"
    nightly = imported("taskflow", "nightly")
    assert "label" not in tasks(nightly)["pair"]["map"]
    [(message, where)] = [(m, w) for m, w in said(nightly, "lost").items() if m.startswith("map_index_template")]
    assert "there is no said here" in message and where == ["pair"]


def test_limits_weights_and_deadlines(classic: Imported, taskflow: Imported) -> None:
    assert tasks(classic)["load.heavy"]["slots"] == {"name": "crane", "count": 2}
    assert [message for message in said(classic, "needed") if "rmctl slots create crane" in message]
    # Airflow 2 counts over all runs, Airflow 3 in each.
    assert (classic.definition["max_active_tasks_all_runs"], classic.definition["time_limit"]) == (8, "6h")
    assert tasks(classic)["last"]["deadline"] == {"after": "1h", "from": "scheduled"}
    assert tasks(taskflow)["scale"]["max_active_per_run"] == 2
    nightly = imported("taskflow", "nightly")
    assert nightly.definition["deadline"] == {"after": "3h", "from": "scheduled"}
    assert nightly.definition["max_active_tasks"] == 4
    assert (tasks(nightly)["pair"]["weight"], tasks(nightly)["pair"]["weight_rule"]) == (3, "upstream")


@pytest.mark.parametrize(
    ("changes", "level", "words", "field"),
    [
        ({"pool_slots": 3}, "lost", "pool_slots of default_pool", None),
        ({"priority_weight": -4}, "changed", "weights are 0 to", ("weight", 0)),
        ({"pool": "two words"}, "needed", "the slot pool two_words", ("slots", "two_words")),
        ({"max_active_tis_per_dag": 2}, "", "", ("max_active", 2)),
    ],
)
def test_what_a_task_may_say_of_its_places(
    changes: dict[str, Any], level: str, words: str, field: tuple[str, Any] | None
) -> None:
    facts = recorded("classic")
    task = next(task for task in facts["files"][0]["dags"][0]["tasks"] if task["id"] == "hello")
    task["common"] |= changes
    [one] = convert(facts, Options("python", NOW))
    assert not words or any(words in message for message in said(one, level))
    assert field is None or tasks(one)["hello"][field[0]] == field[1]


def test_functions_that_are_mapped_otherwise_stay_in_airflow() -> None:
    def reason(kind: str, value: Any) -> str:
        facts = recorded("taskflow")
        nightly = next(dag for dag in facts["files"][0]["dags"] if dag["id"] == "nightly")
        task = next(task for task in nightly["tasks"] if task["id"] == "add__1")
        task["map"] = {"kind": kind, "value": value}
        one = next(one for one in convert(facts, Options("python", NOW)) if one.name == "nightly")
        return next(message for message, named in said(one, "wrapped").items() if named == ["add__1"])

    assert reason("objects", [{"b": 1}]) == "add is not given a"
    assert reason("objects", [{"a": 1}, {"b": 1}]) == "add is not given a by all that it is mapped over"
    assert reason("objects", [{"a": 1, "c": 1}]) == "add does not take c"
    assert reason("objects", [{"a": "{{ ds }}"}]) == "it is mapped over templates"
    assert reason("lists", {"a": {"x": 1}}) == "it is mapped over something that is not a list"


def test_everything_else_is_named_with_its_line(classic: Imported, taskflow: Imported) -> None:
    lost = said(classic, "lost")
    [callback] = [message for message in lost if message.startswith("on_failure_callback: nothing is called")]
    assert lost[callback] == ["last"] and "notify" in callback
    assert any("takes params of Airflow's context" in message for message in said(taskflow, "wrapped"))
    lines = Path(classic.source).read_text().splitlines()
    for finding in classic.findings:
        assert any(task.rsplit(".", 1)[-1] in lines[finding.line - 1] for task in finding.tasks), str(finding)


def test_a_task_that_cannot_be_carried_fails_and_says_why(classic: Imported) -> None:
    computed = tasks(classic)["computed"]
    assert classic.ways["lost"] == ["computed"]
    assert computed["script"].endswith("exit 98") and "conf has day" in computed["script"]


def test_what_only_airflow_can_run_executes_the_operator(wrapped: Imported) -> None:
    made = tasks(wrapped)
    assert wrapped.ways["native"] == [] and wrapped.ways["lost"] == []
    assert wrapped.definition["defaults"]["env"] == {
        "AIRFLOW_PYTHON": "/airflow/bin/python", "AIRFLOW_DAG_FILE": "dags/wrapped.py", "AIRFLOW_DAG": "wrapped",
    }  # fmt: skip
    assert set(wrapped.files) == {"airflow_task.py", "dags/wrapped.py"}
    assert made["greet"]["connections"] == ["people"] and made["right"]["variables"] == ["side"]
    assert "variables" not in made["greet"]
    assert made["third"]["poke"] == {"interval": "5s", "timeout": "1m"} and made["third"]["function"] == "poke"
    assert made["where"]["decides"] == "branch"
    # It pulls from a task that is not directly before it, and gets no further edge by that.
    assert '"greet": ti.xcom_pull(task_ids="greet")' in made["pushed"]["arguments"]["xcom"]["value"]
    assert made["pushed"]["upstream"] == ["third"]
    # Of several lists each comes by itself, and the last varies fastest.
    assert made["both"]["env"]["AIRFLOW_MAP"] == "bash_command,env"
    assert made["added"]["map"]["over"] == {"map_x": {"value": [1, 2]}, "map_y": {"result": "both"}}
    assert made["added"]["map"]["order"] == ["map_x", "map_y"]
    assert made["joined"]["env"]["AIRFLOW_MAP"] == "pair=zip"
    assert made["joined"]["map"] == {
        "zip": {"map_0": {"result": "both"}, "map_1": {"result": "added"}}, "fill": "none", "limit": 1024,
    }  # fmt: skip
    reasons = said(wrapped, "wrapped")
    assert "Greeter is an operator of its own" in reasons and "its function is a lambda" in reasons


def test_a_schedule_that_has_ended_is_left_out_and_named() -> None:
    facts = recorded("classic")
    facts["files"][0]["dags"][0]["end_date"] = {"$time": "2025-06-01T00:00:00+00:00"}
    ended, going = (
        next(iter(convert(facts, Options("python", now)))) for now in (NOW, datetime(2025, 1, 1, tzinfo=UTC))
    )
    assert "schedule" not in ended.definition and any("has ended" in message for message in said(ended, "changed"))
    assert going.definition["end_date"] == "2025-06-01"


def test_a_dag_that_the_portal_would_refuse_is_not_written() -> None:
    facts = recorded("classic")
    facts["files"][0]["dags"][0]["tasks"] = []
    [one] = convert(facts, Options("python", NOW))
    assert one.refused and any("at least one task" in message for message in said(one, "lost"))
