"""The door of a task to its state, with a real agent and real processes: what comes through, and what does not."""

import asyncio
import json
import os
import signal
import socket
import stat
from pathlib import Path
from typing import Any

import pytest

from rmctl.agent import doors
from rmctl.agent.doors import Doors, listen
from rmctl.agent.journal import TaskFolder
from rmctl.agent.portal import Portal
from rmctl.agent.protocol import Assignment
from rmctl.agent.task import Task
from tests.agent.conftest import Agent

ASKED = {"RM_STATE": "1"}
PYTHON = "python - <<'END'\nfrom rmctl import run_state, state\n{}\nEND"
# Says in Python what the task sees of a door.
RAW = """python - <<'END'
import json, os, socket
def ask(line, path=os.environ["RM_STATE"]):
    with socket.socket(socket.AF_UNIX) as door:
        door.connect(path)
        try:
            door.sendall(line)
        except BrokenPipeError:
            pass
        return json.loads(door.makefile("rb").readline() or b"null")
{}
END"""


def test_a_task_reads_and_writes_with_the_agents_knowledge_of_who_it_is(agent: Agent) -> None:
    script = PYTHON.format("print(state.get('n', 5)); state.set('n', {'é': [1]}); print(run_state.get('n'))")
    placement = agent.run(script, env=ASKED, token=3)
    assert agent.portal.log(placement, token=3).decode().split("\n")[:2] == ["5", "{'é': [1]}"]
    assert agent.portal.ended(placement).exit_code == 0
    asked = [(query, body) for who, query, body in agent.portal.asked if who == placement]
    assert [query for query, _ in asked] == ["token=3"] * 3
    assert [(body["scope"], body["operation"]) for _, body in asked] == [
        ("workflow", "get"), ("workflow", "set"), ("run", "get")
    ]  # fmt: skip
    assert asked[1][1]["value"] == {"é": [1]} and asked[1][1]["request"]


def test_a_script_has_it_too(agent: Agent) -> None:
    script = "python -m rmctl.sdk.state set s '{\"a\": 1}' && python -m rmctl.sdk.state get s"
    placement = agent.run(script, env=ASKED)
    assert json.loads(agent.portal.log(placement)) == {"a": 1}


def test_who_has_not_asked_has_no_door_and_is_told_how_to(agent: Agent) -> None:
    placement = agent.run(PYTHON.format("state.get('n')"))
    assert b"give it state=True" in agent.portal.log(placement)
    assert agent.portal.ended(placement).exit_code == 1
    other = agent.run('ls -A "$(dirname "$RM_RESULT")"; echo "[$RM_STATE]"')
    assert agent.portal.log(other).decode().split() == ["artifacts", "[]"]


def test_what_a_task_says_of_itself_does_not_count(agent: Agent) -> None:
    lines = [
        """b'{"scope": "workflow", "operation": "get", "key": "n", "placement": 1, "token": 9}\\n'""",
        """b'{"scope": "tenant", "operation": "get", "key": "n"}\\n'""",
        """b'{"scope": "workflow", "operation": "get", "key": 7}\\n'""",
        """b'nonsense\\n'""",
        """b'[' * 100000 + b'\\n'""",
        """b'x' * 1000000""",
    ]
    placement = agent.run(RAW.format("".join(f"print(ask({line})['code'])\n" for line in lines)), env=ASKED)
    assert agent.portal.log(placement).decode().split() == ["invalid"] * 5 + ["too_large"]
    assert not [asked for asked in agent.portal.asked if asked[0] == placement]


def test_other_tasks_doors_are_out_of_reach(agent: Agent, needs: Any) -> None:
    needs(filesystem="bubblewrap")
    first = agent.run("while [ ! -e go ]; do sleep 0.05; done", env=ASKED)
    agent.portal.started(first)
    found = agent.folder(first) / "out" / "state.sock"
    agent.portal.wait_for(found.exists, "the door")
    script = f"ls {found} 2>/dev/null; find /task /tasks /tmp /run /var {agent.data} -name state.sock 2>/dev/null"
    second = agent.run(script, env=ASKED)
    assert agent.portal.log(second) == b"/task/out/state.sock\n"
    (agent.folder(first) / "work" / "go").touch()
    agent.portal.ended(first)


