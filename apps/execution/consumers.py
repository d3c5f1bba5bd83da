"""The agents' socket: one connection a node, driven from the rows.

Reports are stored in batches: whatever arrived while the last batch was being stored is the next one. After a
hint for the node, after each beat and after each batch the connection compares the rows with what the agent
holds and sends the difference, so a lost hint or a lost frame delays a start and nothing more.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer
from django.conf import settings
from django.db import InterfaceError, OperationalError, close_old_connections, connection, transaction

from apps.core.actors import Actor
from apps.core.errors import DomainError
from apps.events.live import Watch, hub
from apps.fleet import commands as fleet
from apps.fleet.queries import node_of_credential
from apps.jobs import commands as jobs
from rmctl.agent import protocol

from .commands import append_log, hello, take_reports
from .commands.intake import FORGOTTEN
from .dispatch import START_BATCH, difference
from .listener import listener

logger = logging.getLogger(__name__)

# A beat may have been written before what was sent had arrived, and another before that; not a third.
UNTOLD_BEATS = 3


class AgentConsumer(AsyncWebsocketConsumer):  # type: ignore[misc]
    """Speaks the agent protocol for one node."""

    async def connect(self) -> None:
        self.node_id: int | None = None
        self.tasks: list[asyncio.Task[None]] = []
        self.watch = Watch()
        header = dict(self.scope["headers"]).get(b"authorization", b"").decode("latin-1")
        kind, _, credential = header.partition(" ")
        credential = credential.strip() if kind == "Agent" else ""
        node = await database_sync_to_async(fleet.connect_node)(credential=credential)
        await self.accept()
        if node is None:
            await self.close(code=protocol.CLOSE_UNAUTHORISED)
            return
        self.node_id = node.pk
        self.credential, self.connection = credential, node.connection
        self.actor = Actor(label=f"agent:{node.name}", node_id=node.pk)
        self.held: set[tuple[int, int]] = set()
        # Sent, but not yet in a beat of the agent; with the number of beats since.
        self.sent: dict[tuple[int, int], int] = {}
        # Held only until their reports and logs are stored: there is nothing to stop any more.
        self.over: frozenset[tuple[int, int]] = frozenset()
        self.greeted = False
        self.beaten = False
        self.inbox: asyncio.Queue[protocol.Reports | protocol.Log | protocol.Hello] = asyncio.Queue(maxsize=1000)
        listener.arrived(node.pk, self)
        hub.watch(self.watch, [f"node:{node.pk}", fleet.connection_topic(node.pk)])
        await self._send(
            protocol.Welcome(
                node=node.pk,
                name=node.name,
                beat_seconds=settings.AGENT_BEAT_SECONDS,
                lease_seconds=settings.LEASE_SECONDS,
            )
        )
        self.tasks = [
            asyncio.create_task(self._until_broken(self._store)),
            asyncio.create_task(self._until_broken(self._dispatch)),
        ]

    async def _until_broken(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run one half of the connection; when it fails, close, so that the agent comes back and says it all again."""
        try:
            await work()
        except fleet.Replaced:
            await self.replaced()
        except DomainError as error:
            logger.warning("Agent of node %s was refused: %s", self.node_id, error)
            await self.close(code=1008)
        except Exception:
            logger.exception("The connection of node %s failed.", self.node_id)
            await self.close(code=1011)

    def _cancel(self) -> None:
        for task in self.tasks:
            if task is not asyncio.current_task():
                task.cancel()

    async def disconnect(self, code: int) -> None:
        self._cancel()
        hub.unwatch(self.watch)
        if self.node_id is not None:
            listener.left(self.node_id, self)

    async def replaced(self) -> None:
        """A newer connection of this node has come; this one does nothing more, even if its peer is silent."""
        self._cancel()
        hub.unwatch(self.watch)
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
            listener.heard(self.node_id, self.connection, message)
            self._holds(message.held)
            self.beaten = True
            self.watch.changed.set()
        else:
            await self.inbox.put(message)

    def _holds(self, held: list[protocol.Held]) -> None:
        """What the agent says it holds is the truth about it, except for what was sent a moment ago.

        What it does not name in a few beats never arrived, or was gone before it could be named.
        """
        told = {(item.placement, item.token) for item in held}
        self.over = frozenset((item.placement, item.token) for item in held if item.state == "ended")
        self.sent = {
            key: beats + 1 for key, beats in self.sent.items() if key not in told and beats + 1 < UNTOLD_BEATS
        }
        self.held = told | self.sent.keys()

    async def _send(self, message: protocol.FromPortal) -> None:
        await self.send(bytes_data=protocol.encode(message))

    async def _store(self) -> None:
        """Take frames in order; reports that queued up meanwhile are stored in one transaction."""
        while True:
            message = await self.inbox.get()
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
                elif isinstance(message, protocol.Holdings):
                    await self._retry(
                        fleet.update_holdings,
                        actor=self.actor,
                        node_id=self.node_id,
                        connection=self.connection,
                        holdings=message,
                    )
                else:
                    await self._greet(message)

    async def _retry(self, function: Any, **arguments: Any) -> Any:
        """Run a command in a thread; a database that is away is waited for, the agent keeps what it has."""
        pause = 0.1
        while True:
            try:
                return await database_sync_to_async(_fresh)(function, **arguments)
            except (OperationalError, InterfaceError) as error:
                logger.warning("Database is away, an agent's message waits %.1f s: %s", pause, error)
                await asyncio.sleep(pause)
                pause = min(2 * pause, 2.0)

    async def _greet(self, message: protocol.Hello) -> None:
        await self._retry(
            hello, actor=self.actor, node_id=self.node_id, connection=self.connection, message=message
        )
        self.sent = {}
        self._holds(message.held)
        self.greeted = True
        self.watch.changed.set()

    async def _store_reports(self, group: list[protocol.Reports]) -> None:
        items = [item for reports in group for item in reports.items]
        refused = await self._retry(
            take_reports, actor=self.actor, node_id=self.node_id, reports=items, connection=self.connection
        )
        for reports in group:
            mine = {(item.placement, item.token) for item in reports.items}
            answer = [key for key in refused if tuple(key) in mine]
            await self._send(protocol.ReportsAck(sequence=reports.sequence, refused=answer))
        for item in items:
            if item.kind == "ended":
                self.held.discard((item.placement, item.token))
                self.sent.pop((item.placement, item.token), None)

    async def _store_log(self, message: protocol.Log) -> None:
        try:
            size = await self._retry(
                append_log,
                node_id=self.node_id,
                placement_id=message.placement,
                token=message.token,
                offset=message.offset,
                data=message.data,
                connection=self.connection,
            )
        except fleet.Replaced:
            raise
        except DomainError as error:
            logger.info("Log of placement %s refused: %s", message.placement, error)
            size = message.offset + len(message.data)  # Nobody wants it: let the agent go on.
        await self._send(protocol.LogAck(placement=message.placement, token=message.token, size=size))

    async def _dispatch(self) -> None:
        """Whenever something may have changed, send the difference between the rows and the agent."""
        while True:
            await self.watch.changed.wait()
            topics, _ = self.watch.take()
            if not self.greeted:
                continue
            if self.beaten or fleet.connection_topic(self.node_id) in topics:
                self.beaten = False
                known = await self._retry(node_of_credential, credential=self.credential)
                if known is None:
                    await self.close(code=protocol.CLOSE_UNAUTHORISED)
                    return
                if known.connection != self.connection:
                    raise fleet.Replaced(f"A newer connection speaks for node {self.node_id}.")
            # A copy: what is stored while the rows are read must not make a member look as if it were missing.
            message = await self._retry(self._difference, held=frozenset(self.held), over=self.over)
            if message.start or message.stop:
                started = {(item.placement, item.token) for item in message.start}
                self.held |= started
                self.sent |= dict.fromkeys(started, 0)
                for item in message.stop:
                    self.sent.pop((item.placement, item.token), None)
                await self._send_desired(message)
            if len(message.start) >= START_BATCH:
                self.watch.changed.set()

    def _difference(self, held: frozenset[tuple[int, int]], over: frozenset[tuple[int, int]]) -> protocol.Desired:
        assert self.node_id is not None
        found = difference(self.node_id, self.connection, held, over)
        if found.unborn or found.unstartable or found.vanished:
            with transaction.atomic():
                jobs.end_unborn(actor=self.actor, placement_ids=found.unborn)
                jobs.end_unstartable(actor=self.actor, details=found.unstartable)
                jobs.end_lost(actor=self.actor, placement_ids=found.vanished, detail=FORGOTTEN)
        return found.message

    async def _send_desired(self, message: protocol.Desired) -> None:
        """In as many frames as the agent takes: assignments carry their inputs."""
        frame = protocol.encode(message)
        if len(frame) <= protocol.MAX_FRAME_BYTES or len(message.start) < 2:
            await self.send(bytes_data=frame)
            return
        half = len(message.start) // 2
        await self._send_desired(protocol.Desired(message.start[:half], message.stop))
        await self._send_desired(protocol.Desired(message.start[half:]))


def _fresh(function: Any, **arguments: Any) -> Any:
    """Call with a healthy connection: one that broke earlier in this thread is replaced. It is not asked for its health
    first: one that has just broken says so, and the call is repeated."""
    close_old_connections()
    connection.health_check_done = True
    return function(**arguments)
