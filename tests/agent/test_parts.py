"""Parts of the agent by themselves, where a real portal or machine could not show the case."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from rmctl.agent import cgroups, executor, launch, sandbox
from rmctl.agent.containers import Runtime
from rmctl.agent.errors import AgentError, JoinRefused, Refused
from rmctl.agent.journal import Spares, State, TaskFolder, stored_folders
from rmctl.agent.logs import HEADER, NOTICE, TASK_WINDOW, LogShipper
from rmctl.agent.main import join, run
from rmctl.agent.protocol import MAX_LOG_CHUNK_BYTES, Assignment, GpuShare, Log
from tests.agent.portal import CREDENTIAL, TestPortal


def shipper(path: Path, finished: Callable[[], None] = lambda: None) -> tuple[LogShipper, list[Log]]:
    sent: list[Log] = []
    found = LogShipper()
    found.add((1, 1), str(path), finished)
    found.connected(sent.append)
    return found, sent


def test_only_a_window_of_a_log_is_on_its_way(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(HEADER + bytes(3 * TASK_WINDOW))
    found, sent = shipper(path)
    assert len(sent) == 1, "the first chunk asks how much the portal has"
    found.acknowledge((1, 1), len(sent[0].data))
    assert sum(len(frame.data) for frame in sent) == TASK_WINDOW + MAX_LOG_CHUNK_BYTES
    found.poll()
    assert sum(len(frame.data) for frame in sent) == TASK_WINDOW + MAX_LOG_CHUNK_BYTES


def test_a_new_connection_goes_on_from_what_the_portal_has(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(HEADER + b"x" * (3 * MAX_LOG_CHUNK_BYTES))
    done: list[bool] = []
    found, sent = shipper(path, lambda: done.append(True))
    found.disconnected()
    sent.clear()
    found.connected(sent.append)
    assert [frame.offset for frame in sent] == [0]
    found.acknowledge((1, 1), 2 * MAX_LOG_CHUNK_BYTES + 7)
    assert [frame.offset for frame in sent] == [0, 2 * MAX_LOG_CHUNK_BYTES + 7]
    found.end((1, 1))
    assert sent[-1].final and not done
    found.acknowledge((1, 1), 3 * MAX_LOG_CHUNK_BYTES)
    assert done == [True]


def test_a_chunk_that_could_not_be_stored_is_sent_again(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(HEADER + b"abc")
    found, sent = shipper(path)
    found.acknowledge((1, 1), 0)
    path.write_bytes(HEADER + b"abcdef")
    found.poll()
    found.acknowledge((1, 1), 0)
    found.poll()
    assert [(frame.offset, frame.data) for frame in sent[-1:]] == [(0, b"abcdef")]


def everything(found: LogShipper, sent: list[Log]) -> bytes:
    """The log as a portal has it that takes every frame in order, and nothing twice."""
    log = b""
    for frame in sent:
        assert frame.offset <= len(log)
        log += frame.data[len(log) - frame.offset :]
        if len(log) > found.streams[1, 1].acknowledged:
            found.acknowledge((1, 1), len(log))
    return log


@pytest.mark.parametrize("after", [b"", b"n\n", b"as long\n", b"longer than what was there before\n" * 9])
def test_a_log_that_its_task_empties_goes_on_and_says_so_once(tmp_path: Path, after: bytes) -> None:
    path = tmp_path / "log"
    path.write_bytes(HEADER + b"before\n")
    found, sent = shipper(path)
    found.acknowledge((1, 1), 7)
    path.write_bytes(after)
    found.poll()
    assert found.streams[1, 1].sent == 7 + len(NOTICE + after)
    path.write_bytes(after + b"more\n")
    found.poll()
    found.acknowledge((1, 1), 7 + len(NOTICE + after))
    path.write_bytes(b"")
    found.poll()
    path.write_bytes(b"x\n")
    size = found.end((1, 1))
    log = everything(found, sent)
    assert log == b"before\n" + NOTICE + after + b"more\n" + b"x\n"
    assert size == len(log)
    assert sent[-1].final


def test_a_log_emptied_before_anybody_looked_says_so(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"last\n")
    found, sent = shipper(path)
    assert found.end((1, 1)) == len(NOTICE) + 5
    assert everything(found, sent) == NOTICE + b"last\n"


def test_what_a_task_has_destroyed_and_the_portal_lacks_is_zeros(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(HEADER + b"before\n")
    found, sent = shipper(path)
    path.write_bytes(b"after\n")
    found.acknowledge((1, 1), 0)
    found.end((1, 1))
    found.disconnected()
    sent.clear()
    found.connected(sent.append)
    assert everything(found, sent) == bytes(7) + NOTICE + b"after\n"


def test_an_agent_killed_while_it_empties_a_folder_leaves_no_half_of_a_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "tasks"
    root.mkdir()
    spares = Spares(str(tmp_path / "spare"), None, (0o700, 0o700))
    assignment = Assignment(placement=5, token=2, job=1, attempt=1, name="a", tenant="t", command=["true"])
    folder = TaskFolder(str(root), 5, 2)
    spares.create(folder, assignment)

    def killed(path: str, size: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("os.truncate", killed)
        with pytest.raises(KeyboardInterrupt):
            spares.keep(folder)
    assert list(stored_folders(str(root))) == []

    again = TaskFolder(str(root), 5, 2)
    spares = Spares(str(tmp_path / "spare"), None, (0o700, 0o700))
    spares.create(again, assignment)
    assert spares.keep(again) is None
    after = TaskFolder(str(root), 6, 1)
    spares.create(after, assignment)
    assert Path(after.log).read_bytes() == HEADER
    assert list(stored_folders(str(root))) == [(6, 1)]


def test_a_folder_used_again_tells_nothing_of_the_task_before(tmp_path: Path) -> None:
    root = tmp_path / "tasks"
    root.mkdir()
    spares = Spares(str(tmp_path / "spare"), None, (0o700, 0o700))
    long = Assignment(
        placement=5, token=2, job=1, attempt=1, name="a", tenant="t", command=["true"], inputs={"text": "x" * 500}
    )
    before = TaskFolder(str(root), 5, 2)
    spares.create(before, long)
    before.write_state(State(1, 2, "boot", 3.0, groups=["a group"] * 20))
    Path(before.path, "exit").write_text("137\n")
    Path(before.log).write_bytes(HEADER + b"secret\n")
    assert spares.keep(before) is None
    (spare,) = Path(tmp_path, "spare").iterdir()
    assert all(len(file.read_bytes()) <= 1 for file in spare.iterdir() if file.is_file())

    short = Assignment(placement=6, token=1, job=1, attempt=1, name="b", tenant="t", command=["true"])
    after = TaskFolder(str(root), 6, 1)
    spares.create(after, short)
    assert (after.assignment(), after.state(), after.exit_status()) == (short, None, None)
    assert Path(after.log).read_bytes() == HEADER
    assert Path(after.inputs).read_bytes() == b"{}"
    after.write_state(State(7, 8, "boot", 3.0))
    assert after.state() == State(7, 8, "boot", 3.0)


def test_version_two_groups_are_made_with_their_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A plain folder stands for the kernel's; this machine may have version 1 only.
    parent = tmp_path / "rmportal"
    (parent / "7-1").mkdir(parents=True)
    names = ("cpu.weight", "cpu.max", "memory.max", "memory.oom.group", "pids.max", "cgroup.procs")
    found = cgroups.Cgroups(dict.fromkeys(cgroups.CONTROLLERS, ("cgroup-v2", str(parent))))
    assert found.folders() == [str(parent)]
    for name in names:
        (parent / "7-1" / name).touch()
    (parent / "7-1").rename(tmp_path / "made")
    monkeypatch.setattr(os, "mkdir", (tmp_path / "made").rename)
    groups = found.create("7-1", cgroups.Limits(500, 2000, 1 << 20, 33))
    assert groups == [str(parent / "7-1")]
    values = {name: (parent / "7-1" / name).read_text() for name in names}
    assert (
        values["cpu.max"] == "200000 100000"
        and values["memory.max"] == "1048576"
        and values["pids.max"] == "33"
    )
    assert values["cpu.weight"] == "20" and values["memory.oom.group"] == "1"


def test_a_group_of_a_container_or_of_both_versions_is_found(tmp_path: Path) -> None:
    (tmp_path / "memory" / "inner").mkdir(parents=True)
    (tmp_path / "unified" / "inner").mkdir(parents=True)
    (tmp_path / "unified" / "inner" / "cgroup.controllers").write_text("cpu pids\n")
    proc = tmp_path / "proc"
    proc.mkdir()
    (proc / "cgroup").write_text("4:memory:/box/inner\n1:name=systemd:/\n0::/inner\n")
    (proc / "mountinfo").write_text(
        f"30 25 0:26 /box {tmp_path}/memory rw - cgroup cgroup rw,memory\n"
        f"31 25 0:27 / {tmp_path}/unified rw - cgroup2 cgroup2 rw\n"
        "32 25 0:28 / / rw - ext4 /dev/vda rw\n"
    )
    assert cgroups.own_groups(str(proc)) == {
        "memory": ("cgroup-v1", f"{tmp_path}/memory/inner"),
        "cpu": ("cgroup-v2", f"{tmp_path}/unified/inner"),
        "pids": ("cgroup-v2", f"{tmp_path}/unified/inner"),
    }


def test_what_cannot_be_enforced_is_not_claimed() -> None:
    claims = executor.claims(executor.isolation(sandbox.Sandbox("none"), cgroups.Cgroups()))
    assert claims["cpu"] == "none" and claims["filesystem"] == "none" and claims["memory"] == "address space"
    assert claims["pids"] == ("none" if os.geteuid() == 0 else "rlimit (user)")


def test_a_container_is_run_with_the_same_limits(tmp_path: Path) -> None:
    # A script stands for the container CLI: it shows how it was called, which is all that the agent does.
    cli = tmp_path / "docker"
    cli.write_text(
        '#!/bin/sh\nprintf "%s\\n" "$@"\necho "ENV TOKEN=$TOKEN DOCKER_HOST=$DOCKER_HOST"\nexit 6\n'
    )
    cli.chmod(0o755)
    assignment = Assignment(
        placement=5, token=2, job=1, attempt=1, name="n", tenant="t", command=["train", "--fast"],
        image="registry.example.org/team/image:1.2", env={"A": "b", "DOCKER_HOST": "evil"}, secrets={"TOKEN": "hidden"},
        cpu_limit_millicores=1500, memory_bytes=1 << 28, pids=99, gpus=[GpuShare(2, 1000)],
    )  # fmt: skip
    folder = TaskFolder(str(tmp_path), 5, 2)
    folder.create(assignment, (0o700, 0o700), None)
    plan = Runtime("docker", str(cli)).launch(folder, assignment, "rmportal-5-2")
    assert not any("hidden" in argument for argument in plan.argv)
    launch.wait(launch.start(plan, folder.log), 10.0)
    status = folder.exit_status()
    assert status is not None and status[0] == 6
    log = Path(folder.log).read_text()
    for expected in (
        "run\n--rm\n--name\nrmportal-5-2\n", f"--memory\n{1 << 28}\n", "--cpus\n1.500\n", "--pids-limit\n99\n",
        "--cap-drop\nALL\n", '--gpus\n"device=2"\n', "--env\nTOKEN\n", "--env\nDOCKER_HOST=evil\n", "--env\nA=b\n",
        f"--volume\n{folder.work}:/task/work\n", "image:1.2\ntrain\n--fast\nENV TOKEN=hidden DOCKER_HOST=\n",
    ):  # fmt: skip
        assert expected in log
    with pytest.raises(Refused, match="image"):
        Runtime("docker", str(cli)).launch(
            folder, Assignment(5, 2, 1, 1, "n", "t", ["x"], image="--privileged"), "c"
        )


def test_joining(tmp_path: Path) -> None:
    portal = TestPortal()
    portal.start()
    try:
        with pytest.raises(JoinRefused, match="used or expired"):
            join(portal.url, "wrong", "node", str(tmp_path / "data"))
        assert not (tmp_path / "data" / "credential.json").exists()
        assert join(portal.url, "one-time-token", "node", str(tmp_path / "data")) == 7
    finally:
        portal.stop()
    path = tmp_path / "data" / "credential.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert CREDENTIAL in path.read_text()


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    with pytest.raises(AgentError, match="no credential; run `rmctl agent join`"):
        run(None, str(tmp_path / "empty"))
    with pytest.raises(AgentError, match="url: 'ftp://x' is not a portal's address"):
        join("ftp://x", "t", "n", str(tmp_path / "data"))
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with pytest.raises(AgentError, match="cannot be reached"):
            join(f"http://127.0.0.1:{closed.getsockname()[1]}", "t", "n", str(tmp_path / "data"))
    (tmp_path / "file").touch()
    with pytest.raises(AgentError, match="cannot be used"):
        run(None, str(tmp_path / "file" / "data"))
