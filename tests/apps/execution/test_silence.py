"""When a node falls silent: what is noticed, what is moved, and that the portal's own outage is nobody's fault."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import transaction
from django.utils import timezone

from apps.core.actors import SYSTEM, Actor
from apps.execution.commands import expire, hello
from apps.execution.commands.intake import drain_nodes, listening, renew
from apps.execution.listener import Listener
from apps.fleet import commands as fleet
from apps.fleet.models import Intake, Node
from apps.jobs.commands.grants import drift
from apps.jobs.models import Grant
from rmctl.agent import protocol
from rmctl.agent.protocol import Beat, Held, Telemetry
from tests.apps.execution.sockets import INVENTORY
from tests.personas import World
from tests.work import cycle, fresh, granted, members, report, simulated_node

START = timezone.now()


def after(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def listened(until: float, since: float = -60.0) -> None:
    """The portal has been listening in this time."""
    Intake.objects.all().delete()
    listening(now=after(since))
    Intake.objects.update(seen_at=after(until))


@pytest.fixture
def node(world: World) -> Any:
    """A node of an agent, last heard of at START."""
    node = world.node("node-1")
    Node.objects.update(last_seen_at=START)
    yield node
    assert drift() == []


def greet(node: Node, *held: Held) -> None:
    message = protocol.Hello(1, INVENTORY, list(held))
    hello(actor=Actor(label="agent:node-1", node_id=node.pk), node_id=node.pk, connection=0, message=message)


def test_a_node_is_lost_after_eight_seconds_of_silence(node: Node) -> None:
    listened(until=7.5)
    assert expire(now=after(7.5)) == (0, 0)

    listened(until=8.5)
    assert expire(now=after(8.5)) == (1, 0)

    node.refresh_from_db()
    assert node.state == "lost"


def test_a_node_that_joined_and_never_spoke_is_lost_too(node: Node) -> None:
    Node.objects.update(last_seen_at=None, joined_at=START)
    listened(until=8.5)

    assert expire(now=after(8.5)) == (1, 0)


def test_silence_while_the_portal_did_not_listen_is_not_held_against_anybody(world: World, node: Node) -> None:
    job = granted(world)
    report(members(job)[0], "started")
    Grant.objects.update(lease_expires_at=after(15))
    listened(until=0)  # The portal itself went down at START …
    assert expire(now=after(30)) == (0, 0)
    listening(now=after(60))  # … and came back after a minute.

    assert expire(now=after(60)) == (0, 0)
    listening(now=after(64))
    assert expire(now=after(64)) == (0, 0)
    assert fresh(job).state == "running"
    for second in (66, 68, 69):
        listening(now=after(second))
    assert expire(now=after(69)) == (1, 0)  # Now it has had its eight seconds.


def test_a_short_pause_of_the_portal_does_not_start_the_time_anew(node: Node) -> None:
    listened(until=0)
    listening(now=after(4))
    listening(now=after(8.5))

    assert expire(now=after(8.5)) == (1, 0)


def test_the_end_of_a_lease_moves_the_work_and_its_late_report_is_refused(world: World, node: Node) -> None:
    job = granted(world)
    (member,) = members(job)
    report(member, "started")
    Node.objects.update(last_seen_at=START)
    Grant.objects.update(lease_expires_at=after(15))
    listened(until=14)
    assert expire(now=after(14)) == (1, 0)
    assert fresh(job).state == "running"
    listened(until=15.5)
    assert expire(now=after(15.5)) == (0, 1)
    assert (fresh(job).state, fresh(job).losses, fresh(job).failures) == ("pending", 1, 0)

    simulated_node(world)
    cycle()
    assert members(job)[0].node_id != node.pk
    assert report(member, exit_code=0, reason="exited") == [(member.pk, 1)]
    assert fresh(job).state == "granted"


def test_a_clock_that_was_set_forward_ends_nothing(world: World, node: Node) -> None:
    job = granted(world)
    report(members(job)[0], "started")
    Grant.objects.update(lease_expires_at=after(15))
    listened(until=0)
    hour = 3600.0
    assert expire(now=after(hour)) == (0, 0)
    listening(now=after(hour + 1))
    assert expire(now=after(hour + 1)) == (0, 0)
    assert fresh(job).state == "running"


def test_a_clock_that_was_set_back_still_lets_silence_be_noticed(world: World, node: Node) -> None:
    """Not only after as long as it went back, in which all that was written before is in the future."""
    job = granted(world)
    report(members(job)[0], "started")
    Grant.objects.update(lease_expires_at=after(15))
    listened(until=0)
    hour = -3600.0
    assert expire(now=after(hour)) == (0, 0)
    for second in (1, 5, 9, 13, 17):
        listening(now=after(hour + second))
        assert expire(now=after(hour + second)) == ((1, 0) if second == 13 else (0, 1) if second == 17 else (0, 0))
    assert fresh(job).state == "pending"


def test_renewed_leases_do_not_end(world: World, node: Node) -> None:
    job = granted(world)
    (member,) = members(job)
    Grant.objects.update(lease_expires_at=after(1))
    Node.objects.update(last_seen_at=after(2))
    listened(until=2)

    renew([(node.pk, Held(member.pk, 1, "running"))])

    assert expire(now=after(2)) == (0, 0)
    assert Grant.objects.get().lease_expires_at > after(10)


def test_a_node_renews_only_leases_of_its_own(world: World, node: Node) -> None:
    other = world.node("node-2")
    (member,) = members(granted(world))
    foreign = other.pk if member.node_id == node.pk else node.pk
    before = after(1)
    Grant.objects.update(lease_expires_at=before)

    renew([(foreign, Held(member.pk, 1, "running")), (member.node_id, Held(member.pk, 1, "ended"))])

    assert Grant.objects.get().lease_expires_at == before


def test_the_member_of_a_gang_on_a_lost_node_is_lost_though_its_peers_renew(world: World, node: Node) -> None:
    other = world.node("node-2")
    job = granted(world, cpu="5", count=2)
    for member in members(job):
        report(member, "started")
    Node.objects.filter(pk=node.pk).update(last_seen_at=START)
    Node.objects.filter(pk=other.pk).update(last_seen_at=after(16))
    Grant.objects.update(lease_expires_at=after(60))
    listened(until=16)

    assert expire(now=after(16)) == (1, 1)

    states = {member.node_id: (member.state, member.attempt.stop_reason) for member in members(job)}
    assert states[node.pk] == ("lost", "peer_failed")
    assert states[other.pk] == ("running", "peer_failed")
    assert Grant.objects.get().released_at is None


@pytest.mark.parametrize("intended", ["ready", "cordoned", "draining"])
def test_a_lost_node_comes_back_to_where_its_operator_wants_it(node: Node, intended: str) -> None:
    if intended == "cordoned":
        fleet.cordon_node(actor=SYSTEM, node_id=node.pk)
    listened(until=9)
    expire(now=after(9))
    if intended == "draining":
        fleet.drain_node(actor=SYSTEM, node_id=node.pk)

    greet(node)

    node.refresh_from_db()
    assert node.state == intended


def test_a_machine_that_slept_comes_back_without_a_greeting(node: Node, one_connection: None) -> None:
    listened(until=9)
    expire(now=after(9))

    Listener()._write({node.pk: (0, Beat(Telemetry(at=0.0), []))})

    node.refresh_from_db()
    assert node.state == "ready"
    assert node.last_seen_at is not None and node.last_seen_at > START


def test_samples_go_to_those_who_watch_their_cluster(
    world: World, node: Node, one_connection: None, redis_empty: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = fleet.create_cluster(actor=SYSTEM, domain=world.beta, name="beta-agents")
    other = world.node("node-2", theirs)
    published: dict[str, list[str]] = {}
    monkeypatch.setattr(
        "apps.execution.listener.publish_data", lambda topic, samples: published.update({topic: list(samples)})
    )

    Listener()._write({item.pk: (0, Beat(Telemetry(at=0.0), [])) for item in (node, other)})

    assert published == {
        f"telemetry:{world.cluster.pk}": [str(node.pk)],
        f"telemetry:{theirs.pk}": [str(other.pk)],
    }


def test_work_that_a_returned_node_still_runs_goes_on_when_its_lease_had_not_ended(world: World, node: Node) -> None:
    job = granted(world)
    (member,) = members(job)
    report(member, "started")
    Node.objects.update(last_seen_at=START)
    listened(until=9)
    assert expire(now=after(9)) == (1, 0)

    greet(node, Held(member.pk, 1, "running"))

    assert fresh(job).state == "running"
    assert report(member) == []
    assert fresh(job).state == "succeeded"


def test_simulated_nodes_are_never_silent(world: World, node: Node) -> None:
    simulated = simulated_node(world)
    Node.objects.filter(pk=simulated.pk).update(joined_at=after(-600))
    job = granted(world, cpu="3")
    Grant.objects.update(lease_expires_at=after(-1))
    Node.objects.filter(pk=node.pk).update(last_seen_at=after(20))
    listened(until=20)

    ended = expire(now=after(20))[1]

    simulated.refresh_from_db()
    assert simulated.state == "ready"
    assert ended == (members(job)[0].node_id != simulated.pk)


def test_what_runs_on_a_removed_node_is_placed_elsewhere_at_once(world: World, node: Node) -> None:
    job = granted(world)
    fleet.remove_node(actor=SYSTEM, node_id=node.pk)
    listened(until=0)

    assert expire(now=after(0)) == (0, 1)

    assert fresh(job).state == "pending"


def test_a_draining_node_is_emptied_and_then_cordoned(world: World, node: Node) -> None:
    job = granted(world)
    (member,) = members(job)
    report(member, "started")
    fleet.drain_node(actor=SYSTEM, node_id=node.pk)
    assert drain_nodes() == 1
    node.refresh_from_db()
    assert (node.state, members(job)[0].attempt.stop_reason) == ("draining", "drained")

    report(member, reason="stopped")
    assert fresh(job).state == "pending"
    assert drain_nodes() == 0

    node.refresh_from_db()
    assert node.state == "cordoned"


def test_a_greeting_that_is_refused_changes_nothing(world: World, node: Node) -> None:
    job = granted(world)
    report(members(job)[0], "started")
    wrong = protocol.Inventory("h", "o", "a", "p", cpu_millicores=-1, memory_bytes=1, storage_bytes=1)

    with pytest.raises(Exception, match="inventory"), transaction.atomic():
        hello(
            actor=Actor(label="agent:node-1", node_id=node.pk),
            node_id=node.pk,
            connection=0,
            message=protocol.Hello(1, wrong, []),
        )

    assert fresh(job).state == "running"
