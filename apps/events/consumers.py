"""The one socket of people's pages: sequenced hints of what changed, at most four frames a second.

The page says `{"subscribe": ["run:12"]}` or `{"unsubscribe": […]}`. Frames are `{"seq": n, "topics": […]}`,
with `"telemetry": {node: sample}` when samples came. A page that sees a number skipped fetches everything again.
Topics the person may not watch are answered with `{"refused": […]}`.
"""

import asyncio
import json
from typing import Any

from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer

from apps.core.actors import Actor

from .live import Watch, hub
from .topics import may_watch

FRAME_SECONDS = 0.25
TOPICS_MAX = 200
CLOSE_UNAUTHENTICATED = 4401


class LiveConsumer(AsyncWebsocketConsumer):  # type: ignore[misc]
    """Sends hints for the topics that the page watches and its person may see."""

    async def connect(self) -> None:
        self.watch = Watch()
        self.sequence = 0
        self.sender: asyncio.Task[None] | None = None
        user = self.scope.get("user")
        if user is None or not user.is_authenticated:
            await self.accept()
            await self.close(code=CLOSE_UNAUTHENTICATED)
            return
        await self.accept()
        self.sender = asyncio.create_task(self._send_frames())

    async def disconnect(self, code: int) -> None:
        if self.sender is not None:
            self.sender.cancel()
        hub.unwatch(self.watch)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        try:
            message = json.loads(text_data or "")
            subscribe = [str(topic) for topic in message.get("subscribe", [])]
            unsubscribe = [str(topic) for topic in message.get("unsubscribe", [])]
        except (ValueError, AttributeError, TypeError, RecursionError):
            await self.send(json.dumps({"error": 'Expected {"subscribe": ["topic", …]}.'}))
            return
        hub.unwatch(self.watch, unsubscribe)
        allowed = await self._allowed(subscribe[: TOPICS_MAX - len(self.watch.topics)])
        hub.watch(self.watch, allowed)
        refused = sorted(set(subscribe) - set(allowed))
        if refused:
            await self.send(json.dumps({"refused": refused}))

    @database_sync_to_async
    def _allowed(self, topics: list[str]) -> list[str]:
        actor = self._actor()
        return [topic for topic in topics if may_watch(actor, topic)]

    def _actor(self) -> Actor:
        """Roles are read anew at each subscription, so that a removed member gets no further topic."""
        from .identity import resolve

        return resolve(self.scope["user"])

    async def _send_frames(self) -> None:
        while True:
            await self.watch.changed.wait()
            topics, samples = self.watch.take()
            self.sequence += 1
            frame: dict[str, Any] = {"seq": self.sequence, "topics": sorted(topics)}
            if samples:
                frame["telemetry"] = samples
            await self.send(json.dumps(frame))
            await asyncio.sleep(FRAME_SECONDS)  # Coalesces: what comes meanwhile goes into one frame.
