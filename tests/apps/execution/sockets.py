"""A node's agent as seen from its socket: speaks the agent protocol to the real consumer, without a server."""

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from asgiref.testing import ApplicationCommunicator

from apps.execution.consumers import AgentConsumer
from rmctl.agent import protocol
from rmctl.agent.protocol import (
    Beat,
    Desired,
    Held,
    Hello,
    Log,
    LogAck,
    Report,
    Reports,
    ReportsAck,
    Telemetry,
    Welcome,
)

M = TypeVar("M", Welcome, Desired, ReportsAck, LogAck)
PATIENCE = 5.0
INVENTORY = protocol.Inventory(
    hostname="machine", os="Linux", arch="x86_64", python="3.11", cpu_millicores=8000,
    memory_bytes=32 * 2**30, storage_bytes=200 * 2**30,
)  # fmt: skip


class AgentSocket:
    """One connection; use it as an async context manager."""

    def __init__(self, credential: str) -> None:
        headers = [(b"authorization", f"Agent {credential}".encode())]
        scope = {"type": "websocket", "path": "/ws/agent/", "headers": headers, "query_string": b""}
        self.socket = ApplicationCommunicator(AgentConsumer.as_asgi(), scope)
        self.sequence = 0

    async def __aenter__(self) -> Self:
        await self.socket.send_input({"type": "websocket.connect"})
        assert (await self.socket.receive_output(PATIENCE))["type"] == "websocket.accept"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.socket.send_input({"type": "websocket.disconnect", "code": 1000})
        await self.socket.wait(PATIENCE)

    async def send_frame(self, frame: bytes) -> None:
        await self.socket.send_input({"type": "websocket.receive", "bytes": frame})

    async def send(self, message: protocol.FromAgent) -> None:
        await self.send_frame(protocol.encode(message))

    async def frame(self) -> bytes:
        """The next frame."""
        output = await self.socket.receive_output(PATIENCE)
        assert output["type"] == "websocket.send", output
        return bytes(output["bytes"])

    async def receive(self, kind: type[M]) -> M:
        """The next message, which must be of this kind."""
        message = protocol.decode_from_portal(await self.frame())
        assert isinstance(message, kind), message
        return message

    async def closed(self) -> int:
        """The code with which the portal closes."""
        output = await self.socket.receive_output(PATIENCE)
        assert output["type"] == "websocket.close", output
        return int(output["code"])

    async def quiet(self) -> bool:
        """Whether the portal says nothing for a while."""
        return await self.socket.receive_nothing(timeout=0.3)

    async def hello(self, held: Sequence[Held] = ()) -> None:
        await self.receive(Welcome)
        await self.send(Hello(protocol.VERSION, INVENTORY, list(held)))

    async def beat(self, held: Sequence[Held] = ()) -> None:
        await self.send(Beat(Telemetry(at=0.0), list(held)))

    async def report(self, *items: Report) -> list[tuple[int, int]]:
        """Send a batch and return what was refused once it is stored."""
        self.sequence += 1
        await self.send(Reports(self.sequence, list(items)))
        answer = await self.receive(ReportsAck)
        assert answer.sequence == self.sequence
        return answer.refused

    async def log(self, placement: Any, offset: int, data: bytes, token: int = 1) -> int:
        """Send a piece of a log; returns how much the portal says it has."""
        await self.send(Log(placement.pk, token, offset, data))
        answer = await self.receive(LogAck)
        assert (answer.placement, answer.token) == (placement.pk, token)
        return answer.size
