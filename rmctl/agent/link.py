"""The agent's one connection to the portal: dials out, says what it holds, and comes back after every break."""

import asyncio
import logging
import random
from collections import deque

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from rmctl.agent import protocol
from rmctl.agent.executor import Executor
from rmctl.agent.holdings import Store
from rmctl.agent.inventory import Hardware
from rmctl.agent.portal import Portal
from rmctl.agent.protocol import Beat, Desired, FromAgent, Hello, Holdings, LogAck, ReportsAck, Welcome

FIRST_DELAY_SECONDS = 0.1
MAX_DELAY_SECONDS = 5.0
WELCOME_SECONDS = 10.0
PING_SECONDS = 5.0

logger = logging.getLogger("rmctl.agent")


class Revoked(Exception):
    """The portal does not know this node's credential any more."""


class Slept(Exception):
    """This process stood still for longer than its leases last: what lies in the socket may be no longer true."""


class Link:
    """Speaks the protocol for one executor. `run` returns only by raising Revoked or being cancelled."""

    def __init__(self, portal: Portal, executor: Executor, hardware: Hardware, store: Store | None = None) -> None:
        self.portal = portal
        self.executor = executor
        self.hardware = hardware
        self.runtimes = ["process", *([executor.runtime.name] if executor.runtime else [])]
        self._outgoing: deque[FromAgent] = deque()
        self._waiting = asyncio.Event()
        self._away = ""
        # When it last gave a sign of life (time of the event loop), and for how long the portal then counts on it.
        self._alive_at, self._lease = 0.0, 0.0
        self.store = store
        self._told: Holdings | None = None
        if store is not None:
            store.told = self._tell

    def _tell(self, found: Holdings) -> None:
        """Say what lies ready now; while there is no connection the next greeting does."""
        if self._told is not None:
            self._told = found
            self._send(found)

    async def run(self) -> None:
        delay = FIRST_DELAY_SECONDS
        while True:
            loop = asyncio.get_running_loop()
            began = loop.time()
            try:
                await self._connection()
            except ConnectionClosed as closed:
                code = closed.rcvd.code if closed.rcvd else 0
                if code == protocol.CLOSE_UNAUTHORISED:
                    raise Revoked from closed
                if code == protocol.CLOSE_REPLACED:
                    logger.warning(
                        "another agent connected with this node's credential; is it running twice?"
                    )
                    delay = MAX_DELAY_SECONDS
                self._say_away(f"the connection was closed ({code})")
            except InvalidStatus as refused:
                if refused.response.status_code == 401:
                    raise Revoked from refused
                self._say_away(f"it refused the connection with status {refused.response.status_code}")
            except (OSError, InvalidHandshake, TimeoutError, msgspec.DecodeError, Slept) as error:
                self._say_away(str(error) or type(error).__name__)
            if loop.time() - began > MAX_DELAY_SECONDS:
                delay = FIRST_DELAY_SECONDS
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))
            delay = min(delay * 2, MAX_DELAY_SECONDS)

    def _say_away(self, why: str) -> None:
        if why != self._away:
            logger.warning("%s is away: %s; tasks go on, trying again", self.portal.url, why)
            self._away = why

    async def _connection(self) -> None:
        """One connection from greeting to break."""
        async with connect(
            self.portal.socket_url,
            additional_headers=self.portal.headers,
            compression=None,
            max_size=protocol.MAX_FRAME_BYTES,
            ping_interval=PING_SECONDS,
            ping_timeout=2 * PING_SECONDS,
            close_timeout=1.0,
        ) as socket:
            executor = self.executor
            holdings = self.store.now if self.store is not None else Holdings()
            inventory = self.hardware.inventory(self.runtimes, executor.isolation, holdings)
            greeted = asyncio.get_running_loop().time()  # It may stand still before it reads the answer, too.
            await socket.send(protocol.encode(Hello(protocol.VERSION, inventory, executor.held())))
            welcome = await asyncio.wait_for(_receive(socket), WELCOME_SECONDS)
            if not isinstance(welcome, Welcome):
                raise msgspec.ValidationError("the portal did not answer with a welcome")
            logger.info("connected to %s as node %s (%d)", self.portal.url, welcome.name, welcome.node)
            self._away = ""
            self._alive_at, self._lease = greeted, welcome.lease_seconds
            self._outgoing.clear()
            self._told = holdings
            if self.store is not None and self.store.now != holdings:
                self._tell(self.store.now)
            executor.outbox.connected(self._send)
            executor.shipper.connected(self._send)
            others = [
                asyncio.create_task(self._write(socket)),
                asyncio.create_task(self._beat(socket, welcome.beat_seconds)),
            ]
            try:
                while True:
                    message = await _receive(socket)
                    if self._slept():
                        raise Slept("this process stood still for longer than its leases last")
                    self._handle(message)
            finally:
                self._told = None
                executor.outbox.disconnected()
                executor.shipper.disconnected()
                for other in others:
                    other.cancel()
                await asyncio.gather(*others, return_exceptions=True)

    def _slept(self) -> bool:
        """Whether the portal has given this node's work up since the last beat, with assignments still to be read
        here; once it is greeted again it says anew what to do."""
        return asyncio.get_running_loop().time() - self._alive_at > self._lease

    def _handle(self, message: protocol.FromPortal) -> None:
        executor = self.executor
        match message:
            case Desired(start, stop):
                for assignment in start:
                    executor.start(assignment)
                for item in stop:
                    executor.stop(item)
            case ReportsAck(sequence, refused):
                for key in refused:
                    executor.refuse(key)
                executor.outbox.acknowledge(sequence)
            case LogAck(placement, token, size):
                executor.shipper.acknowledge((placement, token), size)
            case Welcome():
                pass

    def _send(self, message: FromAgent) -> None:
        self._outgoing.append(message)
        self._waiting.set()

    async def _write(self, socket: ClientConnection) -> None:
        while True:
            while self._outgoing:
                await socket.send(protocol.encode(self._outgoing.popleft()))
            self._waiting.clear()
            await self._waiting.wait()

    async def _beat(self, socket: ClientConnection, seconds: float) -> None:
        """Until the process has slept: then the connection ends, as what it carries is no longer true."""
        while not self._slept():
            self._alive_at = asyncio.get_running_loop().time()
            # A beat that is still waiting to be sent says the same.
            if not any(isinstance(message, Beat) for message in self._outgoing):
                executor = self.executor
                telemetry = self.hardware.telemetry(len(executor.running()))
                self._send(Beat(telemetry, executor.held(), executor.checkpoints()))
            await asyncio.sleep(seconds)
        await socket.close()


async def _receive(socket: ClientConnection) -> protocol.FromPortal:
    frame = await socket.recv(decode=False)
    return protocol.decode_from_portal(frame)
