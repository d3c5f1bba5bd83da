"""The task runner, end to end in a process of its own, as the agent starts it."""

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
from rmctl.sdk.compile import compile_file
from rmctl.sdk.runtime import artifact
from rmctl.spec import task_job

FLOW = """
import json
from pathlib import Path
from helper import PREFIX
from rmctl import DAG, artifact, context, param, task

@task(retries=2)
def work(name, times=1):
    artifact("out/note.txt").write_text(name)
    now = context()
    print("working", flush=True)
    return {"said": [PREFIX + name] * times, "data": Path("data.txt").read_text(), "run": now.run_id,
            "index": now.map_index, "params": now.params, "year": now.logical_time.year, "plain": inner(2)}

@task
def inner(n):
    return n + 1

@task
def fails(): raise LookupError("no such thing")
@task
def odd(): return {"a": [1, {2, 3}]}
@task
def nan(): return [1.0, float("nan")]
@task
def large(): return "x" * 300_000
@task
def leaves():
    raise SystemExit(7)

with DAG("flow", params={"n": 3}, files=["data.txt"]) as dag:
    work.partial(times=param("n")).expand(name=["a", "b"])
    fails(), odd(), nan(), large(), leaves()
"""


class Place:
    """A working folder with the unpacked bundle, as an agent makes it."""

    def __init__(self, folder: Path) -> None:
        source = folder / "source"
        source.mkdir()
        (source / "flow.py").write_text(FLOW)
        (source / "helper.py").write_text('PREFIX = "hello "\n')
        (source / "data.txt").write_text("shipped")
        [self.workflow] = compile_file(source / "flow.py")
        self.work = folder / "work"
        assert self.workflow.bundle is not None
        with tarfile.open(fileobj=io.BytesIO(self.workflow.bundle)) as archive:
            archive.extractall(self.work, filter="data")
        self.result = folder / "result.json"
        self.artifacts = folder / "artifacts"
        self.inputs = folder / "inputs.json"

    def run(self, task: str, arguments: dict[str, Any], **options: Any) -> subprocess.CompletedProcess[str]:
        job = task_job(
            self.workflow.spec,
            task,
            arguments=arguments,
            run_id=12,
            logical_time="2026-03-01T00:00:00+00:00",
            params={"n": 3},
            **options,
        )
        group = job["groups"][0]
        self.inputs.write_text(json.dumps(job["inputs"]))
        environment = {
            **group["env"],
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(Path(rmctl.__file__).parents[1]),
            "RM_INPUTS": str(self.inputs),
            "RM_RESULT": str(self.result),
            "RM_ARTIFACTS": str(self.artifacts),
        }
        command = [sys.executable, *group["command"][1:]]
        return subprocess.run(
            command, cwd=self.work, env=environment, capture_output=True, text=True, check=False
        )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("runner"))


def test_a_task_runs_with_its_arguments_files_and_context(place: Place) -> None:
    done = place.run("work", {"name": "you", "times": 2}, map_index=1)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "working\n"
    assert json.loads(place.result.read_text()) == {
        "said": ["hello you", "hello you"],
        "data": "shipped",
        "run": "12",
        "index": 1,
        "params": {"n": 3},
        "year": 2026,
        "plain": 3,
    }
    assert (place.artifacts / "out" / "note.txt").read_text() == "you"
    assert sorted(path.name for path in place.result.parent.iterdir()) == [
        "artifacts",
        "inputs.json",
        "result.json",
        "source",
        "work",
    ]


@pytest.mark.parametrize(
    ("task", "status", "said"),
    [
        ("fails", 1, "LookupError: no such thing"),
        ("odd", 97, "odd returned a builtins.set at result['a'][1], which cannot be stored as JSON"),
        ("nan", 97, "nan returned nan at result[1]"),
        ("large", 97, "a result has at most 256 KiB"),
        ("leaves", 7, ""),
    ],
)
def test_a_task_that_fails_says_why_and_leaves_no_result(
    place: Place, task: str, status: int, said: str
) -> None:
    place.result.unlink(missing_ok=True)
    done = place.run(task, {})
    assert (done.returncode, said in done.stderr) == (status, True), done.stderr
    assert "rmctl/runner.py" not in done.stderr
    assert not place.result.exists()


def test_wrong_arguments_are_the_functions_own_error(place: Place) -> None:
    done = place.run("work", {"nam": "x"})
    assert done.returncode == 1
    assert "unexpected keyword argument 'nam'" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["missing.py", "f"], "missing.py is not in the working folder"),
        (["flow.py", "nothing"], "flow.py has no function nothing"),
        (["broken.py", "f"], "broken.py could not be loaded"),
        (["flow.py"], "usage:"),
    ],
)
def test_nothing_to_call_is_status_2(place: Place, arguments: list[str], said: str) -> None:
    (place.work / "broken.py").write_text("1 / 0\n")
    environment = {"PYTHONPATH": str(Path(rmctl.__file__).parents[1]), "PATH": os.environ["PATH"]}
    command = [sys.executable, "-m", "rmctl.runner", *arguments]
    done = subprocess.run(
        command, cwd=place.work, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert said in done.stderr


def test_inputs_that_cannot_be_read_are_named(place: Place) -> None:
    command = [sys.executable, "-m", "rmctl.runner", "flow.py", "work"]
    environment = {"PYTHONPATH": str(Path(rmctl.__file__).parents[1]), "RM_INPUTS": "nowhere.json"}
    done = subprocess.run(
        command, cwd=place.work, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "nowhere.json" in done.stderr


@pytest.mark.parametrize("name", ["", "/etc/x", "../x", "a/../../x"])
def test_artifacts_stay_in_their_folder(name: str) -> None:
    with pytest.raises(ValueError, match="relative name"):
        artifact(name)


@pytest.mark.parametrize(
    ("mode", "body", "status", "result"),
    [
        ("", "raise rmctl.TaskSkipped('nothing new')", 99, None),
        ("", "raise rmctl.TaskFailed('no use')", 98, None),
        ("--poke", "return False", 0, {"done": False, "value": None}),
        ("--poke", "return rmctl.Poked(True, 5)", 0, {"done": True, "value": 5}),
        ("--script", "return 'echo 7 > $RM_RESULT; exit 3'", 3, 7),
        ("--script", "return 7", 1, None),
    ],
)
def test_how_a_task_ends(tmp_path: Path, mode: str, body: str, status: int, result: Any) -> None:
    (tmp_path / "flow.py").write_text(f"import rmctl\n\ndef f():\n    {body}\n")
    out = tmp_path / "result"
    command = [sys.executable, "-m", "rmctl.runner", *([mode] if mode else []), "flow.py", "f"]
    env = {**os.environ, "RM_RESULT": str(out), "PYTHONPATH": str(Path(__file__).parents[2])}
    ended = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == status, ended.stderr
    assert (json.loads(out.read_text()) if out.exists() else None) == result
    assert "Traceback" not in ended.stderr
