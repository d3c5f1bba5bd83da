"""Commits that do not wait for the disk, where nothing outside the database depends on them yet.

PostgreSQL writes its log in the order of commits, so what a later commit waits for covers them as well, and a crash of
the server loses the latest of them whole: as if the loop or the message behind them had not come yet. See
docs/decisions/0011 and https://www.postgresql.org/docs/current/wal-async-commit.html.
"""

from django.db import connection, transaction

# The same as an expression, for a statement that has to be run anyway.
WITHOUT_WAITING = "set_config('synchronous_commit', 'off', true)"


def commit_without_waiting() -> None:
    """Let the present transaction, the outermost one, commit before it is on disk.

    Only for what is made again from the rows if it is lost, or what is acknowledged to somebody only after `flush`.
    """
    if not connection.in_atomic_block:
        raise transaction.TransactionManagementError("Only a transaction can commit without waiting.")
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {WITHOUT_WAITING}")


def flush() -> None:
    """Return once everything that is committed so far is on disk."""
    with connection.cursor() as cursor:
        # Its commit waits, which an empty transaction's would not.
        cursor.execute("SELECT pg_logical_emit_message(true, 'flush', '')")
