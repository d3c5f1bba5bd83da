"""The data folder: whose it is, and what a killed launcher left in it."""

import json
import os
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.local.console import Refusal
from deploy.local.folder import SOCKET_PATH_LIMIT, DataFolder
from deploy.local.processes import Identified


@pytest.fixture
def sleeper() -> "subprocess.Popen[bytes]":
    """A process that lives until somebody ends it."""
    with subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"]) as process:
        yield process  # type: ignore[misc]
        process.kill()


def identified(process: "subprocess.Popen[bytes]") -> Identified:
    found = Identified.of(process.pid)
    assert found is not None
    return found


def test_a_foreign_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(Refusal, match="not a data folder of RMPortal"):
        DataFolder(tmp_path).open()
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_folder_without_any_file_is_taken(tmp_path: Path) -> None:
    (tmp_path / "static" / "css").mkdir(parents=True)
    data = DataFolder(tmp_path)
    data.open()
    assert data.exists()


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Refusal, match="cannot be used"):
        DataFolder(tmp_path / "file").open()


def test_a_half_made_folder_is_completed(tmp_path: Path) -> None:
    (tmp_path / ".rmportal").write_text("{}")
    data = DataFolder(tmp_path)
    data.open()
    assert data.run.is_dir()
    assert data.log.is_dir()


def test_a_second_portal_is_refused_with_the_address_of_the_first(data: DataFolder) -> None:
    data.acquire()
    data.state_file.write_text(json.dumps({"url": "http://127.0.0.1:8080", "pid": 4711}))
    with pytest.raises(Refusal, match=r"http://127\.0\.0\.1:8080 \(pid 4711\)") as refused:
        DataFolder(data.path).acquire()
    assert refused.value.status == 2
    running = DataFolder(data.path).running()
    assert running is not None
    assert running.pid == os.getpid()
    data.release()
    assert DataFolder(data.path).running() is None
    DataFolder(data.path).acquire()


def test_what_a_killed_launcher_left_is_ended(data: DataFolder, sleeper: "subprocess.Popen[bytes]") -> None:
    identified(sleeper).write(data.run / "worker.pid")
    assert data.end_leftovers() == ["worker"]
    assert sleeper.wait(30) != 0
    assert not (data.run / "worker.pid").exists()


@pytest.mark.parametrize("change", [{"started": 1}, {"boot": "another"}])
def test_a_pid_that_another_process_has_now_is_left_alone(
    data: DataFolder, sleeper: "subprocess.Popen[bytes]", change: dict[str, object]
) -> None:
    replace(identified(sleeper), **change).write(data.run / "worker.pid")  # type: ignore[arg-type]
    assert data.end_leftovers() == []
    assert sleeper.poll() is None
    assert not (data.run / "worker.pid").exists()


def test_an_unreadable_pid_file_is_no_process(data: DataFolder) -> None:
    (data.run / "web.pid").write_text('{"pid": ')
    assert data.end_leftovers() == []


def test_processes_that_work_in_a_servers_folder_are_ended(data: DataFolder) -> None:
    data.redis.mkdir(exist_ok=True)
    with subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"], cwd=data.redis) as process:
        data.patience = 0.1
        data.end_leftovers()
        assert process.wait(30) != 0


def test_tasks_are_ended_with_their_folder_only(data: DataFolder, sleeper: "subprocess.Popen[bytes]") -> None:
    data.agent.mkdir()
    with subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"], cwd=data.agent) as task:
        assert data.end_tasks() == 1
        assert task.wait(30) != 0
    assert sleeper.poll() is None


def test_the_secret_key_is_made_once_for_its_owner(data: DataFolder) -> None:
    data.secret_key()
    path = data.path / "secret_key"
    first = path.read_text()
    data.secret_key()
    assert path.read_text() == first
    assert len(first.strip()) >= 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_sockets_stand_in_the_data_folder_while_the_path_is_short_enough(tmp_path: Path) -> None:
    data = DataFolder(Path("/tmp") / f"rmportal-short-{os.getpid()}")
    data.open()
    try:
        assert data.sockets("postgres") == data.run / "postgres"
    finally:
        data.delete()


def test_a_long_path_puts_sockets_elsewhere(tmp_path: Path) -> None:
    data = DataFolder(tmp_path / ("long" * 30) / "data")
    data.open()
    try:
        folder = data.sockets("postgres")
        assert len(os.fsencode(folder / ".s.PGSQL.5432.lock")) <= SOCKET_PATH_LIMIT
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert folder == data.sockets("postgres")
        assert folder != DataFolder(tmp_path / ("long" * 30) / "other").sockets("postgres")
    finally:
        data.delete()
    assert not folder.exists()


def test_a_socket_folder_that_is_a_link_is_refused(tmp_path: Path) -> None:
    data = DataFolder(tmp_path / ("long" * 30) / "data")
    data.open()
    folder = data.sockets("redis")
    folder.rmdir()
    folder.symlink_to(tmp_path)
    try:
        with pytest.raises(Refusal, match="belongs to somebody else"):
            data.sockets("redis")
    finally:
        folder.unlink()
        data.delete()
