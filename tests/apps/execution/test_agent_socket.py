"""What an agent can rely on when it speaks to the portal, and what a false one cannot do."""

import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.db import connection
from redis.connection import Connection, UnixDomainSocketConnection

from apps.core.actors import SYSTEM
from apps.core.redis import Commit
from apps.events.live import TOPICS, hub
from apps.execution.listener import Listener, listener
from apps.execution.queries import read_log
from apps.fleet import commands as fleet
from apps.fleet.models import Node
from apps.fleet.telemetry import telemetry, telemetry_history
from apps.jobs import commands as jobs
from apps.jobs.commands.grants import drift
from apps.jobs.models import Job, Placement
from apps.tenants import commands as tenants
from rmctl.agent import protocol
from rmctl.agent.protocol import Desired, Held, Report, Welcome
from tests.apps.execution.sockets import INVENTORY, AgentSocket
from tests.personas import World
from tests.work import cycle, fresh, granted, members, report, submit

NOW = time.time()


@pytest.fixture
def node(world: World) -> tuple[Node, str]:
    """A node that has joined, and its credential."""
    return world.join("node-1")


@pytest.fixture(autouse=True)
def exact_ledger(node: tuple[Node, str], one_connection: None) -> Any:
    yield
    assert drift() == []


def talk(conversation: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run the conversation; its database work happens in this thread, in the test's transaction."""
    async_to_sync(conversation)()


def test_a_granted_job_is_handed_over_once_with_all_that_it_needs(world: World, node: tuple[Node, str]) -> None:
    tenants.set_secret(actor=SYSTEM, tenant=world.vision, name="key", value="secret value")
    data = {
        "name": "train",
        "groups": [{"script": "echo $A", "env": {"A": "b"}, "secrets": {"TOKEN": "key"}, "resources": {"cpu": "2"}}],
        "inputs": {"rows": [1, 2]},
        "time_limit": "5m",
    }
    job = jobs.submit(actor=SYSTEM, tenant=world.vision, data=data)
    cycle()

    async def conversation() -> None:
        async with AgentSocket(node[1]) as agent:
            await agent.hello()
            (start,) = (await agent.receive(Desired)).start
            assert (start.job, start.name, start.tenant, start.token) == (job.pk, "train", "vision", 1)
            assert start.command[-1] == "echo $A"
            assert (start.env, start.secrets, start.inputs) == ({"A": "b"}, {"TOKEN": "secret value"}, {"rows": [1, 2]})
            assert (start.cpu_millicores, start.time_limit_seconds) == (2000, 300)
            await agent.beat()  # From before the assignment arrived: it is not sent again.
            assert await agent.quiet()
            await agent.beat([Held(start.placement, 1, "running")])
            assert await agent.quiet()

    talk(conversation)


def test_an_assignment_that_was_lost_with_its_connection_is_sent_again(world: World, node: tuple[Node, str]) -> None:
    granted(world)

    async def conversation() -> None:
        for _ in range(2):
            async with AgentSocket(node[1]) as agent:
                await agent.hello()
                assert len((await agent.receive(Desired)).start) == 1

    talk(conversation)


@pytest.mark.parametrize("credential", ["", "rma_unknown", "x" * 5000])
def test_an_unknown_credential_is_told_so(node: tuple[Node, str], credential: str) -> None:
    async def conversation() -> None:
        async with AgentSocket(credential) as agent:
            assert await agent.closed() == protocol.CLOSE_UNAUTHORISED

    talk(conversation)


@pytest.mark.parametrize("end", ["revoked", "removed", "joined again"])
def test_a_credential_that_ends_closes_its_connection_and_opens_no_other(
    world: World, node: tuple[Node, str], end: str
) -> None:
    def finish() -> None:
        if end == "revoked":
            fleet.revoke_credentials(actor=SYSTEM, node_id=node[0].pk)
        elif end == "removed":
            fleet.remove_node(actor=SYSTEM, node_id=node[0].pk)
        else:
            Node.objects.update(last_seen_at=None)
            world.join("node-1")

    async def conversation() -> None:
        async with AgentSocket(node[1]) as agent:
            await agent.hello()
            await agent.beat()
            assert await agent.quiet()
            await sync_to_async(finish)()
            await agent.beat()
            assert await agent.closed() == protocol.CLOSE_UNAUTHORISED
        async with AgentSocket(node[1]) as agent:
            assert await agent.closed() == protocol.CLOSE_UNAUTHORISED

    talk(conversation)


def test_a_newer_connection_replaces_the_older(node: tuple[Node, str]) -> None:
    async def conversation() -> None:
        async with AgentSocket(node[1]) as older:
            await older.hello()
            async with AgentSocket(node[1]) as newer:
                await newer.receive(Welcome)
                assert await older.closed() == protocol.CLOSE_REPLACED

    talk(conversation)


def in_another_process() -> None:
    """Let the next connection be one that this process's older connections do not see come."""
    listener._connections.clear()


def test_a_connection_to_another_process_replaces_the_older_by_a_hint(node: tuple[Node, str]) -> None:
    def announced() -> set[str]:
        commits = (function for _, function, *_ in connection.run_on_commit if isinstance(function, Commit))
        return {topic for commit in commits for topic in commit.names.get(TOPICS, ())}

    async def conversation() -> None:
        async with AgentSocket(node[1]) as older:
            await older.hello()
            assert await older.quiet()
            in_another_process()
            await sync_to_async(connection.run_on_commit.clear)()
            async with AgentSocket(node[1]) as newer:
                await newer.hello()
                assert f"connection:{node[0].pk}" in await sync_to_async(announced)()
                hub.notify([f"connection:{node[0].pk}"])  # As Redis would after the commit.
                assert await older.closed() == protocol.CLOSE_REPLACED
                assert await newer.quiet()

    talk(conversation)


@pytest.mark.parametrize("says", ["reports", "log", "greeting", "beat", "asks for work"])
def test_an_older_connection_that_missed_the_hint_is_refused(world: World, node: tuple[Node, str], says: str) -> None:
    job = granted(world)
    (member,) = members(job)
    report(member, "started")
    held = [Held(member.pk, 1, "running")]

    async def conversation() -> None:
        async with AgentSocket(node[1]) as older:
            if says == "greeting":
                await older.receive(Welcome)
            else:
                await older.hello(held)
            assert await older.quiet()
            in_another_process()
            async with AgentSocket(node[1]) as newer:
                await newer.hello(held)
                assert await newer.quiet()
                if says == "reports":
                    ended = Report(member.pk, 1, "ended", NOW, exit_code=0, reason="exited")
                    await older.send(protocol.Reports(1, [ended]))
                elif says == "log":
                    await older.send(protocol.Log(member.pk, 1, 0, b"text"))
                elif says == "greeting":
                    await older.send(protocol.Hello(1, INVENTORY, []))
                elif says == "beat":
                    await older.beat()
                else:
                    await sync_to_async(jobs.cancel)(actor=SYSTEM, job_id=job.pk)
                    hub.notify([f"node:{node[0].pk}"])
                    assert [stop.reason for stop in (await newer.receive(Desired)).stop] == ["cancelled"]
                assert await older.closed() == protocol.CLOSE_REPLACED
                assert await newer.quiet()

    talk(conversation)
    assert fresh(job).state in ("running", "cancelling")
    assert Placement.objects.get(pk=member.pk).log_size == 0


def test_an_older_connection_does_not_keep_its_node_from_being_lost(node: tuple[Node, str]) -> None:
    beat = protocol.Beat(protocol.Telemetry(at=1.0), [])
    Node.objects.update(last_seen_at=None, connection=7)

    def seen() -> bool:
        return Node.objects.exclude(last_seen_at=None).exists()

    listener._write({node[0].pk: (6, beat)})
    assert not seen()
    collected = Listener()
    collected.heard(node[0].pk, 7, beat)
    collected.heard(node[0].pk, 6, beat)  # Comes last, and does not hide the newer one's.
    listener._write(collected._beats)
    assert seen()


def test_what_all_nodes_tell_costs_redis_a_fixed_number_of_trips(
    world: World, node: tuple[Node, str], redis_empty: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    trips: list[int] = []
    send = Connection.send_packed_command

    def counted(self: Any, *arguments: Any, **more: Any) -> None:
        trips.append(1)
        send(self, *arguments, **more)

    for kind in (Connection, UnixDomainSocketConnection):
        monkeypatch.setattr(kind, "send_packed_command", counted)
    nodes = [node[0], *(world.node(f"other-{number}") for number in range(8))]
    telemetry([node[0].pk])  # Connects.
    trips.clear()
    listener._write({one.pk: (0, protocol.Beat(protocol.Telemetry(at=1.0, cpu_percent=5.0), [])) for one in nodes})
    assert len(trips) <= 3
    found = telemetry([one.pk for one in nodes])
    assert [sample["cpu_percent"] for sample in found.values()] == [5.0] * len(nodes)
    assert len(telemetry_history(nodes[-1].pk)) == 1


def test_a_member_that_vanishes_from_a_live_node_is_lost_with_the_next_beat(
    world: World, node: tuple[Node, str]
) -> None:
    job = granted(world, count=2)
    gone, peer = members(job)

    async def conversation() -> None:
        async with AgentSocket(node[1]) as agent:
            await agent.hello()
            assert len((await agent.receive(Desired)).start) == 2
            await agent.report(Report(gone.pk, 1, "started", NOW), Report(peer.pk, 1, "started", NOW))
            await agent.beat([Held(gone.pk, 1, "running"), Held(peer.pk, 1, "running")])
            assert await agent.quiet()
            await agent.beat([Held(peer.pk, 1, "running")])
            assert await agent.quiet()
            hub.notify([f"node:{node[0].pk}"])  # As Redis would after the commit.
            assert [(stop.placement, stop.reason) for stop in (await agent.receive(Desired)).stop] == [
                (peer.pk, "peer_failed")
            ]

    talk(conversation)
    assert [Placement.objects.get(pk=pk).state for pk in (gone.pk, peer.pk)] == ["lost", "running"]


def test_an_assignment_that_no_beat_ever_names_is_sent_again(world: World, node: tuple[Node, str]) -> None:
    granted(world)

    async def conversation() -> None:
        async with AgentSocket(node[1]) as agent:
            await agent.hello()
            (start,) = (await agent.receive(Desired)).start
            for _ in range(2):
                await agent.beat()
                assert await agent.quiet()
            await agent.beat()
            assert [again.placement for again in (await agent.receive(Desired)).start] == [start.placement]

    talk(conversation)


def test_a_member_that_ended_before_a_beat_could_name_it_is_not_lost(world: World, node: tuple[Node, str]) -> None:
    job = granted(world)
    (member,) = members(job)

    async def conversation() -> None:
        async with AgentSocket(node[1]) as agent:
            await agent.hello()
            await agent.receive(Desired)
            await agent.report(Report(member.pk, 1, "started", NOW))
            await agent.beat()  # Written before the assignment arrived.
            assert await agent.quiet()
            await agent.report(Report(member.pk, 1, "ended", NOW, exit_code=0, reason="exited"))

    talk(conversation)
    assert (fresh(job).state, fresh(job).losses) == ("succeeded", 0)


@pytest.mark.parametrize("frame", [b"", b"garbage", b"\x81\xa4type\xa7unknown", protocol.encode(Welcome(1, "x"))])
def test_a_frame_of_garbage_ends_the_connection(node: tuple[Node, str], frame: bytes) -> None:
    async def conversation() -> None:
        async with AgentSocket(node[1]) as agent:
            await agent.hello()
            await agent.send_frame(frame)
            assert await agent.closed() == 1003

    talk(conversation)


def test_a_greeting_with_an_absurd_inventory_ends_the_connection(node: tuple[Node, str]) -> None:
    async def conversation() -> None:
        async with AgentSocket(node[1]) as agent:
            await agent.receive(Welcome)
            wrong = protocol.Inventory("h", "o", "a", "p", cpu_millicores=-5, memory_bytes=1, storage_bytes=1)
            await agent.send(protocol.Hello(1, wrong, []))
            assert await agent.closed() == 1008

    talk(conversation)


def test_reports_are_stored_and_stale_or_foreign_ones_are_refused(world: World, node: tuple[Node, str]) -> None:
    other = world.node("node-2")
    mine = granted(world, cpu="8")
    foreign = granted(world, cpu="8")
    if members(mine)[0].node_id == other.pk:
        mine, foreign = foreign, mine
    (member,), (theirs,) = members(mine), members(foreign)

    async def conversation() -> None:
        async with AgentSocket(node[1]) as agent:
            await agent.hello()
            await agent.receive(Desired)
            assert await agent.report(Report(member.pk, 1, "started", NOW, pid=5)) == []
            assert await agent.report(
                Report(theirs.pk, 1, "ended", NOW, exit_code=0, reason="exited"),
                Report(member.pk, 7, "ended", NOW, exit_code=0, reason="exited"),
                Report(member.pk, 1, "ended", NOW, exit_code=0, reason="exited"),
            ) == [(theirs.pk, 1), (member.pk, 7)]

    talk(conversation)
    assert (fresh(mine).state, fresh(foreign).state) == ("succeeded", "granted")


def test_a_greeting_without_a_running_task_loses_it_and_it_is_placed_again(
    world: World, node: tuple[Node, str]
) -> None:
    job, kept = granted(world), granted(world)
    report(members(job)[0], "started")
    report(members(kept)[0], "started")
    (still,) = members(kept)

    async def conversation() -> None:
        async with AgentSocket(node[1]) as agent:
            await agent.hello([Held(still.pk, 1, "running")])
            assert await agent.quiet()

    talk(conversation)
    assert (fresh(job).state, fresh(job).losses, fresh(kept).state) == ("pending", 1, "running")


def test_what_an_agent_holds_too_much_is_stopped(world: World, node: tuple[Node, str]) -> None:
    gone = granted(world)
    (old,) = members(gone)
    report(old, reason="lost")
    cancelled = granted(world, priority=5)
    (member,) = members(cancelled)
    report(member, "started")
    jobs.cancel(actor=SYSTEM, job_id=cancelled.pk)

    async def conversation() -> None:
        async with AgentSocket(node[1]) as agent:
            held = [Held(old.pk, 1, "running"), Held(member.pk, 1, "running"), Held(10**9, 3, "running")]
            await agent.hello(held)
            stops = {(stop.placement, stop.token): stop.reason for stop in (await agent.receive(Desired)).stop}
            assert stops == {(old.pk, 1): "not_wanted", (member.pk, 1): "cancelled", (10**9, 3): "not_wanted"}

    talk(conversation)


def test_what_has_ended_and_only_waits_for_its_log_is_left_alone(world: World, node: tuple[Node, str]) -> None:
    job = granted(world)
    (member,) = members(job)
    report(member)

    async def conversation() -> None:
        async with AgentSocket(node[1]) as agent:
            await agent.hello([Held(member.pk, 1, "ended")])
            assert await agent.quiet()
            assert await agent.report(
                Report(member.pk, 1, "started", NOW), Report(member.pk, 1, "ended", NOW, exit_code=0)
            ) == []  # fmt: skip

    talk(conversation)


def test_a_cancelled_job_that_no_agent_took_ends_with_the_next_greeting(world: World, node: tuple[Node, str]) -> None:
    job = granted(world)
    jobs.cancel(actor=SYSTEM, job_id=job.pk)

    async def conversation() -> None:
        async with AgentSocket(node[1]) as agent:
            await agent.hello()
            assert await agent.quiet()

    talk(conversation)
    assert fresh(job).state == "cancelled"


def test_an_end_that_is_still_to_be_reported_is_not_taken_for_never_started(
    world: World, node: tuple[Node, str]
) -> None:
    job = granted(world)
    (member,) = members(job)
    jobs.cancel(actor=SYSTEM, job_id=job.pk)

    async def conversation() -> None:
        async with AgentSocket(node[1]) as agent:
            await agent.hello([Held(member.pk, 1, "ended")])
            assert await agent.quiet()
            assert await agent.report(Report(member.pk, 1, "ended", NOW, exit_code=0, reason="exited")) == []

    talk(conversation)
    assert fresh(job).state == "succeeded"


def test_a_job_whose_secret_is_gone_fails_and_names_it(world: World, node: tuple[Node, str]) -> None:
    tenants.set_secret(actor=SYSTEM, tenant=world.vision, name="key", value="x")
    data = {"groups": [{"command": ["true"], "secrets": {"TOKEN": "key"}}]}
    job = jobs.submit(actor=SYSTEM, tenant=world.vision, data=data)
    cycle()
    tenants.delete_secret(actor=SYSTEM, tenant=world.vision, name="key")

    async def conversation() -> None:
        async with AgentSocket(node[1]) as agent:
            await agent.hello()
            assert await agent.quiet()

    talk(conversation)
    job = fresh(job)
    assert (job.state, job.end_reason, job.started_at) == ("failed", "secret_missing", None)
    assert "secret key" in job.detail


def test_logs_are_byte_exact_whatever_is_repeated_or_missing(world: World, node: tuple[Node, str]) -> None:
    job = granted(world)
    (member,) = members(job)
    text = bytes(range(256)) * 4

    async def conversation() -> None:
        async with AgentSocket(node[1]) as agent:
            await agent.hello()
            await agent.receive(Desired)
            assert await agent.log(member, 0, text[:100]) == 100
            assert await agent.log(member, 0, text[:100]) == 100  # the same again
            assert await agent.log(member, 50, text[50:300]) == 300  # an overlap
            assert await agent.log(member, 500, text[500:]) == 300  # a gap: go on from 300
            assert await agent.log(member, 300, b"") == 300
            assert await agent.log(member, 300, text[300:]) == 1024
            assert await agent.report(
                Report(member.pk, 1, "ended", NOW, exit_code=0, reason="exited", log_size=1030)
            ) == []  # fmt: skip
            assert await agent.log(member, 1024, b"a rest") == 1030  # also after the end

    talk(conversation)
    piece = read_log(member.pk, 0)
    assert (piece.data, piece.size, piece.complete) == (text + b"a rest", 1030, True)
    assert read_log(member.pk, 95, 10).data == text[95:105]
    assert read_log(member.pk, -6).data == b"a rest"
    assert read_log(member.pk, 5000).data == b""


def test_a_log_is_not_complete_before_its_last_byte(world: World, node: tuple[Node, str]) -> None:
    job = granted(world)
    (member,) = members(job)
    report(member, reason="exited", exit_code=0, log_size=10)

    assert read_log(member.pk, 0).complete is False


def test_logs_of_others_and_of_old_attempts_are_not_taken(world: World, node: tuple[Node, str]) -> None:
    other = world.node("node-2")
    job = granted(world, cpu="8")
    foreign = granted(world, cpu="8")
    if members(job)[0].node_id == other.pk:
        job, foreign = foreign, job
    (member,), (theirs,) = members(job), members(foreign)

    async def conversation() -> None:
        async with AgentSocket(node[1]) as agent:
            await agent.hello()
            await agent.receive(Desired)
            assert await agent.log(theirs, 0, b"forged") == 6  # The agent goes on; nothing was stored.
            assert await agent.log(member, 0, b"forged", token=2) == 6

    talk(conversation)
    assert set(Placement.objects.values_list("log_size", flat=True)) == {0}


def test_a_thousand_starts_come_in_frames_that_the_agent_takes(world: World, node: tuple[Node, str]) -> None:
    spec = submit(world, "true", cpu="10m", memory="1Mi").spec
    large = spec | {"inputs": {"text": "x" * 900_000}}
    items = [jobs.Submission(spec=large, origin="run:1", name="x")] * 30
    items += [jobs.Submission(spec=spec, origin="run:1", name="x")] * 200
    jobs.submit_many(actor=SYSTEM, tenant=world.vision, owner_id=None, items=items)
    while cycle():
        pass
    assert Job.objects.filter(state="granted").count() == 231

    async def conversation() -> None:
        seen: list[int] = []
        async with AgentSocket(node[1]) as agent:
            await agent.hello()
            while len(seen) < 231:
                frame = await agent.frame()
                assert len(frame) <= protocol.MAX_FRAME_BYTES
                message = protocol.decode_from_portal(frame)
                assert isinstance(message, Desired)
                seen += [item.placement for item in message.start]
            assert await agent.quiet()
        assert len(set(seen)) == 231

    talk(conversation)


def test_one_report_takes_few_statements(world: World, django_assert_max_num_queries: Any) -> None:
    batch = [granted(world, cpu="10m") for _ in range(3)]
    reports = [Report(members(job)[0].pk, 1, "ended", NOW, exit_code=0, reason="exited") for job in batch]
    node_id = members(batch[0])[0].node_id
    from tests.work import send

    with django_assert_max_num_queries(14):
        assert send(node_id, reports) == []
