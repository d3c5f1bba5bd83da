"""Transactions in threads of their own, led step by step."""

import threading
from collections.abc import Callable

from django.db import connection, connections, transaction


def numbered() -> None:
    """Give the present transaction its number."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_current_xact_id()")


class Transaction:
    """One in a thread of its own, step by step."""

    def __init__(self) -> None:
        self._step, self._done = threading.Semaphore(0), threading.Semaphore(0)
        self._what: Callable[[], None] | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            with transaction.atomic():
                while self._step.acquire(timeout=20) and self._what is not None:
                    self._what()
                    self._done.release()
        finally:
            connections.close_all()

    def do(self, what: Callable[[], None]) -> None:
        self._what = what
        self._step.release()
        assert self._done.acquire(timeout=20)

    def commit(self) -> None:
        self._what = None
        self._step.release()
        self._thread.join(20)
