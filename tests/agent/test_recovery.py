"""What survives: the agent's own death, the portal's absence, a revoked credential, a full disk."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from rmctl.agent import process
from rmctl.agent.journal import State, TaskFolder
from tests.agent.conftest import PROJECT, RUN, Agent, make_agent


def shell_of(agent: Agent, placement: int) -> int:
    # The kernel lets the agent go on a moment before the new program's command line can be read.
    find = process.find_shell
    pid: int = agent.portal.wait_for(
        lambda: find(str(agent.folder(placement))), f"the process of {placement}"
    )
    return pid


def wait_gone(pid: int) -> None:
    deadline = time.monotonic() + 10
    while process.start_ticks(pid) is not None:
        assert time.monotonic() < deadline, f"process {pid} is still there"
        time.sleep(0.02)


def test_a_killed_agent_adopts_its_tasks(own_agent: Agent) -> None:
    agent, portal = own_agent, own_agent.portal
    running = agent.run("echo one; while [ ! -e go ]; do sleep 0.05; done; echo two; echo 42 > $RM_RESULT")
    finishing = agent.run("echo early; sleep 0.4; echo late; exit 4")
    vanishing = agent.run("sleep 60")
    unrecorded = agent.run("while [ ! -e go ]; do sleep 0.05; done; echo recovered")
    rebooted = agent.run("sleep 60")
    for placement in (running, finishing, vanishing, unrecorded, rebooted):
        portal.started(placement)
    portal.wait_for(lambda: portal.logs.get((running, 1)) == b"one\n", "the first line")
    shells = {placement: shell_of(agent, placement) for placement in (finishing, vanishing, rebooted)}

    agent.signal(signal.SIGKILL)
    wait_gone(shells[finishing])
    for placement in (vanishing, rebooted):
        process.kill(shells[placement], [])
        os.kill(shells[placement], signal.SIGKILL)
        wait_gone(shells[placement])
    os.unlink(agent.folder(unrecorded) / "state")
    (agent.folder(vanishing) / "exit").unlink(missing_ok=True)
    (agent.folder(rebooted) / "exit").write_text("0\n")
    folder = TaskFolder(str(agent.data / "tasks"), rebooted, 1)
    state = folder.state()
    assert isinstance(state, State)
    folder.write_state(msgspec.structs.replace(state, boot_id="another boot"))
    (agent.data / "tasks" / "900-3").mkdir()
    portal.reports.clear()
    agent.start()

    held = {(item.placement, item.token): item.state for item in portal.hellos[-1].held}
    assert held[running, 1] == held[unrecorded, 1] == "running"
    assert held[finishing, 1] == held[vanishing, 1] == held[rebooted, 1] == held[900, 3] == "ended"
    assert (portal.ended(finishing).reason, portal.ended(finishing).exit_code) == ("exited", 4)
    assert portal.log(finishing) == b"early\nlate\n"
    assert portal.ended(vanishing).reason == "lost"
    assert portal.ended(rebooted).reason == "lost" and "restarted" in portal.ended(rebooted).detail
    assert portal.ended(900).reason == "lost" and portal.ended(900).token == 3
    (agent.folder(unrecorded) / "work" / "go").touch()
    assert portal.ended(unrecorded).exit_code == 0 and portal.log(unrecorded) == b"recovered\n"
    assert portal.report(running, "ended") is None
    (agent.folder(running) / "work" / "go").touch()
    ended = portal.ended(running)
    assert (ended.reason, ended.exit_code, ended.result) == ("exited", 0, 42)
    assert portal.log(running) == b"one\ntwo\n"
    for placement in (running, finishing, vanishing, unrecorded, rebooted, 900):
        agent.wait_forgotten(placement)
    assert not list((agent.data / "tasks").iterdir())


def test_time_goes_on_while_the_agent_is_dead(own_agent: Agent) -> None:
    agent, portal = own_agent, own_agent.portal
    placement = agent.run("sleep 60", time_limit_seconds=0.8, grace_seconds=0.2)
    started = portal.started(placement)
    agent.signal(signal.SIGKILL)
    time.sleep(max(0.0, started.at + 0.8 - time.time()))  # the time itself is what is tested
    agent.start()
    ended = portal.ended(placement, 3.0)
    assert ended.reason == "time_limit"
    assert ended.usage and ended.usage.wall_seconds >= 0.8


def test_tasks_go_on_while_the_portal_is_away(own_agent: Agent) -> None:
    agent, portal = own_agent, own_agent.portal
    with_artifact = agent.run(
        "sleep 0.3; echo data > $RM_ARTIFACTS/kept; for i in $(seq 5); do echo $i; sleep 0.1; done"
    )
    quick = agent.run("sleep 0.6; exit 9")
    portal.started(with_artifact)
    portal.started(quick)
    shell = shell_of(agent, with_artifact)
    portal.stop()
    wait_gone(shell)
    assert portal.report(quick, "ended") is None
    portal.start()
    assert portal.ended(quick).exit_code == 9
    assert portal.ended(with_artifact).reason == "exited"
    assert portal.log(with_artifact) == b"1\n2\n3\n4\n5\n"
    assert portal.artifacts[with_artifact, "kept"] == b"data\n"


def test_what_an_agent_that_stood_still_had_not_read_is_not_started(own_agent: Agent) -> None:
    """Its leases have run out meanwhile, and others may have the jobs by now."""
    agent, portal = own_agent, own_agent.portal
    portal.lease_seconds = 1.0
    agent.signal(signal.SIGKILL)
    agent.start()
    assert agent.process is not None
    beats = len(portal.beats)
    portal.wait_for(lambda: len(portal.beats) > beats, "a beat")
    agent.process.send_signal(signal.SIGSTOP)
    stale = agent.run("true")
    time.sleep(1.5)  # the time itself is what is tested
    greetings = len(portal.hellos)
    agent.process.send_signal(signal.SIGCONT)
    portal.wait_for(lambda: len(portal.hellos) > greetings, "another greeting")
    assert (stale, 1) not in {(item.placement, item.token) for item in portal.hellos[-1].held}
    fresh = agent.run("true")
    assert portal.ended(fresh).exit_code == 0
    assert portal.report(stale, "started") is None


def test_what_is_not_acknowledged_is_sent_again(own_agent: Agent) -> None:
    agent, portal = own_agent, own_agent.portal
    portal.acknowledging = False
    placement = agent.run("echo text; echo '[1]' > $RM_RESULT")
    portal.wait_for(lambda: any(frame.items for frame in portal.frames), "the first report")
    assert agent.folder(placement).exists()
    portal.stop()
    portal.logs.clear()
    portal.acknowledging = True
    portal.start()
    ended = portal.ended(placement)
    assert ended.result == [1] and portal.log(placement) == b"text\n"
    agent.wait_forgotten(placement)
    assert not agent.folder(placement).exists()


def test_sigterm_leaves_the_tasks_running(own_agent: Agent) -> None:
    agent, portal = own_agent, own_agent.portal
    placement = agent.run("echo before; while [ ! -e go ]; do sleep 0.05; done; echo after")
    portal.started(placement)
    shell = shell_of(agent, placement)
    assert agent.signal(signal.SIGTERM) == 0
    assert process.start_ticks(shell) is not None
    (agent.folder(placement) / "work" / "go").touch()
    wait_gone(shell)
    agent.start()
    assert portal.ended(placement).exit_code == 0
    assert portal.log(placement) == b"before\nafter\n"


def test_a_revoked_credential_ends_tasks_and_agent(own_agent: Agent) -> None:
    agent, portal = own_agent, own_agent.portal
    placement = agent.run("sleep 60")
    portal.started(placement)
    shell = shell_of(agent, placement)
    portal.stop()
    portal.revoked = True
    portal.start()
    assert agent.process is not None
    assert agent.process.wait(10) == 3
    assert process.start_ticks(shell) is None
    assert not list((agent.data / "tasks").iterdir())
    assert b"join again" in (agent.data / "agent.log").read_bytes()


def test_a_refused_token_ends_its_process(own_agent: Agent) -> None:
    agent, portal = own_agent, own_agent.portal
    assignment = agent.assignment("sleep 60", grace_seconds=0.2)
    portal.refused.add((assignment.placement, assignment.token))
    portal.push(assignment)
    portal.started(assignment.placement)
    agent.wait_forgotten(assignment.placement)
    assert process.find_shell(str(agent.folder(assignment.placement))) is None
    assert portal.report(assignment.placement, "ended") is None
    agent.wait_folder_gone(assignment.placement)


def test_a_second_agent_on_the_same_folder_is_refused(own_agent: Agent) -> None:
    second = subprocess.run(
        [sys.executable, "-c", RUN, str(own_agent.data)], env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    assert second.returncode == 1
    assert "another agent is using" in second.stderr


@pytest.fixture
def small_disk_agent() -> Iterator[Agent]:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    folder = tempfile.mkdtemp(prefix="rmportal-agent-")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m,mode=711", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.decode().strip()}")
    agent = make_agent(Path(folder))
    yield agent
    agent.close()
    subprocess.run(["umount", "--lazy", folder], check=True)
    shutil.rmtree(folder)


def test_a_full_disk_refuses_and_recovers(small_disk_agent: Agent) -> None:
    agent = small_disk_agent
    filler = agent.data / "filler"
    with open(filler, "wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        while True:
            file.write(bytes(4096))
    ended = agent.portal.ended(agent.run("true", inputs={"x": "y" * 50_000}))
    assert ended.reason == "refused"
    assert "disk is full" in ended.detail and str(agent.data) in ended.detail
    filler.unlink()
    assert agent.portal.ended(agent.run("echo fine")).exit_code == 0
    agent.portal.wait_for(lambda: not list((agent.data / "tasks").iterdir()), "the journal to be empty")
