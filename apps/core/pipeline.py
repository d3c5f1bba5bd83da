"""Statements that go out one behind the other, without waiting for each other's answers.

Of a write that takes PostgreSQL a tenth of a millisecond most of the time is the way there and back, and while the
server works the next statement can be made. See https://www.psycopg.org/psycopg3/docs/advanced/pipeline.html.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from django.db import connection, transaction

_checks: ContextVar[list[Callable[[], None]] | None] = ContextVar("checks", default=None)


@contextmanager
def pipelined() -> Iterator[None]:
    """Send the statements of this block, within a transaction, without waiting; whoever fetches rows waits for them.

    At its end all have been answered: the first that failed raises its error, and then the checks of `when_answered`
    are made, in their order. An error in the block itself leaves them out, as the transaction is rolled back.
    """
    if not connection.in_atomic_block:
        raise transaction.TransactionManagementError("Statements are sent in a pipeline only within a transaction.")
    if _checks.get() is not None:
        yield
        return
    checks: list[Callable[[], None]] = []
    token = _checks.set(checks)
    try:
        with connection.wrap_database_errors, connection.connection.pipeline():
            yield
    finally:
        _checks.reset(token)
    for check in checks:
        check()


def when_answered(check: Callable[[], None]) -> None:
    """Make the check, which looks at what statements returned: now, or once the pipeline has its answers."""
    checks = _checks.get()
    if checks is None:
        check()
    else:
        checks.append(check)
