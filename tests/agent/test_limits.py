"""Attacks: what a hostile or broken task must not be able to do to the node, the agent or its neighbours."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from rmctl.agent import cgroups
from rmctl.agent.protocol import Stop
from tests.agent.conftest import Agent

MEBIBYTE = 1024 * 1024

FORKS = """
import os, time
count = 0
try:
    while count < 500:
        if os.fork() == 0:
            time.sleep(60)
            os._exit(0)
        count += 1
except OSError:
    print(count, flush=True)
    raise SystemExit(1)
"""

Needs = Callable[..., None]


def python(source: str, **changes: object) -> dict[str, object]:
    return {"command": ["python", "-c", source], **changes}


def test_more_processes_than_allowed_are_refused(agent: Agent, needs: Needs) -> None:
    needs(pids="cgroup")
    placement = agent.run("", **python(FORKS, pids=24))
    ended = agent.portal.ended(placement)
    assert (ended.reason, ended.exit_code) == ("pids_limit", 1)
    assert 10 < int(agent.portal.log(placement)) < 24


def test_a_fork_bomb_is_contained_and_removed(agent: Agent, needs: Needs) -> None:
    needs(pids="cgroup")
    placement = agent.run(
        "bomb() { bomb | bomb & }; bomb; sleep 50", pids=32, time_limit_seconds=1.0, grace_seconds=0.2
    )
    agent.portal.started(placement)
    groups = task_groups(agent, placement)
    agent.portal.wait_for(lambda: len(cgroups.processes(groups)) > 10, "the bomb to grow")
    assert len(cgroups.processes(groups)) <= 32
    assert agent.portal.ended(agent.run("echo fine")).exit_code == 0
    assert agent.portal.ended(placement).reason == "time_limit"
    agent.wait_forgotten(placement)
    assert not cgroups.processes(groups)


def test_a_memory_hog_is_ended_and_named(agent: Agent, needs: Needs) -> None:
    needs(memory="cgroup")
    placement = agent.run(
        "", **python("x = bytearray(400_000_000); print(len(x))", memory_bytes=64 * MEBIBYTE)
    )
    ended = agent.portal.ended(placement)
    assert (ended.reason, ended.signal) == ("memory_limit", 9)
    assert str(64 * MEBIBYTE) in ended.detail
    assert agent.portal.log(placement) == b""
    assert ended.usage and 0 < ended.usage.memory_peak_bytes <= 64 * MEBIBYTE


def test_shared_memory_counts_as_memory(agent: Agent, needs: Needs) -> None:
    needs(memory="cgroup", filesystem="bubblewrap")
    placement = agent.run("head -c 300000000 /dev/zero > /dev/shm/x", memory_bytes=32 * MEBIBYTE)
    ended = agent.portal.ended(placement)
    assert ended.exit_code != 0 and ended.reason in ("memory_limit", "exited")


def test_cpu_is_limited(agent: Agent, needs: Needs) -> None:
    needs(cpu="cgroup")
    placement = agent.run(
        "",
        **python(
            "import time\nend = time.time() + 1\nwhile time.time() < end: pass", cpu_limit_millicores=200
        ),
    )
    ended = agent.portal.ended(placement)
    assert ended.usage is not None and ended.usage.wall_seconds > 1.0
    assert 0.1 < ended.usage.cpu_seconds < 0.4 * ended.usage.wall_seconds


def test_one_large_file_is_stopped(agent: Agent) -> None:
    placement = agent.run("exec head -c 50000000 /dev/zero > big", storage_bytes=4 * MEBIBYTE)
    ended = agent.portal.ended(placement)
    assert ended.reason == "storage_limit" and str(4 * MEBIBYTE) in ended.detail


def test_many_files_are_measured_and_stopped(agent: Agent) -> None:
    script = "i=0; while :; do head -c 1000000 /dev/zero > $TMPDIR/f$i; i=$((i+1)); sleep 0.05; done"
    placement = agent.run(script, storage_bytes=8 * MEBIBYTE)
    ended = agent.portal.ended(placement)
    assert ended.reason == "storage_limit" and ended.usage and ended.usage.storage_bytes > 8 * MEBIBYTE


def test_no_core_is_dumped(agent: Agent) -> None:
    placement = agent.run("ulimit -c; ulimit -Hc")
    assert agent.portal.log(placement) == b"0\n0\n"


def test_neighbours_and_the_agent_cannot_be_read(agent: Agent, needs: Needs) -> None:
    if agent.portal.hellos[-1].inventory.isolation.filesystem == "none":
        pytest.skip("this machine has neither bubblewrap nor another user to run tasks as")
    victim = agent.run("echo victim-data > file; echo ready; sleep 60", secrets={"KEY": "victim-secret"})
    agent.portal.wait_for(lambda: agent.portal.logs.get((victim, 1)), "the victim to be ready")
    theirs = agent.folder(victim) / "work" / "file"
    assert theirs.read_text() == "victim-data\n"
    attacker = agent.run(
        f"cat {agent.data}/credential.json; ls -R {agent.data}; cat {theirs}; "
        "cat /proc/[0-9]*/environ; cat /etc/shadow; "
        "find / -path /usr -prune -o -path /proc -prune -o -name credential.json -print 2>/dev/null; ls -a /task/.. ",
        env={"FROM": "attacker"},
    )
    log = agent.portal.log(attacker)
    assert b"FROM=attacker" in log
    for secret in (b"victim-data", b"victim-secret", b"node-credential", b"root:*", b"AGENT_ONLY"):
        assert secret not in log
    assert b"credential.json\n" not in log.replace(b"No such file or directory", b"")
    agent.portal.push(stop=[Stop(victim, 1, 0.0)])
    agent.portal.ended(victim)


def test_neighbours_cannot_be_signalled(agent: Agent, needs: Needs) -> None:
    needs(filesystem="bubblewrap")
    victim = agent.run("echo ready; sleep 1.5; echo survived")
    agent.portal.wait_for(lambda: agent.portal.logs.get((victim, 1)), "the victim to be ready")
    pid = agent.portal.started(victim).pid
    assert agent.process is not None
    agent.portal.ended(agent.run(f"kill -9 {pid} {agent.process.pid}; kill -9 -1"))
    assert agent.portal.ended(victim).exit_code == 0
    assert agent.portal.log(victim) == b"ready\nsurvived\n"


def test_the_system_cannot_be_written(agent: Agent, needs: Needs) -> None:
    needs(filesystem="bubblewrap")
    targets = [
        "/usr/x",
        "/etc/x",
        "/x",
        "/task/x",
        "/proc/sys/kernel/core_pattern",
        "/sys/fs/cgroup/x",
        "/task/inputs.json",
    ]
    placement = agent.run(
        "for f in " + " ".join(targets) + "; do (echo x > $f) 2>/dev/null && echo wrote $f; done; true"
    )
    assert agent.portal.log(placement) == b""
    assert not os.path.exists("/etc/x")


def test_a_limit_cannot_be_left(agent: Agent, needs: Needs) -> None:
    needs(pids="cgroup", filesystem="bubblewrap")
    groups = {folder for _, folder in cgroups.own_groups().values()}
    placement = agent.run(
        "; ".join(f"echo 0 > {group}/cgroup.procs && echo left" for group in sorted(groups))
    )
    assert b"left\n" not in agent.portal.log(placement)


def test_a_log_flood_does_not_fill_the_agent(agent: Agent) -> None:
    before = resident_bytes(agent)
    placement = agent.run("yes 'a line of a task that never stops talking' | head -c 60000000")
    agent.portal.ended(placement)
    assert resident_bytes(agent) - before < 12 * MEBIBYTE
    assert len(agent.portal.log(placement)) == 60_000_000


def test_groups_are_removed(agent: Agent, needs: Needs) -> None:
    needs(pids="cgroup")
    placement = agent.run("sleep 60")
    agent.portal.started(placement)
    groups = task_groups(agent, placement)
    assert groups and all(os.path.isdir(group) for group in groups)
    agent.portal.push(stop=[Stop(placement, 1, 0.0)])
    agent.portal.ended(placement)
    agent.portal.wait_for(lambda: not any(os.path.isdir(group) for group in groups), "the groups to go")


def task_groups(agent: Agent, placement: int) -> list[str]:
    parents = {folder for _, folder in cgroups.own_groups().values()}
    return [str(path) for parent in parents for path in Path(parent).glob(f"rmportal-????????/{placement}-1")]


def resident_bytes(agent: Agent) -> int:
    assert agent.process is not None
    text = Path(f"/proc/{agent.process.pid}/smaps_rollup").read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")) * 1024
