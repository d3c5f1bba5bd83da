"""What the portal keeps of the checkpoints that agents tell of, and what it does not believe."""

import time
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from django.utils import timezone

from apps.execution.commands import intake
from apps.execution.listener import Listener
from apps.fleet.models import Node
from apps.jobs.commands.checkpoints import loss, of_all, span
from apps.jobs.models import Placement
from rmctl.agent import protocol
from rmctl.agent.protocol import Beat, Checkpoint, Telemetry
from tests.personas import World
from tests.work import fresh, granted, members, report, simulated_node

NOW = timezone.now()
LONG_AGO = NOW - timedelta(hours=1)


@pytest.fixture
def node(world: World) -> Node:
    return simulated_node(world)


def started(world: World, **more: Any) -> list[Placement]:
    """The members of a job that has been running for an hour."""
    job = granted(world, **more)
    for member in members(job):
        report(member, "started")
    Placement.objects.filter(attempt__job=job).update(started_at=LONG_AGO)
    return members(job)


def tell(member: Placement, at: float, *, token: int = 1, node: int | None = None) -> Placement:
    """The agent says so; returns what is kept."""
    intake.checkpoints([(node or member.node_id, Checkpoint(member.pk, token, at))])
    return Placement.objects.get(pk=member.pk)


def test_the_newest_one_is_kept(world: World, node: Node) -> None:
    (member,) = started(world)
    newest = (NOW - timedelta(seconds=10)).timestamp()
    for at in (newest - 60, newest, newest - 30):
        member = tell(member, at)
    assert member.checkpoint_at is not None and member.checkpoint_at.timestamp() == pytest.approx(newest)


def test_it_is_never_later_than_now_and_never_before_the_start(world: World, node: Node) -> None:
    (member,) = started(world)
    assert tell(member, 0.0).checkpoint_at == LONG_AGO
    assert tell(member, -1e10).checkpoint_at == LONG_AGO
    before = timezone.now()
    kept = tell(member, time.time() + 1e6).checkpoint_at
    assert kept is not None and before <= kept <= timezone.now()


@pytest.mark.parametrize("at", [float("nan"), float("inf"), float("-inf"), 1e300])
def test_what_is_no_time_is_left_out(world: World, node: Node, at: float) -> None:
    (member,) = started(world)
    assert tell(member, at).checkpoint_at is None


def test_only_the_node_that_runs_the_newest_attempt_is_believed(world: World, node: Node) -> None:
    other = simulated_node(world, "sim-2", cpu=10)
    (member,) = started(world)
    at = NOW.timestamp()
    assert tell(member, at, token=2).checkpoint_at is None
    assert tell(member, at, token=0).checkpoint_at is None
    assert tell(member, at, node=other.pk).checkpoint_at is None

    report(member, reason="stopped")
    kept = Placement.objects.get(pk=member.pk).checkpoint_at
    assert kept is None
    assert tell(member, at).checkpoint_at is None
    assert fresh(member.attempt.job).token == 1


def test_an_end_with_an_old_token_changes_nothing(world: World, node: Node) -> None:
    (member,) = started(world)
    assert report(member, reason="stopped", token=7, checkpoint_at=NOW.timestamp()) == [(member.pk, 7)]
    member.refresh_from_db()
    assert (member.state, member.checkpoint_at) == ("running", None)


def test_one_that_has_not_started_has_none_yet(world: World, node: Node) -> None:
    (member,) = members(granted(world))
    assert tell(member, NOW.timestamp()).checkpoint_at is None


@pytest.mark.parametrize(("told", "kept"), [(None, -20), (-40, -20), (-5, -5), (3600, 0), (-7200, -20)])
def test_an_end_tells_the_last_one_within_the_time_of_the_run(
    world: World, node: Node, told: int | None, kept: int
) -> None:
    (member,) = started(world)
    tell(member, (NOW - timedelta(seconds=20)).timestamp())
    at = None if told is None else (NOW + timedelta(seconds=told)).timestamp()
    assert report(member, exit_code=0, reason="exited", checkpoint_at=at) == []
    member.refresh_from_db()
    assert member.checkpoint_at is not None and member.ended_at is not None
    expected = member.ended_at if kept == 0 else NOW + timedelta(seconds=kept)
    assert abs((member.checkpoint_at - expected).total_seconds()) < 0.001


def test_beats_of_many_nodes_are_stored_together(world: World, node: Node, one_connection: None) -> None:
    other = simulated_node(world, "sim-2")
    found = [started(world, cpu="3")[0], started(world, cpu="3")[0]]
    assert {member.node_id for member in found} == {node.pk, other.pk}
    at = (NOW - timedelta(seconds=3)).timestamp()
    beats = {
        member.node_id: (0, Beat(Telemetry(at=0.0), [], [Checkpoint(member.pk, 1, at), Checkpoint(2**62, 1, at)]))
        for member in found
    }
    Listener()._write(beats)
    for member in found:
        member.refresh_from_db()
        assert member.checkpoint_at is not None and member.checkpoint_at.timestamp() == pytest.approx(at)


def test_frames_of_older_and_newer_agents_are_understood() -> None:
    older = {"type": "beat", "telemetry": {"at": 1.0}, "held": [[7, 1, "running"]]}
    newer = {**older, "checkpoints": [[7, 1, 5.0]], "something": [1]}
    assert protocol.decode_from_agent(msgspec.msgpack.encode(older)).checkpoints == []  # type: ignore[union-attr]
    assert protocol.decode_from_agent(msgspec.msgpack.encode(newer)).checkpoints == [  # type: ignore[union-attr]
        Checkpoint(7, 1, 5.0)
    ]


@pytest.mark.parametrize("number", [2**63, 2**64 - 1, -1])
@pytest.mark.parametrize("field", ["held", "checkpoints"])
def test_a_number_that_no_row_can_have_is_not_of_the_protocol(field: str, number: int) -> None:
    rest = {"held": "running", "checkpoints": 5.0}[field]
    frame = {"type": "beat", "telemetry": {"at": 1.0}, "held": [], field: [[number, 1, rest]]}
    with pytest.raises(msgspec.DecodeError):
        protocol.decode_from_agent(msgspec.msgpack.encode(frame))


def test_a_gang_goes_on_from_the_oldest_of_its_members_last_ones() -> None:
    older, newer = NOW - timedelta(seconds=9), NOW - timedelta(seconds=4)
    assert of_all([newer, older]) == older
    assert of_all([None, newer]) == newer  # One that saves for all.
    assert of_all([None, None]) is None
    assert loss(LONG_AGO, older, NOW) == (9.0, "its last checkpoint")
    assert loss(LONG_AGO, None, NOW) == (3600.0, "its start")


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.04, "0.0 s"), (9.5, "9.5 s"), (119, "119 s"), (720, "12 min"), (1.8e4, "5 h")]
)
def test_durations_are_said_in_one_unit(seconds: float, said: str) -> None:
    assert span(seconds) == said
