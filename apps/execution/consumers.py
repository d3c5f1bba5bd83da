"""The agents' socket: one connection a node, driven from the rows.

Reports are stored in batches: whatever arrived while the last batch was being stored is the next one. After a
hint for the node, after each beat and after each batch the connection compares the rows with what the agent
holds and sends the difference, so a lost hint or a lost frame delays a start and nothing more.
"""

import asyncio
import logging
from typing import Any

import msgspec
from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer
from django.conf import settings
from django.db import OperationalError, close_old_connections, transaction

from apps.core.actors import Actor
from apps.core.errors import DomainError
from apps.events.live import Watch, hub
from apps.fleet.queries import node_of_credential
from apps.jobs import commands as jobs
from rmctl.agent import protocol

from .commands import append_log, hello, take_reports
from .dispatch import difference
from .listener import listener

logger = logging.getLogger(__name__)

COALESCE_SECONDS = 0.01


class AgentConsumer(AsyncWebsocketConsumer):  # type: ignore[misc]
    """Speaks the agent protocol for one node."""

    async def connect(self) -> None:
        self.node_id: int | None = None
        self.tasks: list[asyncio.Task[None]] = []
        self.watch = Watch()
        header = dict(self.scope["headers"]).get(b"authorization", b"").decode("latin-1")
        kind, _, credential = header.partition(" ")
        node = await database_sync_to_async(node_of_credential)(credential.strip()) if kind == "Agent" else None
        await self.accept()
        if node is None:
            await self.close(code=protocol.CLOSE_UNAUTHORISED)
            return
        self.node_id = node.pk
        self.actor = Actor(label=f"agent:{node.name}", node_id=node.pk)
        self.held: set[tuple[int, int]] = set()
        # Sent, but not yet in a beat of the agent.
        self.sent: set[tuple[int, int]] = set()
        self.greeted = False
        self.inbox: asyncio.Queue[protocol.Reports | protocol.Log | protocol.Hello] = asyncio.Queue(maxsize=1000)
        listener.arrived(node.pk, self)
        hub.watch(self.watch, [f"node:{node.pk}"])
        await self._send(
            protocol.Welcome(
                node=node.pk,
                name=node.name,
                beat_seconds=settings.AGENT_BEAT_SECONDS,
                lease_seconds=settings.LEASE_SECONDS,
            )
        )
        self.tasks = [asyncio.create_task(self._store()), asyncio.create_task(self._dispatch())]

    async def disconnect(self, code: int) -> None:
        for task in self.tasks:
            task.cancel()
        hub.unwatch(self.watch)
        if self.node_id is not None:
            listener.left(self.node_id, self)

    async def replaced(self) -> None:
        """A newer connection of this node has come."""
        await self.close(code=protocol.CLOSE_REPLACED)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if self.node_id is None:
            return
        try:
            message = protocol.decode_from_agent(bytes_data or b"")
        except msgspec.DecodeError as error:
            logger.warning("Agent of node %s sent a frame that is not of the protocol: %s", self.node_id, error)
            await self.close(code=1003)
            return
        if isinstance(message, protocol.Beat):
            listener.heard(self.node_id, message)
            self._holds(message.held)
            self.watch.changed.set()
        else:
            await self.inbox.put(message)

    def _holds(self, held: list[protocol.Held]) -> None:
        """What the agent says it holds is the truth about it, except for what was sent a moment ago."""
        told = {(item.placement, item.token) for item in held}
        self.sent -= told
        self.held = told | self.sent

    async def _send(self, message: protocol.FromPortal) -> None:
        await self.send(bytes_data=protocol.encode(message))

    async def _store(self) -> None:
        """Take frames in order; reports that queued up meanwhile are stored in one transaction."""
        clock = asyncio.get_running_loop().time
        next_batch = 0.0
        while True:
            message = await self.inbox.get()
            if clock() < next_batch:
                await asyncio.sleep(next_batch - clock())
            batch = [message]
            while not self.inbox.empty() and len(batch) < 500:
                batch.append(self.inbox.get_nowait())
            position = 0
            while position < len(batch):
                message = batch[position]
                position += 1
                if isinstance(message, protocol.Reports):
                    group = [message]
                    while position < len(batch) and isinstance(batch[position], protocol.Reports):
                        group.append(batch[position])  # type: ignore[arg-type]
                        position += 1
                    await self._store_reports(group)
                elif isinstance(message, protocol.Log):
                    await self._store_log(message)
                else:
                    await self._greet(message)
            # A busy agent's frames are collected, so that one transaction stores many; a lone one never waits.
            next_batch = clock() + COALESCE_SECONDS if len(batch) > 2 else 0.0

    async def _retry(self, function: Any, **arguments: Any) -> Any:
        """Run a command in a thread; a database that is away is waited for, the agent keeps what it has."""
        pause = 0.1
        while True:
            try:
                return await database_sync_to_async(_fresh)(function, **arguments)
            except OperationalError as error:
                logger.warning("Database is away, an agent's message waits %.1f s: %s", pause, error)
                await asyncio.sleep(pause)
                pause = min(2 * pause, 2.0)

    async def _greet(self, message: protocol.Hello) -> None:
        await self._retry(hello, actor=self.actor, node_id=self.node_id, message=message)
        self.sent = set()
        self.held = {(item.placement, item.token) for item in message.held}
        self.greeted = True
        self.watch.changed.set()

    async def _store_reports(self, group: list[protocol.Reports]) -> None:
        items = [item for reports in group for item in reports.items]
        refused = await self._retry(take_reports, actor=self.actor, node_id=self.node_id, reports=items)
        for reports in group:
            mine = {(item.placement, item.token) for item in reports.items}
            answer = [key for key in refused if tuple(key) in mine]
            await self._send(protocol.ReportsAck(sequence=reports.sequence, refused=answer))
        for item in items:
            if item.kind == "ended":
                self.held.discard((item.placement, item.token))
                self.sent.discard((item.placement, item.token))

    async def _store_log(self, message: protocol.Log) -> None:
        try:
            size = await self._retry(
                append_log,
                node_id=self.node_id,
                placement_id=message.placement,
                token=message.token,
                offset=message.offset,
                data=message.data,
            )
        except DomainError as error:
            logger.info("Log of placement %s refused: %s", message.placement, error)
            size = message.offset + len(message.data)  # Nobody wants it: let the agent go on.
        await self._send(protocol.LogAck(placement=message.placement, token=message.token, size=size))

    async def _dispatch(self) -> None:
        """Whenever something may have changed, send the difference between the rows and the agent."""
        while True:
            await self.watch.changed.wait()
            self.watch.take()
            if not self.greeted:
                continue
            message = await self._retry(self._difference)
            if message.start or message.stop:
                for item in message.start:
                    self.held.add((item.placement, item.token))
                    self.sent.add((item.placement, item.token))
                await self._send(message)

    def _difference(self) -> protocol.Desired:
        assert self.node_id is not None
        found = difference(self.node_id, self.held)
        if found.unborn:
            with transaction.atomic():
                jobs.end_unborn(actor=self.actor, placement_ids=found.unborn)
        return found.message


def _fresh(function: Any, **arguments: Any) -> Any:
    """Call with a healthy connection: one that broke earlier in this thread is replaced."""
    close_old_connections()
    return function(**arguments)
