"""What a page can rely on at its socket: numbered frames, not too many, and nothing that is not its person's to see."""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Coroutine, Iterable
from types import TracebackType
from typing import Any, Self

import pytest
from asgiref.sync import async_to_sync
from asgiref.testing import ApplicationCommunicator
from django.contrib.auth.models import AnonymousUser
from django.db import connections, transaction

from apps.core.actors import SYSTEM
from apps.core.redis import Commit
from apps.events import live, topics
from apps.events.consumers import CLOSE_UNAUTHENTICATED, LiveConsumer
from apps.events.models import Event
from apps.events.record import Fact, record
from apps.tenants import commands as tenants
from tests.personas import PERSONAS, World
from tests.work import simulated_node, submit


@pytest.fixture(autouse=True)
def one_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sockets work in the test's own transaction: Channels would close its connection after each call."""
    from django.db.backends.base.base import BaseDatabaseWrapper

    monkeypatch.setattr(BaseDatabaseWrapper, "close_if_unusable_or_obsolete", lambda wrapper: None)


class Page:
    """One page's socket."""

    def __init__(self, user: Any) -> None:
        scope = {"type": "websocket", "path": "/ws/live/", "headers": [], "user": user}
        self.socket = ApplicationCommunicator(LiveConsumer.as_asgi(), scope)

    async def __aenter__(self) -> Self:
        await self.socket.send_input({"type": "websocket.connect"})
        assert (await self.socket.receive_output(5))["type"] == "websocket.accept"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.socket.send_input({"type": "websocket.disconnect", "code": 1000})
        await self.socket.wait(5)

    async def say(self, message: Any) -> None:
        text = message if isinstance(message, str) else json.dumps(message)
        await self.socket.send_input({"type": "websocket.receive", "text": text})

    async def hear(self) -> dict[str, Any]:
        output = await self.socket.receive_output(5)
        assert output["type"] == "websocket.send", output
        answer: dict[str, Any] = json.loads(output["text"])
        return answer

    async def subscribe(self, *names: str) -> list[str]:
        """Watch topics; returns those that were refused."""
        await self.say({"subscribe": [*names, "no-such-kind"]})
        while "refused" not in (answer := await self.hear()):
            pass
        return [name for name in answer["refused"] if name != "no-such-kind"]


