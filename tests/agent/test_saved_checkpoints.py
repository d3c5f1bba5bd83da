"""Checkpoints that the portal keeps, with a real agent and real processes: what is sent when, and what is restored."""

import gzip
import hashlib
import io
import signal
import tarfile
import time

import pytest

from rmctl.agent.protocol import SavedFiles, Stop
from tests.agent.conftest import Agent

SAVE = 'mkdir -p "$RM_CHECKPOINT_DIR"; '
WAIT = "while [ ! -e go ]; do sleep 0.05; done"


def contents(packed: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as archive:
        return {
            member.name: archive.extractfile(member).read() for member in archive if member.isreg()  # type: ignore[union-attr]
        }


def packed(files: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with gzip.GzipFile("", "wb", fileobj=made) as zipped, tarfile.open(fileobj=zipped, mode="w|") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return made.getvalue()


def saved(agent: Agent, placement: int, count: int = 1) -> tuple[float, str, bytes]:
    """What the portal was sent so many times."""
    agent.portal.wait_for(lambda: len(agent.portal.saved.get(placement, ())) >= count, f"checkpoint {count}")
    return agent.portal.saved[placement][count - 1]


def go(agent: Agent, placement: int) -> None:
    (agent.folder(placement) / "work" / "go").touch()


def told(agent: Agent, placement: int, after: int = 0) -> list[float]:
    beats = agent.portal.beats[after:]
    return [item.at for beat in beats for item in beat.checkpoints if item.placement == placement]


def test_what_is_complete_is_sent_and_told_only_then(agent: Agent) -> None:
    agent.portal.failing_uploads = 3
    placement = agent.run(
        f'{SAVE}cd "$RM_CHECKPOINT_DIR"; mkdir deep; echo one > deep/state; printf x > weights; '
        f'touch "$RM_CHECKPOINT"; cd ~; {WAIT}'
    )
    at, _, data = saved(agent, placement)
    assert contents(data) == {"deep/state": b"one\n", "weights": b"x"} and abs(time.time() - at) < 20
    agent.portal.wait_for(lambda: told(agent, placement), "the beat that tells it")
    assert set(told(agent, placement)) == {at}
    go(agent, placement)
    assert agent.portal.ended(placement).detail == ""
    assert len(agent.portal.saved[placement]) == 1


def test_each_new_one_is_sent_and_what_is_half_written_is_not(agent: Agent) -> None:
    step = 'echo {0} > "$RM_CHECKPOINT_DIR/state"'
    placement = agent.run(
        f'{SAVE}{step.format(1)}; touch "$RM_CHECKPOINT"; while [ ! -e second ]; do sleep 0.05; done; '
        f'{step.format("half")}; touch written; {WAIT}; {step.format(2)}; touch "$RM_CHECKPOINT"; '
        f"while [ ! -e end ]; do sleep 0.05; done"
    )
    work = agent.folder(placement) / "work"
    first = saved(agent, placement)
    (work / "second").touch()
    agent.portal.wait_for((work / "written").exists, "the half of the next one")
    seen = len(agent.portal.beats)
    agent.portal.wait_for(lambda: len(agent.portal.beats) > seen + 3, "some beats")
    assert agent.portal.saved[placement] == [first]
    go(agent, placement)
    assert contents(saved(agent, placement, 2)[2]) == {"state": b"2\n"}
    (work / "end").touch()
    agent.portal.ended(placement)


def test_the_one_of_the_notice_is_stored_before_the_end_is_told(agent: Agent) -> None:
    placement = agent.run(
        f"trap 'echo late > \"$RM_CHECKPOINT_DIR/state\"; touch \"$RM_CHECKPOINT\"; exit 1' TERM; "
        f"{SAVE}echo ready; while true; do sleep 0.05; done"
    )
    agent.portal.wait_for(lambda: agent.portal.logs.get((placement, 1)) == b"ready\n", "its trap")
    agent.portal.push(stop=[Stop(placement, 1, 10.0, "preempted")])
    ended = agent.portal.ended(placement)
    [(at, _, data)] = agent.portal.saved[placement]
    assert contents(data) == {"state": b"late\n"}
    assert ended.checkpoint_at == at


def test_of_a_task_that_succeeds_the_last_is_not_needed(agent: Agent) -> None:
    placement = agent.run(f'{SAVE}echo x > "$RM_CHECKPOINT_DIR/state"; touch "$RM_CHECKPOINT"')
    assert agent.portal.ended(placement).exit_code == 0
    assert placement not in agent.portal.saved
    agent.wait_folder_gone(placement)


def test_a_killed_agent_sends_it_after_its_restart(own_agent: Agent) -> None:
    own_agent.portal.failing_uploads = 10_000
    placement = own_agent.run(f'{SAVE}echo x > "$RM_CHECKPOINT_DIR/state"; touch "$RM_CHECKPOINT"; {WAIT}; exit 1')
    own_agent.portal.wait_for(lambda: own_agent.portal.failing_uploads < 10_000, "the first try")
    own_agent.signal(signal.SIGKILL)
    own_agent.portal.failing_uploads = 0
    own_agent.start()
    assert contents(saved(own_agent, placement)[2]) == {"state": b"x\n"}
    # Killed again it makes the very same bytes of it.
    own_agent.signal(signal.SIGKILL)
    own_agent.start()
    assert saved(own_agent, placement, 2)[1:] == saved(own_agent, placement)[1:]
    go(own_agent, placement)
    own_agent.portal.ended(placement)
    assert not list((own_agent.data / "checkpoints").iterdir())


def test_one_that_was_killed_when_its_task_had_ended_sends_it_too(own_agent: Agent) -> None:
    own_agent.portal.failing_uploads = 10_000
    placement = own_agent.run(f'{WAIT}; {SAVE}echo x > "$RM_CHECKPOINT_DIR/state"; touch "$RM_CHECKPOINT"; exit 1')
    own_agent.portal.started(placement)
    go(own_agent, placement)
    own_agent.portal.wait_for(lambda: own_agent.portal.failing_uploads < 10_000, "the first try")
    own_agent.signal(signal.SIGKILL)
    assert own_agent.portal.report(placement, "ended") is None
    own_agent.portal.failing_uploads = 0
    own_agent.start()
    ended = own_agent.portal.ended(placement)
    assert (ended.exit_code, ended.checkpoint_at) == (1, saved(own_agent, placement)[0])


def test_the_next_attempt_finds_it_before_its_command_starts(agent: Agent) -> None:
    data = packed({"state": b"7\n", "deep/er": b"x" * 100_000})
    assignment = agent.assignment(
        'cat "$RM_CHECKPOINT_DIR/state"; wc -c < "$RM_CHECKPOINT_DIR/deep/er"; echo 8 > "$RM_CHECKPOINT_DIR/state"; '
        f'touch "$RM_CHECKPOINT"; {WAIT}',
        token=2, saved=SavedFiles(hashlib.sha256(data).hexdigest(), len(data)),
    )  # fmt: skip
    agent.portal.to_restore[assignment.placement] = data
    agent.portal.push(assignment)
    placement = assignment.placement
    assert contents(saved(agent, placement)[2]) == {"state": b"8\n", "deep/er": b"x" * 100_000}
    (agent.folder(placement, 2) / "work" / "go").touch()
    assert agent.portal.log(placement, 2).split() == [b"7", b"100000"]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (None, "there is none"),
        (b"other bytes", "another digest"),
        (packed({"../out": b"x"}), "leads out"),
        (packed({"large": bytes(300 * 1024 * 1024)}), "larger than the storage"),
    ],
    ids=["gone", "digest", "path", "size"],
)
def test_what_cannot_be_restored_refuses_the_attempt(agent: Agent, data: bytes | None, said: str) -> None:
    digest = hashlib.sha256(b"" if data == b"other bytes" else data or b"").hexdigest()
    assignment = agent.assignment("echo never", token=2, saved=SavedFiles(digest, 1))
    if data is not None:
        agent.portal.to_restore[assignment.placement] = data
    agent.portal.push(assignment)
    ended = agent.portal.ended(assignment.placement)
    assert ended.reason == "refused" and said in ended.detail and ended.detail.startswith("checkpoint: ")


