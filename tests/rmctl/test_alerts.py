"""Who hears of what, deadlines and time limits: in Python, in YAML, and in the definition."""

import json
from pathlib import Path
from typing import Any

import pytest

from rmctl.sdk.compile import compile_file
from rmctl.sdk.dag import DAG, bash
from rmctl.sdk.options import SdkError
from rmctl.spec import SpecError, parse_workflow
from rmctl.spec.workflow import workflow_schema

TASKS = [{"id": "a", "kind": "bash", "script": "true"}]


def parsed(**fields: Any) -> dict[str, Any]:
    return parse_workflow({"schema": 1, "name": "etl", "tasks": TASKS, **fields}).definition


def test_python_and_yaml_say_the_same(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text(
        "from rmctl import DAG\nfrom rmctl.sdk.dag import bash\n"
        "with DAG('etl', on_failure=['oncall'], deadline='2h', time_limit='3h', "
        "notify=[{'on': ['deadline', 'success'], 'to': 'team'}]):\n"
        "    bash('a', 'true', on_retry='team', deadline={'after': '30m', 'from': 'scheduled'})\n"
    )
    (tmp_path / "two.yaml").write_text(
        "name: etl\ndeadline: 2h\ntime_limit: 3h\nnotify:\n- {on: [success, deadline], to: [team]}\n"
        "- on: failure\n  to: oncall\n"
        "tasks:\n  a: {script: 'true', deadline: {after: 30m, from: scheduled}, notify: [{on: retry, to: team}]}\n"
    )
    [one], [two] = compile_file(tmp_path / "one.py"), compile_file(tmp_path / "two.yaml")
    assert one.spec.digest() == two.spec.digest()
    again = parse_workflow(json.loads(one.spec.canonical()))
    assert again.digest() == one.spec.digest()
    assert one.definition["deadline"] == {"after": "2h"} and one.definition["time_limit"] == "3h"
    assert one.definition["tasks"][0]["deadline"] == {"after": "30m", "from": "scheduled"}
    assert one.definition["tasks"][0]["notify"] == [{"on": ["retry"], "to": ["team"]}]


def test_a_definition_that_says_nothing_keeps_its_digest() -> None:
    assert not {"notify", "deadline", "time_limit"} & parsed().keys()
    assert parsed() == parsed(notify=[], deadline=None, time_limit=None)


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"notify": [{"on": ["sometimes"], "to": ["a"]}]}, "notify[0].on[0]"),
        ({"notify": [{"on": [], "to": ["a"]}]}, "notify[0].on"),
        ({"notify": [{"on": ["failure"], "to": []}]}, "notify[0].to"),
        ({"notify": [{"on": ["failure"], "to": ["a b"]}]}, "notify[0].to[0]"),
        ({"notify": [{"on": ["failure"], "to": ["a"], "when": 1}]}, "notify[0].when"),
        ({"deadline": "soon"}, "deadline.after"),
        ({"deadline": 0}, "deadline.after"),
        ({"deadline": {"after": "2h", "from": "birth"}}, "deadline.from"),
        ({"deadline": {}}, "deadline.after"),
        ({"time_limit": "0s"}, "time_limit"),
    ],
)
def test_what_is_wrong_is_named(fields: dict[str, Any], where: str) -> None:
    with pytest.raises(SpecError) as refused:
        parsed(**fields)
    assert [error["field"] for error in refused.value.errors] == [where]


def test_a_function_as_callback_is_refused_with_the_way_out() -> None:
    with DAG("etl"), pytest.raises(SdkError, match="trigger_rule='one_failed'"):
        bash("a", "true", on_failure=print)


def test_an_unknown_option_of_a_dag_is_refused() -> None:
    with pytest.raises(SdkError, match="no option on_failur"):
        DAG("etl", on_failur=["a"])


def test_the_schema_for_editors_has_them() -> None:
    fields = workflow_schema()["properties"]
    assert {"notify", "deadline", "time_limit"} <= fields.keys()
    assert {"string", "number"} <= {option.get("type") for option in fields["deadline"]["anyOf"]}
