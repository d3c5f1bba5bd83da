"""Cells: what a task finds around it, and what it does not; and the process that makes them may end."""

import io
import os
import signal
import tarfile

import psutil  # type: ignore[import-untyped]
import pytest

from rmctl.agent.protocol import Stop
from tests.agent.conftest import Agent
from tests.agent.test_recovery import shell_of, wait_gone


@pytest.fixture(autouse=True)
def cells(agent: Agent) -> None:
    if os.geteuid() != 0 or agent.portal.hellos[-1].inventory.isolation.filesystem != "bubblewrap":
        pytest.skip("only a root agent with bubblewrap makes cells")


def spawner(agent: Agent) -> int:
    """The process that makes cells: bubblewrap is the agent's child, and it is bubblewrap's."""
    assert agent.process is not None
    [bubblewrap] = psutil.Process(agent.process.pid).children()
    [found] = bubblewrap.children()
    return int(found.pid)


def test_nothing_is_inherited_but_the_output(agent: Agent) -> None:
    placement = agent.run("ls /proc/self/fd | wc -l; readlink /proc/self/fd/0")
    # Its standard three, and the one that reads the folder.
    assert agent.portal.log(placement) == b"4\n/dev/null\n"


def test_a_task_has_no_rights(agent: Agent) -> None:
    fields = "Uid|Gid|Groups|CapPrm|CapEff|CapAmb|NoNewPrivs"
    placement = agent.run(f"grep -E '^({fields})' /proc/self/status | tr -s '\\t ' ' '")
    zero = "0" * 16
    expected = "Uid: 65534 65534 65534 65534\nGid: 65534 65534 65534 65534\nGroups: \n"
    expected += f"CapPrm: {zero}\nCapEff: {zero}\nCapAmb: {zero}\nNoNewPrivs: 1\n"
    assert agent.portal.log(placement).decode() == expected


def test_the_first_process_can_be_neither_read_nor_ended(agent: Agent) -> None:
    script = (
        "for f in environ mem maps root fd; do cat /proc/1/$f >/dev/null 2>&1 && echo read $f; "
        "ls /proc/1/$f/ >/dev/null 2>&1 && echo listed $f; done; kill -9 1; kill -STOP 1; kill -TERM 1; echo here"
    )
    assert agent.portal.log(agent.run(script)) == b"here\n"


def test_the_folders_of_others_are_not_even_mounted(agent: Agent) -> None:
    neighbour = agent.run("sleep 30")
    agent.portal.started(neighbour)
    placement = agent.run("ls /tasks 2>&1; grep -c ' /tasks ' /proc/self/mountinfo; ls /task")
    log = agent.portal.log(placement)
    assert log.replace(b"lib\n", b"") == b"0\ndata\ninputs.json\nout\nwork\n"
    agent.portal.push(stop=[Stop(neighbour, 1, 0.0)])
    agent.portal.ended(neighbour)


def test_a_terminal_and_shared_memory_of_its_own(agent: Agent) -> None:
    script = "import os, pty; print(os.ttyname(pty.openpty()[1])); open('/dev/shm/x', 'w')\n"
    script += "print(os.listdir('/dev/shm'))"
    for _ in range(2):
        assert agent.portal.log(agent.run("", command=["python", "-c", script])) == b"/dev/pts/0\n['x']\n"


def test_a_command_that_is_not_there(agent: Agent) -> None:
    missing = agent.run("", command=["no-such-program"])
    assert agent.portal.ended(missing).exit_code == 127
    assert agent.portal.log(missing) == b"no-such-program: No such file or directory\n"
    folder = agent.run("", command=["/usr"])
    assert agent.portal.ended(folder).exit_code == 126
    assert agent.portal.log(folder) == b"/usr: Permission denied\n"


def test_a_script_that_names_no_interpreter(agent: Agent) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        info = tarfile.TarInfo("run")
        info.size, info.mode = 10, 0o755
        tar.addfile(info, io.BytesIO(b'echo "$1"\n'))
    digest = agent.portal.add_bundle(buffer.getvalue())
    placement = agent.run("", command=["./run", "plain"], bundle=digest)
    assert agent.portal.log(placement) == b"plain\n"


def test_more_than_a_process_can_be_given_is_refused(agent: Agent) -> None:
    one = agent.portal.ended(agent.run("true", env={"LARGE": "x" * 200_000}))
    assert one.reason == "refused" and "longer than the system allows" in one.detail
    many = {f"VARIABLE_{index}": "x" * 100_000 for index in range(30)}
    all_of_them = agent.portal.ended(agent.run("true", env=many))
    assert all_of_them.reason == "refused" and "longer than the system allows" in all_of_them.detail


def test_what_makes_cells_may_end(agent: Agent) -> None:
    running = agent.run("while [ ! -e go ]; do sleep 0.05; done; echo survived; exit 3")
    agent.portal.started(running)
    shell_of(agent, running)
    maker = spawner(agent)
    os.kill(maker, signal.SIGKILL)
    wait_gone(maker)
    assert agent.portal.ended(agent.run("exit 4")).exit_code == 4
    (agent.folder(running) / "work" / "go").touch()
    assert agent.portal.ended(running).exit_code == 3
    assert agent.portal.log(running) == b"survived\n"