def test_a_refusal_is_told_with_the_end_and_not_tried_again(agent: Agent) -> None:
    agent.portal.refuse_saving = 413, b'{"detail": "The checkpoint is larger than 8 bytes."}'
    try:
        placement = agent.run(f'{SAVE}echo x > "$RM_CHECKPOINT_DIR/state"; touch "$RM_CHECKPOINT"; {WAIT}; exit 1')
        agent.portal.started(placement)
        seen = len(agent.portal.beats)
        agent.portal.wait_for(lambda: len(agent.portal.beats) > seen + 5, "some beats")
        go(agent, placement)
        ended = agent.portal.ended(placement)
    finally:
        agent.portal.refuse_saving = None
    assert ended.detail == "the checkpoint was not stored: The checkpoint is larger than 8 bytes."
    assert ended.checkpoint_at is None and told(agent, placement) == []


# Attacks: what lies in the folder is neither followed nor opened where it could block or is somebody else's.


@pytest.mark.parametrize(
    "put",
    [
        'ln -s /etc/passwd "$RM_CHECKPOINT_DIR/state"',
        'mkfifo "$RM_CHECKPOINT_DIR/state"',
        'rmdir "$RM_CHECKPOINT_DIR"; ln -s /etc "$RM_CHECKPOINT_DIR"',
        'mkdir "$RM_CHECKPOINT_DIR/deep"; ln -s / "$RM_CHECKPOINT_DIR/deep/er"',
        'rmdir "$RM_CHECKPOINT_DIR"; touch "$RM_CHECKPOINT_DIR"',
    ],
)
def test_what_is_no_plain_file_is_not_stored(agent: Agent, put: str) -> None:
    placement = agent.run(f'{SAVE}{put}; touch "$RM_CHECKPOINT"; {WAIT}; exit 1')
    agent.portal.started(placement)
    seen = len(agent.portal.beats)
    agent.portal.wait_for(lambda: len(agent.portal.beats) > seen + 3, "some beats")
    go(agent, placement)
    ended = agent.portal.ended(placement)
    assert "the checkpoint was not stored" in ended.detail and placement not in agent.portal.saved
    agent.wait_folder_gone(placement)