def test_a_refusal_reaches_the_task_in_words(agent: Agent) -> None:
    agent.portal.refuse_state = (409, b'{"detail": "Placement 1 is not live with token 1."}')
    try:
        placement = agent.run(PYTHON.format("state.set('n', 1)"), env=ASKED)
        assert b"n: Placement 1 is not live with token 1." in agent.portal.log(placement)
    finally:
        agent.portal.refuse_state = None


def test_an_agent_that_is_killed_opens_the_door_again(own_agent: Agent) -> None:
    agent = own_agent
    wait = "import time, os\nopen('there', 'w').close()\nwhile not os.path.exists('go'): time.sleep(0.05)\n"
    placement = agent.run(PYTHON.format(wait + "state.set('n', 1)\nprint('done')"), env=ASKED)
    agent.portal.started(placement)
    work = agent.folder(placement) / "work"
    agent.portal.wait_for((work / "there").exists, "the task to run")
    agent.signal(signal.SIGKILL)
    # It asks while nobody is behind the door, and waits.
    (work / "go").touch()
    agent.start()
    assert agent.portal.log(placement) == b"done\n"
    assert [body["key"] for who, _, body in agent.portal.asked if who == placement] == ["n"]


# The parts


def made(tmp_path: Path, **changes: Any) -> Task:
    values: dict[str, Any] = {"placement": 1, "token": 1, "job": 1, "attempt": 1, "name": "t", "tenant": "v"}
    assignment = Assignment(**values, command=["true"], env=ASKED, **changes)
    (tmp_path / "1-1" / "out").mkdir(parents=True)
    return Task(assignment, TaskFolder(str(tmp_path), 1, 1))


def test_what_lies_in_its_place_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("x")
    victim.chmod(0o600)
    folder = tmp_path / ("deep" * 40)
    folder.mkdir()
    (folder / "state.sock").symlink_to(victim)
    listen(str(folder)).close()
    assert stat.S_IMODE(victim.stat().st_mode) == 0o600 and victim.read_text() == "x"
    assert stat.S_ISSOCK((folder / "state.sock").lstat().st_mode)
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(NotADirectoryError):
        listen(str(tmp_path / "link"))
    (folder / "state.sock").unlink()
    (folder / "state.sock").mkdir()
    with pytest.raises(IsADirectoryError):
        listen(str(folder))


class Slow(Portal):
    """Answers without a portal, and counts."""

    calls = 0

    def ask_state(self, placement: int, token: int, body: bytes) -> bytes:
        object.__setattr__(self, "calls", self.calls + 1)
        return b"{}"


def test_a_task_asks_only_so_often_and_on_so_many_connections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doors, "BURST", 5.0)
    monkeypatch.setattr(doors, "PER_SECOND", 100.0)
    task, portal = made(tmp_path), Slow("http://nowhere")
    line = b'{"scope": "run", "operation": "list"}\n'

    async def check() -> None:
        opened = Doors(portal)
        opened.open(task)
        path = f"/proc/self/fd/{os.open(task.folder.out, os.O_PATH)}/state.sock"
        ends = [await asyncio.open_unix_connection(path) for _ in range(doors.CONNECTIONS + 1)]
        began = asyncio.get_running_loop().time()
        for _, writer in ends[:-1]:
            writer.write(line * 2)
        answers = [await reader.readline() for reader, _ in ends[:-1] for _ in range(2)]
        assert answers == [b'{"answer": {}}\n'] * (2 * doors.CONNECTIONS)
        # 16 requests of which 5 are free: the other 11 take a hundredth of a second each.
        assert asyncio.get_running_loop().time() - began > 0.1
        assert b"at most 8 connections" in await ends[-1][0].readline()
        opened.close(task)
        assert await ends[0][0].readline() == b""
        with pytest.raises(FileNotFoundError):
            await asyncio.open_unix_connection(path)
        for _, writer in ends:
            writer.close()

    asyncio.run(check())
    assert portal.calls == 2 * doors.CONNECTIONS


def test_a_door_that_is_closed_before_it_is_served(tmp_path: Path) -> None:
    task = made(tmp_path)

    async def check() -> None:
        opened = Doors(Slow("http://nowhere"))
        opened.open(task)
        opened.close(task)
        await asyncio.sleep(0)

    asyncio.run(check())
    with socket.socket(socket.AF_UNIX) as door, pytest.raises(FileNotFoundError):
        door.connect(f"{task.folder.out}/state.sock")
