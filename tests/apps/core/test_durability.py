"""What is acknowledged is on disk; what is made again from rows does not wait for it."""

import pytest
from django.db import connection, transaction

from apps.core import durability


def ask(question: str, *values: object) -> object:
    with connection.cursor() as cursor:
        cursor.execute(question, values)
        return cursor.fetchone()[0]


@pytest.fixture
def waiting(transactional_db: None) -> None:
    """Commits that wait, as in production; the servers of tests do not wait for the disk."""
    ask("SELECT set_config('synchronous_commit', 'on', false)")


def test_after_a_flush_everything_that_was_committed_before_is_on_disk(waiting: None) -> None:
    for number in range(20):
        with transaction.atomic():
            durability.commit_without_waiting()
            assert ask("SELECT current_setting('synchronous_commit')") == "off"
            ask("SELECT pg_logical_emit_message(true, 'test', %s)", str(number))
        written = ask("SELECT pg_current_wal_insert_lsn()::text")
        durability.flush()
        assert ask("SELECT pg_current_wal_flush_lsn() >= %s::pg_lsn", written)


def test_the_next_transaction_waits_again(waiting: None) -> None:
    with transaction.atomic():
        durability.commit_without_waiting()
    with transaction.atomic():
        assert ask("SELECT current_setting('synchronous_commit')") == "on"


def test_only_a_transaction_can_commit_without_waiting(waiting: None) -> None:
    with pytest.raises(transaction.TransactionManagementError):
        durability.commit_without_waiting()
