"""Requests over HTTP on a fixed number of threads, each with a connection to PostgreSQL that it keeps."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from asgiref.sync import ThreadSensitiveContext
from django.core.handlers.asgi import ASGIHandler
from django.db import close_old_connections

# At most so many requests are worked on at once; more of them wait. A thread has at most one connection, so this is
# what web takes of PostgreSQL's connections for them, and the loops always get theirs.
THREADS = 24

T = TypeVar("T")


class Threads(ThreadPoolExecutor):
    """Threads whose connections are looked after before each call, as a call may come to another thread than the
    signal that a request has begun."""

    def submit(self, function: Callable[..., T], /, *arguments: Any, **named: Any) -> "Future[T]":
        return super().submit(_fresh, function, *arguments, **named)


def _fresh(function: Callable[..., T], *arguments: Any, **named: Any) -> T:
    close_old_connections()
    return function(*arguments, **named)


class Handler(ASGIHandler):
    """Django's makes a thread for each request, and what that leaves behind when it ends is garbage in circles, its
    open connection too: some bursts of requests at once, and PostgreSQL has no connection left for anybody.

    A request holds no thread while its body comes in or its answer goes out, so slow clients keep nobody waiting. What
    it does in a thread (all of the view, with its transactions) is one call; the calls of a request may be on several.
    """

    def __init__(self, threads: int = THREADS) -> None:
        super().__init__()
        self._threads = Threads(threads, thread_name_prefix="request")

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async with ThreadSensitiveContext(executor=self._threads):
            await self.handle(scope, receive, send)
