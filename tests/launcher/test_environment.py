"""The virtual environment: its stamp, an interrupted one, and two launchers at once."""

import fcntl
import io
import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from deploy.local.console import Console, Refusal
from deploy.local.environment import DEVELOPMENT, LOCK, RUNTIME, STAMP, Environment

from .conftest import ROOT


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project whose lock needs nothing from anywhere."""
    for name in (RUNTIME, DEVELOPMENT):
        (tmp_path / name).write_text("# nothing\n")
    return tmp_path


def quiet() -> Console:
    return Console(io.StringIO())


def test_an_interrupted_one_is_made_anew_and_a_whole_one_kept(project: Path) -> None:
    environment = Environment(project)
    rubbish = environment.folder / "lib" / "half"
    rubbish.mkdir(parents=True)
    environment.ensure(quiet())
    assert not rubbish.exists()
    assert (
        subprocess.run([environment.python, "-c", "import sys; sys.exit(sys.prefix == sys.base_prefix)"]).returncode
        == 0
    )
    assert (environment.packages / "rmportal.pth").read_text() == f"{project}\n"

    stamp = environment.folder / STAMP
    made = stamp.stat().st_mtime_ns
    environment.ensure(quiet())
    assert stamp.stat().st_mtime_ns == made

    # A list that is new or has changed is installed into what is there.
    kept = environment.folder / "kept"
    kept.touch()
    environment.ensure(quiet(), development=True)
    assert set(json.loads(stamp.read_text())) == {"python", "root", RUNTIME, DEVELOPMENT}
    (project / RUNTIME).write_text("# nothing, said otherwise\n")
    before = json.loads(stamp.read_text())[RUNTIME]
    environment.ensure(quiet())
    assert json.loads(stamp.read_text())[RUNTIME] != before
    assert kept.exists()

    # What cannot be installed leaves no stamp that says it was.
    (project / RUNTIME).write_text("no-such-package==1 --hash=sha256:" + "0" * 64 + "\n--no-index\n")
    with pytest.raises(Refusal, match="pip could not install"):
        environment.ensure(quiet())
    assert environment._missing([RUNTIME]) == [RUNTIME]


def test_another_interpreter_or_place_asks_for_a_new_one(project: Path) -> None:
    environment = stamped(project)
    assert environment._missing([RUNTIME]) == []
    stamp = environment.folder / STAMP
    good = json.loads(stamp.read_text())
    for change in ({"python": "/usr/bin/python3.9 3.9.1"}, {"root": "/elsewhere"}):
        stamp.write_text(json.dumps({**good, **change}))
        assert environment._missing([RUNTIME]) is None
    stamp.write_text('{"python": ')
    assert environment._missing([RUNTIME]) is None


def test_two_launchers_wait_for_each_other(project: Path) -> None:
    environment = Environment(project)
    environment.folder.mkdir()
    with open(environment.folder / LOCK, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        second = threading.Thread(target=environment.ensure, args=(quiet(),))
        second.start()
        second.join(0.3)
        assert second.is_alive()
        # The first one finishes; the second finds everything done and touches nothing.
        stamped(project)
    second.join(30)
    assert not second.is_alive()
    assert sorted(path.name for path in environment.folder.iterdir()) == sorted(["bin", "pyvenv.cfg", LOCK, STAMP])


def stamped(project: Path) -> Environment:
    """An environment that looks whole without being made."""
    environment = Environment(project)
    (environment.folder / "bin").mkdir(parents=True, exist_ok=True)
    environment.python.symlink_to(sys.executable)
    (environment.folder / "pyvenv.cfg").write_text("version = 3.11.7\n")
    stamp = {"python": environment._interpreter(), "root": str(project), RUNTIME: environment._digest(RUNTIME)}
    (environment.folder / STAMP).write_text(json.dumps(stamp))
    return environment


def test_everything_in_the_lists_is_pinned_and_hashed() -> None:
    for name in (RUNTIME, DEVELOPMENT):
        lines = (ROOT / name).read_text().splitlines()
        packages = [line for line in lines if line[:1].isalnum()]
        assert packages
        for number, line in enumerate(lines):
            if line[:1].isalnum():
                assert "==" in line
                assert "--hash=sha256:" in lines[number + 1]
        assert not any("index-url" in line or "://" in line for line in lines)
