"""Hints to live views: after each commit one Redis message names the topics that changed.

A hint carries no data. Each web process holds one subscription (`Hub`) and wakes the sockets and agent
connections that watch a topic; they read what changed from PostgreSQL. Losing a hint delays a view until its
next one or its periodic refresh, and loses nothing else.
"""

import asyncio
import json
import logging
from collections import defaultdict
from collections.abc import Iterable

import redis.asyncio
from django.conf import settings
from redis.exceptions import RedisError

from apps.core import redis as core_redis

logger = logging.getLogger(__name__)

CHANNEL = "rmportal:live"


TOPICS = core_redis.Hint(lambda topics: ("PUBLISH", CHANNEL, json.dumps({"topics": sorted(topics)})))


def publish(topics: Iterable[str]) -> None:
    """Announce the topics when the present transaction commits; all of one transaction in one message."""
    core_redis.hint_on_commit(TOPICS, topics)


def publish_data(topic: str, data: dict[str, object]) -> None:
    """Send a small coalescable sample (telemetry) to whoever watches the topic; not part of a transaction."""
    core_redis.hint("PUBLISH", CHANNEL, json.dumps({"topics": [topic], "data": data}))


class Watch:
    """What one socket watches: `dirty` collects topics until the socket takes them."""

    def __init__(self) -> None:
        self.topics: set[str] = set()
        self.dirty: set[str] = set()
        self.samples: dict[str, object] = {}
        self.changed = asyncio.Event()

    def take(self) -> tuple[set[str], dict[str, object]]:
        """Everything since the last call; clears it."""
        dirty, samples = self.dirty, self.samples
        self.dirty, self.samples = set(), {}
        self.changed.clear()
        return dirty, samples


class Hub:
    """This process's one Redis subscription, shared by all of its sockets."""

    def __init__(self) -> None:
        self._watches: dict[str, set[Watch]] = defaultdict(set)
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def watch(self, watch: Watch, topics: Iterable[str]) -> None:
        """Add topics to a watch; starts the subscription with the first one of this event loop."""
        for topic in topics:
            watch.topics.add(topic)
            self._watches[topic].add(watch)
        loop = asyncio.get_running_loop()
        if self._task is None or self._task.done() or self._loop is not loop:
            self._loop = loop
            self._task = loop.create_task(self._listen())

    def unwatch(self, watch: Watch, topics: Iterable[str] | None = None) -> None:
        """Remove topics (all by default)."""
        for topic in list(watch.topics if topics is None else topics):
            watch.topics.discard(topic)
            self._watches[topic].discard(watch)
            if not self._watches[topic]:
                del self._watches[topic]

    def notify(self, topics: Iterable[str], data: dict[str, object] | None = None) -> None:
        """Wake the local watches of the topics."""
        for topic in topics:
            for watch in self._watches.get(topic, ()):
                if data is None:
                    watch.dirty.add(topic)
                else:
                    watch.samples.update(data)
                watch.changed.set()

    def _notify_everybody(self) -> None:
        for topic in list(self._watches):
            self.notify([topic])

    async def _listen(self) -> None:
        pause = 0.1
        while True:
            try:
                async with (
                    redis.asyncio.Redis.from_url(settings.REDIS_URL) as client,
                    client.pubsub(ignore_subscribe_messages=True) as subscription,
                ):
                    await subscription.subscribe(CHANNEL)
                    task = asyncio.current_task()
                    if task is not None and task.cancelling():
                        raise asyncio.CancelledError  # The library may swallow it while it connects.
                    pause = 0.1
                    self._notify_everybody()  # Hints may have been missed while away.
                    async for message in subscription.listen():
                        frame = json.loads(message["data"])
                        self.notify(frame["topics"], frame.get("data"))
            except (RedisError, OSError) as error:
                logger.warning("Live hints are away, trying again in %.1f s: %s", pause, error)
                await asyncio.sleep(pause)
                pause = min(pause * 2, 5.0)


hub = Hub()
