"""Checkpoints that tasks tell of, with a real agent and real processes; the last ones are attacks."""

import signal
import time

import pytest

from rmctl.agent.protocol import Checkpoint, Stop
from tests.agent.conftest import Agent

WAIT = "while [ ! -e go ]; do sleep 0.05; done"


def told(agent: Agent, placement: int, after: int = 0) -> Checkpoint:
    """The checkpoint of a task, as the first beat that has one tells it."""

    def found() -> Checkpoint | None:
        items = (item for beat in agent.portal.beats[after:] for item in beat.checkpoints)
        return next((item for item in items if item.placement == placement), None)

    checkpoint: Checkpoint = agent.portal.wait_for(found, f"a checkpoint of {placement}")
    return checkpoint


@pytest.mark.parametrize(
    "say",
    [
        'touch "$RM_CHECKPOINT"',
        'echo "step 7" > "$RM_CHECKPOINT"',
        "python -m rmctl checkpoint",
        "python -c 'import rmctl; rmctl.checkpoint()'",
    ],
)
def test_a_task_says_that_it_has_written_a_checkpoint(agent: Agent, say: str) -> None:
    placement = agent.run(f"touch -d '1 hour ago' \"$RM_CHECKPOINT\"; {say} && {WAIT}")
    checkpoint = told(agent, placement, len(agent.portal.beats))
    started = agent.portal.started(placement).at
    assert checkpoint.token == 1
    # The kernel's clock for files moves in steps of some milliseconds.
    agent.portal.wait_for(
        lambda: started - 0.1 <= told(agent, placement, len(agent.portal.beats) - 1).at <= time.time(),
        "the time at which it was said",
    )
    (agent.folder(placement) / "work" / "go").touch()
    assert agent.portal.ended(placement).exit_code == 0


def test_a_newer_one_takes_the_place_of_the_older_and_the_end_tells_it_too(agent: Agent) -> None:
    placement = agent.run(f'touch -d "1 hour ago" "$RM_CHECKPOINT"; {WAIT}; touch "$RM_CHECKPOINT"')
    first = told(agent, placement)
    assert 3500 < time.time() - first.at < 3700
    (agent.folder(placement) / "work" / "go").touch()
    last = agent.portal.ended(placement).checkpoint_at
    assert last is not None and time.time() - last < 60


def test_a_task_that_says_nothing_has_none(agent: Agent) -> None:
    placement = agent.run(WAIT)
    agent.portal.started(placement)
    seen = len(agent.portal.beats)
    agent.portal.wait_for(lambda: len(agent.portal.beats) > seen + 1, "two beats")
    assert not any(item.placement == placement for beat in agent.portal.beats for item in beat.checkpoints)
    (agent.folder(placement) / "work" / "go").touch()
    assert agent.portal.ended(placement).checkpoint_at is None


def test_what_is_saved_after_the_notice_is_told_with_the_end(agent: Agent) -> None:
    script = """trap 'echo saved; touch "$RM_CHECKPOINT"; exit 0' TERM; echo ready; while true; do sleep 0.05; done"""
    placement = agent.run(script)
    agent.portal.wait_for(lambda: agent.portal.logs.get((placement, 1)) == b"ready\n", "its trap")
    asked = time.time()
    agent.portal.push(stop=[Stop(placement, 1, 10.0, "preempted")])
    ended = agent.portal.ended(placement)
    assert (ended.reason, ended.exit_code) == ("stopped", 0)
    assert ended.checkpoint_at is not None and asked - 0.1 <= ended.checkpoint_at <= ended.at
    assert b"saved\n" in agent.portal.log(placement)


def test_a_restarted_agent_tells_it_again(own_agent: Agent) -> None:
    placement = own_agent.run(f'touch "$RM_CHECKPOINT"; {WAIT}')
    before = told(own_agent, placement)
    own_agent.signal(signal.SIGKILL)
    seen = len(own_agent.portal.beats)
    own_agent.start()
    assert told(own_agent, placement, seen) == before
    (own_agent.folder(placement) / "work" / "go").touch()
    assert own_agent.portal.ended(placement).checkpoint_at == before.at


def test_the_next_task_in_a_folder_does_not_inherit_it(own_agent: Agent) -> None:
    """Folders are used again; the one of a task that left nothing else is spare."""
    script = "stat -c %i $(dirname $RM_CHECKPOINT); ls $RM_CHECKPOINT"
    first = own_agent.run(f"touch $RM_CHECKPOINT; {script}")
    assert own_agent.portal.ended(first).checkpoint_at is not None
    inode = own_agent.portal.log(first).splitlines()[0]
    own_agent.wait_forgotten(first)
    second = own_agent.run(script)
    assert own_agent.portal.ended(second).checkpoint_at is None
    assert b"No such file" in own_agent.portal.log(second)
    if own_agent.portal.hellos[-1].inventory.isolation.filesystem == "bubblewrap":
        assert own_agent.portal.log(second).splitlines()[0] == inode


def test_a_later_attempt_knows_that_it_is_one(agent: Agent) -> None:
    placement = agent.run("echo $RM_ATTEMPT", token=3)
    assert agent.portal.log(placement, 3) == b"3\n"


# Attacks: what lies at RM_CHECKPOINT is neither followed nor read.


@pytest.mark.parametrize(
    "put",
    [
        'ln -s /etc/hostname "$RM_CHECKPOINT"',
        'ln -s /proc/self/mem "$RM_CHECKPOINT"',
        'ln -s "$RM_CHECKPOINT" "$RM_CHECKPOINT"',
        'mkdir -p "$RM_CHECKPOINT/below"',
        'mkfifo "$RM_CHECKPOINT"',
    ],
)
def test_what_is_no_plain_file_says_nothing(agent: Agent, put: str) -> None:
    placement = agent.run(f"{put} || exit 9; touch ready; {WAIT}")
    ready = agent.folder(placement) / "work" / "ready"
    agent.portal.wait_for(ready.exists, "what it put there")
    seen = len(agent.portal.beats)
    agent.portal.wait_for(lambda: len(agent.portal.beats) > seen + 1, "two beats")
    assert not any(item.placement == placement for beat in agent.portal.beats for item in beat.checkpoints)
    (agent.folder(placement) / "work" / "go").touch()
    ended = agent.portal.ended(placement)
    assert (ended.exit_code, ended.checkpoint_at) == (0, None)
    agent.wait_folder_gone(placement)


def test_a_huge_file_is_not_read(agent: Agent) -> None:
    placement = agent.run('truncate -s 250M "$RM_CHECKPOINT"; ' + WAIT)
    assert time.time() - told(agent, placement).at < 60
    (agent.folder(placement) / "work" / "go").touch()
    assert agent.portal.ended(placement).checkpoint_at is not None


def test_a_time_in_the_future_counts_from_when_it_was_set(agent: Agent) -> None:
    placement = agent.run(f'touch -d "2100-01-01" "$RM_CHECKPOINT"; {WAIT}')
    first = told(agent, placement)
    seen = len(agent.portal.beats)
    assert first.at <= time.time()
    assert told(agent, placement, seen) == first
    (agent.folder(placement) / "work" / "go").touch()
    assert agent.portal.ended(placement).checkpoint_at == first.at
