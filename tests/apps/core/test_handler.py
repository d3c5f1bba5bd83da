"""Requests at once take a bounded number of connections, and leave none behind."""

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from rmportal.handler import Handler

THREADS = 3
SCOPE = {
    "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
    "path": "/healthz", "raw_path": b"/healthz", "query_string": b"", "root_path": "",
    "headers": [(b"host", b"localhost")], "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
}  # fmt: skip


async def status_of(handler: Any) -> int:
    """The status with which one request is answered."""
    sent: list[dict[str, Any]] = []
    answered = asyncio.Event()
    bodies = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> dict[str, Any]:
        if bodies:
            return bodies.pop()
        await answered.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await handler(SCOPE, receive, send)
    answered.set()
    return int(sent[0]["status"])


def connections_now() -> set[int]:
    """The server's processes for this database, each for one connection."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pid FROM pg_stat_activity WHERE datname = current_database()")
        return {pid for (pid,) in cursor.fetchall()}


@pytest.fixture(autouse=True)
def static_files(settings: Any, tmp_path: Path) -> None:
    settings.STATIC_ROOT = tmp_path


def close_all(handler: Handler) -> None:
    """End the connections of all threads."""
    together = threading.Barrier(THREADS)

    def close() -> None:
        together.wait(10)
        connection.close()

    for done in [handler._threads.submit(close) for _ in range(THREADS)]:
        done.result()
    handler._threads.shutdown()


@pytest.mark.django_db(transaction=True)
def test_bursts_of_requests_take_no_more_connections_than_there_are_threads() -> None:
    async def burst() -> list[int]:
        return await asyncio.gather(*(status_of(handler) for _ in range(30)))

    before = connections_now()
    handler = Handler(THREADS)
    try:
        for _ in range(2):
            assert set(asyncio.run(burst())) == {200}
        made = connections_now() - before
        assert 1 <= len(made) <= THREADS
    finally:
        close_all(handler)
    deadline = time.monotonic() + 10
    while left := connections_now() & made:  # The server takes its time to end them.
        assert time.monotonic() < deadline, f"{len(left)} connections stay open"


@pytest.mark.django_db(transaction=True)
def test_a_connection_that_the_server_ended_is_made_anew() -> None:
    handler = Handler(THREADS)
    try:
        assert asyncio.run(status_of(handler)) == 200
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        assert asyncio.run(status_of(handler)) == 200
    finally:
        close_all(handler)
