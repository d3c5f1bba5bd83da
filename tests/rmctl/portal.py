"""A portal of a few routes on a real socket: what the client and the command line are tested against."""

import json
import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

Answer = tuple[int, Any] | tuple[int, Any, dict[str, str]]
Route = Callable[["Asked"], Answer]
JOB = {
    "id": 7, "name": "train", "tenant": "vision", "state": "pending", "priority": 0, "reason": "submitted",
    "detail": "Looked at next.", "exit_code": None, "submitted_at": "2026-01-01T00:00:00Z", "started_at": None,
    "ended_at": None,
}  # fmt: skip


class Asked:
    """One request as it came."""

    def __init__(self, method: str, target: str, headers: dict[str, str], content: bytes) -> None:
        parts = urlsplit(target)
        self.method = method
        self.path = parts.path.removeprefix("/api/v1/")
        self.all_query = parse_qs(parts.query)
        self.query = {name: values[0] for name, values in self.all_query.items()}
        self.headers = headers
        self.content = content

    @property
    def body(self) -> Any:
        return json.loads(self.content)


class FakePortal:
    """Routes are `METHOD path` patterns; an answer is (status, JSON or bytes[, headers]); every request is kept."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.routes: dict[str, Route] = {}
        portal = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                asked = Asked(self.command, self.path, dict(self.headers), content)
                portal.asked.append(asked)
                answer = portal.answer(asked)
                status, data = answer[0], answer[1]
                body = data if isinstance(data, bytes) else json.dumps(data).encode()
                self.send_response(status)
                for name, value in (answer[2] if len(answer) > 2 else {}).items():  # type: ignore[misc]
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        )
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def on(self, route: str, answer: Route | Answer) -> None:
        """Answer a route: with a fixed answer, or by a function of the request."""
        self.routes[route] = answer if callable(answer) else lambda _: answer

    def answer(self, asked: Asked) -> Answer:
        for pattern, route in self.routes.items():
            if re.fullmatch(pattern, f"{asked.method} {asked.path}"):
                return route(asked)
        return problem(404, "not_found", "There is nothing here.")

    def requests(self, method: str, path: str) -> list[Asked]:
        return [asked for asked in self.asked if (asked.method, asked.path) == (method, path)]


def problem(status: int, code: str, detail: str, errors: list[dict[str, str]] | None = None) -> Answer:
    body = {
        "type": "about:blank",
        "title": code,
        "status": status,
        "code": code,
        "detail": detail,
        "errors": errors or [],
    }
    return status, body


def page(*rows: dict[str, Any], following: str | None = None) -> Answer:
    return 200, {"next": following, "previous": None, "results": list(rows)}
