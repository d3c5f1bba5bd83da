"""Every PostgreSQL advisory lock of the product, by name: nobody takes a number of their own.

Order where several are held: loop → tenant → quota tree → slots → rows (jobs, then nodes by id).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

from django.db import connection, transaction


class LockClass(IntEnum):
    """First key of the two-key advisory locks."""

    LOOP = 7201
    QUOTA_TREE = 7202
    WORKFLOW = 7203
    PREPARE = 7204
    PEOPLE = 7205
    SLOTS = 7206


LOOP_KEYS = {
    "schedule": 1, "advance": 2, "recover": 3, "timetable": 4, "housekeep": 5, "waits": 6, "deadlines": 7, "notify": 8,
    "services": 9,
}  # fmt: skip


@contextmanager
def try_loop(name: str) -> Iterator[bool]:
    """Take the loop's session-level lock without waiting; yields whether this process now has it."""
    keys = [int(LockClass.LOOP), LOOP_KEYS[name]]
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s, %s)", keys)
        row = cursor.fetchone()
    held = bool(row and row[0])
    try:
        yield held
    finally:
        if held and connection.connection is not None and not connection.connection.closed:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_unlock(%s, %s)", keys)


def lock_in_transaction(lock: LockClass, key: int) -> None:
    """Wait for a lock that ends with the present transaction; refuses to run outside of one."""
    if not connection.in_atomic_block:
        raise transaction.TransactionManagementError(f"{lock.name} lock taken outside a transaction")
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s, %s)", [int(lock), key % 2**31])
