"""With a real Airflow: what it says about the DAG files is what is recorded, and its operators run as tasks.

`AIRFLOW2_PYTHON` names the Python of an environment with Airflow 2.11, `AIRFLOW3_PYTHON` one with Airflow 3.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rmctl.airflow.convert import shipped
from rmctl.airflow.read import read
from rmctl.sdk.options import SdkError

from .recorded import DAGS, FOLDER, plain

INTERPRETERS = {"2": os.environ.get("AIRFLOW2_PYTHON"), "3": os.environ.get("AIRFLOW3_PYTHON")}


def interpreter(version: str) -> str:
    """The Python with this Airflow, or the test is skipped."""
    found = INTERPRETERS[version]
    if not found:
        pytest.skip(f"no Python with Airflow {version} is named by AIRFLOW{version}_PYTHON")
    return found


@pytest.mark.parametrize(("name", "version"), [("classic", "2"), ("wrapped", "2"), ("taskflow", "3")])
def test_the_recorded_facts_are_what_airflow_says(name: str, version: str) -> None:
    facts = plain(read([DAGS / f"{name}.py"], interpreter(version)))
    assert facts == (FOLDER / "facts" / f"{name}.json").read_text(), f"run -m tests.rmctl.airflow.recorded {name}"


def test_without_airflow_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RMCTL_AIRFLOW_PYTHON", raising=False)
    with pytest.raises(SdkError, match="pip install apache-airflow"):
        read([DAGS / "classic.py"], None)
    with pytest.raises(SdkError, match=r"No module named 'airflow'.*\n.*pip install|pip install"):
        read([DAGS / "classic.py"], sys.executable)


def execute(folder: Path, version: str, task: str, inputs: dict[str, Any] | None = None, **env: str) -> tuple[int, Any]:
    """Exit status and result of a task of dags/wrapped.py, as an agent would run it."""
    (folder / "airflow_task.py").write_text(shipped("airflow_task.py"))
    (folder / "dags").mkdir(exist_ok=True)
    (folder / "dags" / "wrapped.py").write_text((DAGS / "wrapped.py").read_text())
    (folder / "inputs.json").write_text(json.dumps(inputs or {}))
    result = folder / "result.json"
    result.unlink(missing_ok=True)
    environment = {
        "PATH": os.environ["PATH"], "HOME": str(folder), "TMPDIR": str(folder), "AIRFLOW_PYTHON": interpreter(version),
        "AIRFLOW_DAG_FILE": "dags/wrapped.py", "AIRFLOW_DAG": "wrapped", "RM_TASK_ID": task, "RM_RUN_ID": "7",
        "RM_LOGICAL_TIME": "2026-02-03T00:00:00+00:00", "RM_INPUTS": str(folder / "inputs.json"),
        "RM_RESULT": str(result), "RM_ATTEMPT": "1", **env,
    }  # fmt: skip
    command = [interpreter(version), "airflow_task.py", *(["--poke"] if task == "third" else [])]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 99), done.stderr[-2000:]
    return done.returncode, json.loads(result.read_text()) if result.exists() else None


def test_operators_run_with_what_the_portal_gives(tmp_path: Path) -> None:
    """Templates, pushed values, pulled ones, skipping, poking, mapped instances, and variables of the tenant."""
    assert execute(tmp_path, "2", "greet") == (0, {"return_value": "hello 2026-02-03", "length": 16})
    greeted = {"xcom": json.dumps({"greet": {"return_value": "hello", "length": 5}, "third": None})}
    assert execute(tmp_path, "2", "pushed", greeted) == (0, {"said": "hello", "long": 5})
    assert execute(tmp_path, "2", "pushed", greeted, RM_PARAMS='{"skip": true}') == (99, None)
    assert execute(tmp_path, "2", "where", {"xcom": json.dumps({"pushed": {"long": 5}})}) == (0, "left")
    assert execute(tmp_path, "2", "third") == (0, {"done": True, "value": None})
    assert execute(tmp_path, "2", "right", RM_VARIABLE_side="north") == (0, "north")
    mapped = {"map_x": 2, "map_y": 10, "xcom": json.dumps({"left": None, "both": []})}
    assert execute(tmp_path, "2", "added", mapped, AIRFLOW_MAP="x,y", RM_MAP_INDEX="2") == (0, 12)
    zipped = {"map_1": 3, "map_0": "a", "xcom": json.dumps({"both": [], "added": []})}
    assert execute(tmp_path, "2", "joined", zipped, AIRFLOW_MAP="pair=zip", RM_MAP_INDEX="0") == (0, "a/3")
    mapped = {"map_item": {"x": 2, "y": 10}, "xcom": mapped["xcom"]}
    assert execute(tmp_path, "2", "added", mapped, AIRFLOW_MAP="*", RM_MAP_INDEX="2") == (0, 12)