def talk(conversation: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async_to_sync(conversation)()


def announce(names: Iterable[str]) -> None:
    """What the commit of a transaction does that touched these topics."""
    commit = Commit()
    commit.names[live.TOPICS] = set(names)
    commit()


async def connected() -> None:
    """Until this process's subscription stands, which shows itself by one hint to everybody."""
    watch = live.Watch()
    live.hub.watch(watch, ["probe"])
    while not watch.changed.is_set():
        announce(["probe"])
        await asyncio.sleep(0.02)
    live.hub.unwatch(watch)


def test_nobody_without_a_sign_in_is_served(world: World) -> None:
    async def conversation() -> None:
        page = Page(AnonymousUser())
        await page.socket.send_input({"type": "websocket.connect"})
        assert (await page.socket.receive_output(5))["type"] == "websocket.accept"
        assert (await page.socket.receive_output(5))["code"] == CLOSE_UNAUTHENTICATED
        await page.socket.send_input({"type": "websocket.disconnect", "code": 1000})
        await page.socket.wait(5)

    talk(conversation)


def test_unknown_kinds_and_malformed_topics_are_refused_to_everybody(world: World) -> None:
    names = ["nonsense", "nonsense:1", "job", "job:", "job:x", "job:-1", "job:1:2", "job:٣", "job:" + "9" * 30, ""]

    async def conversation() -> None:
        async with Page(world.users["operator"]) as page:
            assert await page.subscribe(*names) == sorted(set(names))

    talk(conversation)


def test_who_may_watch_what(world: World) -> None:
    simulated_node(world)
    job = submit(world)
    seen = {persona: topics.may_watch(world.actor(persona), f"job:{job.pk}") for persona in PERSONAS}
    logs = {persona: topics.may_watch(world.actor(persona), f"log:{job.pk}") for persona in PERSONAS}

    assert seen == logs
    assert {persona for persona, may in seen.items() if may} == {"operator", "admin", "member", "auditor"}


def test_no_topic_of_any_kind_is_for_anonymous(world: World) -> None:
    for kind in topics.kinds():
        for topic in (kind, f"{kind}:1"):
            assert not topics.may_watch(world.actor("anonymous"), topic), topic


def test_every_topic_that_commands_announce_is_of_a_known_kind(world: World) -> None:
    assert {"events", "queue", "job", "log", "node", "fleet", "telemetry", "tenant", "quota"} <= set(topics.kinds())


def test_a_stranger_hears_nothing_of_a_job_and_its_member_does(world: World) -> None:
    simulated_node(world)
    topic = f"job:{submit(world).pk}"

    async def conversation() -> None:
        async with Page(world.users["stranger"]) as stranger, Page(world.users["member"]) as member:
            assert await stranger.subscribe(topic) == [topic]
            assert await member.subscribe(topic) == []
            await connected()
            announce([topic])
            while topic not in (await member.hear())["topics"]:
                pass
            assert await stranger.socket.receive_nothing(0.3)

    talk(conversation)


def test_who_was_removed_gets_no_further_topic(world: World) -> None:
    simulated_node(world)
    topic = f"job:{submit(world).pk}"
    membership = world.users["member"].memberships.get()  # type: ignore[attr-defined]
    tenants.remove_member(actor=SYSTEM, membership_id=membership.pk)

    async def conversation() -> None:
        async with Page(world.users["member"]) as page:
            assert await page.subscribe(topic) == [topic]

    talk(conversation)


def test_frames_are_numbered_without_a_gap_few_and_miss_no_topic(world: World) -> None:
    async def conversation() -> None:
        async with Page(world.users["operator"]) as page:
            assert await page.subscribe("fleet", "queue", "events") == []
            await connected()
            began = asyncio.get_running_loop().time()
            frames, heard = [], set()
            for index in range(50):
                announce([("fleet", "queue", "events")[index % 3]])
                await asyncio.sleep(0.02)
            while asyncio.get_running_loop().time() - began < 1.6:
                try:
                    output = await asyncio.wait_for(page.socket.output_queue.get(), 0.3)
                except TimeoutError:
                    break
                frames.append(json.loads(output["text"]))
            for frame in frames:
                heard |= set(frame["topics"])
            assert [frame["seq"] for frame in frames] == list(range(frames[0]["seq"], frames[0]["seq"] + len(frames)))
            assert 2 <= len(frames) <= 8
            assert heard == {"fleet", "queue", "events"}

    talk(conversation)


def test_samples_are_coalesced_to_the_latest(world: World) -> None:
    topic = f"telemetry:{world.cluster.pk}"

    async def conversation() -> None:
        async with Page(world.users["operator"]) as page:
            assert await page.subscribe(topic) == []
            await connected()
            await asyncio.sleep(0.3)
            live.publish_data(topic, {"1": {"cpu": 1}})
            await asyncio.sleep(0.05)
            live.publish_data(topic, {"1": {"cpu": 2}, "2": {"cpu": 9}})
            live.publish_data(topic, {"1": {"cpu": 3}})
            latest: dict[str, Any] = {}
            while latest.get("1") != {"cpu": 3}:
                latest |= (await page.hear()).get("telemetry", {})
            assert latest == {"1": {"cpu": 3}, "2": {"cpu": 9}}

    talk(conversation)


DEEP = pytest.param("[" * 100_000, id="deep")


@pytest.mark.parametrize("message", ["", "no json", "[]", "5", '{"subscribe": 5}', '{"subscribe": null}', "null", DEEP])
def test_nonsense_is_answered_and_the_socket_lives_on(world: World, message: str) -> None:
    async def conversation() -> None:
        async with Page(world.users["operator"]) as page:
            await page.say(message)
            assert "error" in await page.hear()
            assert await page.subscribe("fleet") == []

    talk(conversation)


def test_a_page_watches_a_bounded_number_of_topics(world: World) -> None:
    simulated_node(world)
    jobs = [f"job:{number}" for number in range(1, 400)]

    async def conversation() -> None:
        async with Page(world.users["operator"]) as page:
            assert len(await page.subscribe(*jobs, "fleet")) == 400

    talk(conversation)


def test_unsubscribed_topics_are_heard_no_more(world: World) -> None:
    async def conversation() -> None:
        async with Page(world.users["operator"]) as page:
            await page.subscribe("fleet", "queue")
            await connected()
            await page.say({"unsubscribe": ["fleet", "never-watched"]})
            await asyncio.sleep(0.4)
            while not await page.socket.receive_nothing(0.3):
                await page.hear()
            announce(["fleet", "queue"])
            assert (await page.hear())["topics"] == ["queue"]

    talk(conversation)


@pytest.mark.django_db(transaction=True)
def test_a_reader_below_the_horizon_never_misses_an_event() -> None:
    inserted, commit = threading.Event(), threading.Event()

    def slow() -> None:
        try:
            with transaction.atomic():
                record(SYSTEM, Fact("job.first", "job", 1))
                inserted.set()
                assert commit.wait(10)
        finally:
            connections.close_all()

    def settled() -> list[str]:
        return list(Event.objects.settled().order_by("id").values_list("verb", flat=True))

    thread = threading.Thread(target=slow)
    thread.start()
    assert inserted.wait(10)
    record(SYSTEM, Fact("job.second", "job", 2))

    assert list(Event.objects.values_list("verb", flat=True)) == ["job.second"]
    assert settled() == []  # The first one may still come before it.
    commit.set()
    thread.join()
    # Another worker's test, which is one transaction, holds the horizon of the whole server back.
    deadline = time.monotonic() + 120
    while len(settled()) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert settled() == ["job.first", "job.second"]
