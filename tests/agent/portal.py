"""A portal for the agent's tests: speaks the agent protocol over real sockets, in a thread of the test process."""

import asyncio
import hashlib
import json
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import uvicorn

from rmctl.agent import protocol
from rmctl.agent.protocol import (
    Assignment,
    Beat,
    Desired,
    Hello,
    Log,
    LogAck,
    Report,
    Reports,
    ReportsAck,
    Stop,
    Welcome,
)

TOKEN = "one-time-token"
CREDENTIAL = "node-credential"
WAIT_SECONDS = 60.0

Key = tuple[int, int]


class TestPortal:
    """Records what the agent says; `push` tells it what to do. `wait_for` blocks until something is true."""

    __test__ = False

    def __init__(self) -> None:
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.reports: list[Report] = []
        self.frames: list[Reports] = []
        self.logs: dict[Key, bytearray] = {}
        self.finals: set[Key] = set()
        self.hellos: list[Hello] = []
        self.beats: list[Beat] = []
        self.artifacts: dict[tuple[int, str], bytes] = {}
        self.bundles: dict[str, bytes] = {}
        # Of a placement: the time, digest and bytes of what it has saved, each time; and what it is to be given.
        self.saved: dict[int, list[tuple[float, str, bytes]]] = {}
        self.to_restore: dict[int, bytes] = {}
        self.refuse_saving: tuple[int, bytes] | None = None
        # What tasks asked of their state, as (placement, query, body), and what is answered instead of the truth.
        self.asked: list[tuple[int, str, dict[str, Any]]] = []
        self.state: dict[str, Any] = {}
        self.refuse_state: tuple[int, bytes] | None = None
        self.downloads: list[str] = []
        self.joins: list[dict[str, Any]] = []
        self.refused: set[Key] = set()
        self.acknowledging = True
        self.failing_uploads = 0
        self.revoked = False
        self.lease_seconds = 15.0
        self.changed = threading.Condition()
        self._outgoing: asyncio.Queue[bytes] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    # For tests

    def start(self) -> None:
        config = uvicorn.Config(
            self._app, interface="asgi3", host="127.0.0.1", port=self.port, log_level="error", lifespan="off",
            ws="websockets-sansio", ws_max_size=protocol.MAX_FRAME_BYTES, timeout_graceful_shutdown=1,
        )  # fmt: skip
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        deadline = time.monotonic() + WAIT_SECONDS
        while not self._server.started:
            assert time.monotonic() < deadline, "the test portal did not start"
            time.sleep(0.01)

    def stop(self) -> None:
        assert self._server is not None and self._thread is not None
        self._server.should_exit = True
        self._server.force_exit = True
        self._thread.join(WAIT_SECONDS)
        assert not self._thread.is_alive()

    def push(self, *start: Assignment, stop: list[Stop] | None = None) -> None:
        self.wait_for(lambda: self._outgoing is not None, "a connection")
        assert self._loop is not None and self._outgoing is not None
        frame = protocol.encode(Desired(list(start), stop or []))
        self._loop.call_soon_threadsafe(self._outgoing.put_nowait, frame)

    def wait_for(self, true: Callable[[], Any], what: str, seconds: float = WAIT_SECONDS) -> Any:
        with self.changed:
            found = self.changed.wait_for(true, seconds)
        assert found, f"waited {seconds} s for {what}"
        return found

    def report(self, placement: int, kind: str) -> Report | None:
        return next(
            (item for item in self.reports if item.placement == placement and item.kind == kind), None
        )

    def started(self, placement: int) -> Report:
        report: Report = self.wait_for(lambda: self.report(placement, "started"), f"{placement} to start")
        return report

    def ended(self, placement: int, seconds: float = WAIT_SECONDS) -> Report:
        report: Report = self.wait_for(
            lambda: self.report(placement, "ended"), f"{placement} to end", seconds
        )
        return report

    def log(self, placement: int, token: int = 1) -> bytes:
        """The whole log of an ended task, once it is complete."""
        size = self.ended(placement).log_size
        self.wait_for(lambda: len(self.logs.get((placement, token), b"")) >= size, f"the log of {placement}")
        return bytes(self.logs.get((placement, token), b""))

    def add_bundle(self, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        self.bundles[digest] = data
        return digest

    # The server

    async def _app(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await self._socket(scope, receive, send)
        else:
            status, body = await self._http(scope, receive)
            headers = [(b"content-length", str(len(body)).encode())]
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": body})
            self._tell()

    async def _http(self, scope: dict[str, Any], receive: Any) -> tuple[int, bytes]:
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        path = scope["path"]
        if path == "/api/v1/agent/join":
            asked = json.loads(body)
            self.joins.append(asked)
            if asked["token"] != TOKEN:
                return 403, json.dumps({"detail": "token: it is unknown, used or expired"}).encode()
            return 200, json.dumps({"node": 7, "credential": CREDENTIAL, "cluster": 1}).encode()
        if dict(scope["headers"]).get(b"authorization") != f"Agent {CREDENTIAL}".encode():
            return 401, b"{}"
        if path.startswith("/api/v1/agent/bundles/"):
            digest = path.rpartition("/")[2]
            self.downloads.append(digest)
            return (
                (200, self.bundles[digest])
                if digest in self.bundles
                else (404, b'{"detail": "no such bundle"}')
            )
        if path.startswith("/api/v1/agent/placements/") and path.endswith("/checkpoint"):
            return self._checkpoint(scope, int(path.split("/")[-2]), body)
        if path.startswith("/api/v1/agent/placements/") and path.endswith("/state"):
            return self._state(scope, int(path.split("/")[-2]), json.loads(body))
        if path.startswith("/api/v1/agent/placements/"):
            if self.failing_uploads:
                self.failing_uploads -= 1
                return 503, b""
            placement, _, name = path.removeprefix("/api/v1/agent/placements/").partition("/artifacts/")
            self.artifacts[int(placement), name] = body
            return 204, b""
        return 404, b"{}"

    def _checkpoint(self, scope: dict[str, Any], placement: int, body: bytes) -> tuple[int, bytes]:
        if scope["method"] == "GET":
            found = self.to_restore.get(placement)
            return (404, b'{"detail": "there is none"}') if found is None else (200, found)
        if self.refuse_saving is not None:
            return self.refuse_saving
        if self.failing_uploads:
            self.failing_uploads -= 1
            return 503, b""
        query = dict(pair.split("=") for pair in scope["query_string"].decode().split("&"))
        assert query["sha256"] == hashlib.sha256(body).hexdigest()
        self.saved.setdefault(placement, []).append((float(query["at"]), query["sha256"], body))
        return 200, b"{}"

    def _state(self, scope: dict[str, Any], placement: int, body: dict[str, Any]) -> tuple[int, bytes]:
        self.asked.append((placement, scope["query_string"].decode(), body))
        if self.refuse_state is not None:
            return self.refuse_state
        if body["operation"] == "set":
            self.state[body["key"]] = body["value"]
        found = body["key"] in self.state
        answer = {"found": found, "value": self.state.get(body["key"]), "version": int(found), "written": True}
        return 200, json.dumps(answer).encode()

    async def _socket(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        known = dict(scope["headers"]).get(b"authorization") == f"Agent {CREDENTIAL}".encode()
        if self.revoked or not known or scope["path"] != "/ws/agent/":
            await send({"type": "websocket.close", "code": protocol.CLOSE_UNAUTHORISED})
            return
        self._loop = asyncio.get_running_loop()
        outgoing: asyncio.Queue[bytes] = asyncio.Queue()
        writer = asyncio.create_task(_write(outgoing, send))
        try:
            while (message := await receive())["type"] == "websocket.receive":
                for answer in self._answers(protocol.decode_from_agent(message["bytes"])):
                    outgoing.put_nowait(protocol.encode(answer))
                    if isinstance(answer, Welcome):
                        self._outgoing = outgoing
                self._tell()
        finally:
            writer.cancel()
            if self._outgoing is outgoing:
                self._outgoing = None

    def _answers(self, message: protocol.FromAgent) -> list[protocol.FromPortal]:
        match message:
            case Hello():
                self.hellos.append(message)
                return [Welcome(7, "node-7", beat_seconds=0.2, lease_seconds=self.lease_seconds)]
            case Beat():
                self.beats.append(message)
            case Reports(sequence, items):
                self.frames.append(message)
                if self.acknowledging:
                    self.reports.extend(items)
                    keys = {(item.placement, item.token) for item in items}
                    return [ReportsAck(sequence, sorted(keys & self.refused))]
            case Log(placement, token, offset, data, final):
                log = self.logs.setdefault((placement, token), bytearray())
                if offset <= len(log):
                    log.extend(data[len(log) - offset :])
                if final:
                    self.finals.add((placement, token))
                if self.acknowledging:
                    return [LogAck(placement, token, len(log))]
        return []

    def _tell(self) -> None:
        with self.changed:
            self.changed.notify_all()


async def _write(outgoing: asyncio.Queue[bytes], send: Any) -> None:
    while True:
        await send({"type": "websocket.send", "bytes": await outgoing.get()})


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
