"""Plain HTTP to the portal: join, bundles, artifacts, checkpoints. Blocking, so the agent calls it in threads.

`http.client` rather than a client library: a few requests do not pay for the memory of one on every node.
"""

import http.client
import json
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any
from urllib.parse import quote, urlsplit

from rmctl.agent.errors import AgentError, JoinRefused, PortalAway, PortalRefusal

TIMEOUT_SECONDS = 30.0
MAX_ANSWER_BYTES = 1024 * 1024
COPY_BYTES = 64 * 1024
RETRIED = frozenset({408, 425, 429})


@dataclass(frozen=True)
class Portal:
    """One portal, by its base URL, with this node's credential (empty before it joined)."""

    url: str
    credential: str = ""

    @property
    def socket_url(self) -> str:
        return "ws" + self.url.removeprefix("http").rstrip("/") + "/ws/agent/"

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Agent {self.credential}"} if self.credential else {}

    def join(self, token: str, name: str, inventory: Mapping[str, Any]) -> dict[str, Any]:
        """Trade a one-time token for a credential. Raises JoinRefused, PortalAway."""
        body = json.dumps({"token": token, "name": name, "inventory": inventory}).encode()
        try:
            answer = self._request("POST", "/api/v1/agent/join", body, {"Content-Type": "application/json"})
            return dict(json.loads(answer))
        except PortalRefusal as error:
            raise JoinRefused(f"{self.url} did not accept the join token: {error}") from error
        except ValueError as error:
            raise JoinRefused(f"{self.url} did not answer like a portal; check the URL") from error

    def put_artifact(self, placement: int, token: int, name: str, path: str) -> None:
        """Store one file of a task, streamed. Raises PortalRefusal, PortalAway, OSError for the file."""
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            headers = {
                "Content-Length": str(os.fstat(descriptor).st_size),
                "Content-Type": "application/octet-stream",
            }
            target = f"/api/v1/agent/placements/{placement}/artifacts/{quote(name)}?token={token}"
            self._request("PUT", target, file, headers)

    def put_checkpoint(self, placement: int, token: int, at: float, digest: str, path: str) -> None:
        """Store what a task has saved at a time, streamed. Raises PortalRefusal, PortalAway, OSError."""
        with open(path, "rb") as file:
            headers = {"Content-Length": str(os.fstat(file.fileno()).st_size), "Content-Type": "application/gzip"}
            query = f"token={token}&at={at!r}&sha256={digest}"
            self._request("PUT", f"/api/v1/agent/placements/{placement}/checkpoint?{query}", file, headers)

    def get_checkpoint(self, placement: int, token: int, target: IO[bytes]) -> None:
        """Write what an earlier attempt has saved to `target`, streamed. Raises PortalRefusal, PortalAway."""
        self._request("GET", f"/api/v1/agent/placements/{placement}/checkpoint?token={token}", None, {}, target)

    def ask_state(self, placement: int, token: int, body: bytes) -> bytes:
        """Hand a task's request for its state on; returns the answer. Raises PortalRefusal, PortalAway."""
        target = f"/api/v1/agent/placements/{placement}/state?token={token}"
        return self._request("POST", target, body, {"Content-Type": "application/json"})

    def get_bundle(self, digest: str, target: IO[bytes]) -> None:
        """Write a bundle's bytes to `target`, streamed. Raises PortalRefusal, PortalAway."""
        self._request("GET", f"/api/v1/agent/bundles/{digest}", None, {}, target)

    def _request(
        self, method: str, target: str, body: bytes | IO[bytes] | None, headers: Mapping[str, str],
        sink: IO[bytes] | None = None,
    ) -> bytes:  # fmt: skip
        connection = self._connect()
        path = urlsplit(self.url).path.rstrip("/") + target
        try:
            response = _exchange(connection, method, path, body, {**self.headers, **headers})
            if response.status >= 500 or response.status in RETRIED:
                raise PortalAway(f"{self.url} answered {response.status}", answered=True)
            if response.status >= 300:
                raise PortalRefusal(
                    response.status, _problem(response.status, _read(response, MAX_ANSWER_BYTES))
                )
            if sink is None:
                return _read(response, MAX_ANSWER_BYTES)
            while chunk := _read(response, COPY_BYTES):
                sink.write(chunk)
            return b""
        finally:
            connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        parts = urlsplit(self.url)
        if parts.scheme == "https":
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(parts.netloc, timeout=TIMEOUT_SECONDS, context=context)
        return http.client.HTTPConnection(parts.netloc, timeout=TIMEOUT_SECONDS)


def _exchange(
    connection: http.client.HTTPConnection, method: str, path: str, body: bytes | IO[bytes] | None,
    headers: Mapping[str, str],
) -> http.client.HTTPResponse:  # fmt: skip
    try:
        try:
            connection.request(method, path, body, dict(headers))
        except (BrokenPipeError, ConnectionResetError):
            if connection.sock is None:
                raise
            # The portal may have refused before it read the whole body: its answer says why.
        return connection.getresponse()
    except (http.client.HTTPException, OSError) as error:
        raise PortalAway(f"{connection.host} cannot be reached: {error or type(error).__name__}") from error


def _read(response: http.client.HTTPResponse, size: int) -> bytes:
    try:
        return response.read(size)
    except (http.client.HTTPException, OSError) as error:
        raise PortalAway(f"the portal's answer broke off: {error or type(error).__name__}") from error


def portal(url: str, credential: str = "") -> Portal:
    """The portal at `url`. Raises AgentError when that is no http or https URL."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise AgentError(f"url: {url!r} is not a portal's address; give one like https://portal.example.org")
    return Portal(url.rstrip("/"), credential)


def _problem(status: int, body: bytes) -> str:
    """What an application/problem+json answer says, or the status when it says nothing."""
    try:
        problem = json.loads(body)
        return str(problem.get("detail") or problem.get("title") or f"status {status}")
    except (ValueError, AttributeError):
        return f"status {status}"
