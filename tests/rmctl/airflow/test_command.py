"""`rmctl import airflow`: what it writes and says, and its exit status. In place of Airflow stands what it said."""

import json
from pathlib import Path
from typing import Any

import pytest

from rmctl.cli import main

from .recorded import DAGS, recorded


def airflow_that_says(facts: dict[str, Any], folder: Path) -> str:
    """A program that is called as Airflow's Python would be and answers with the facts."""
    (folder / "facts.json").write_text(json.dumps(facts))
    program = folder / "python"
    program.write_text(f'#!/bin/sh\ncp "{folder}/facts.json" "$2"\n')
    program.chmod(0o755)
    return str(program)


def run(facts: dict[str, Any], folder: Path, *options: str) -> int | str | None:
    with pytest.raises(SystemExit) as ended:
        main(["import", "airflow", str(DAGS / "wrapped.py"), "--airflow-python", airflow_that_says(facts, folder),
              "--out", str(folder / "out"), *options])  # fmt: skip
    return ended.value.code


def test_a_workflow_is_written_and_its_findings_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(recorded("wrapped"), tmp_path) == 0
    said = capsys.readouterr().out
    assert f"wrapped: 9 wrapped → {tmp_path}/out/wrapped/workflow.yaml" in said
    assert "wrapped.py:43: needed: the connection people" in said
    text = (tmp_path / "out/wrapped/workflow.yaml").read_text()
    assert "# wrapped.py:43: needed: the connection people" in text
    assert f"AIRFLOW_PYTHON: {tmp_path}/python" in text


def test_what_is_lost_shows_in_the_status_and_strict_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(recorded("classic"), tmp_path, "--strict", "--json") == 1
    answer = json.loads(capsys.readouterr().out)
    assert answer["workflows"][0]["tasks"]["lost"] == ["computed"] and answer["workflows"][0]["file"] is None
    assert {"lost", "changed", "needed"} == {finding["level"] for finding in answer["workflows"][0]["findings"]}
    assert not (tmp_path / "out").exists()


def test_a_file_that_airflow_cannot_read_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = recorded("wrapped")
    broken = {"file": "/dags/broken.py", "error": "SyntaxError: no", "dags": [], "modules": [], "data": {}}
    facts["files"].append(broken)
    assert run(facts, tmp_path) == 1
    assert "/dags/broken.py: not read: SyntaxError: no" in capsys.readouterr().out


def test_two_dags_of_one_name_are_not_written_over_each_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = recorded("wrapped")
    facts["files"].append(facts["files"][0])
    assert run(facts, tmp_path) == 1
    assert "has a DAG wrapped too" in capsys.readouterr().out
