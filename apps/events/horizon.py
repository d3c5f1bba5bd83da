"""Where the log ends for now, for whoever reads it forward and may miss nothing.

Ids of events become visible out of order, and an event of a lower id may commit after one of a higher. So the log is
read by transactions: below `pg_snapshot_xmin` all have ended, and what they wrote will never be more. A floor, an id
below all that may still come, makes a read that begins at a transaction a range of an index by id: a reader notes the
highest id and the next transaction's number; once all earlier transactions have ended, nothing can come at or below
that id (MARGIN is for ids that were drawn a moment before their transaction got its number).
"""

from dataclasses import dataclass

from django.db import connection

MARGIN = 1000


@dataclass(frozen=True, slots=True)
class Position:
    """All transactions below `horizon` have ended, `following` is the next one's number, `last` the highest id that is
    visible."""

    horizon: int
    following: int
    last: int


def position() -> Position:
    """Where the log ends for now; asked before the present transaction writes, as `following` is its number from then
    on."""
    with connection.cursor() as cursor:
        cursor.execute(
            # A snapshot's xmax is one past the last transaction that has ended: from there `age` counts to the next.
            "SELECT pg_snapshot_xmin(s)::text::bigint, "
            "pg_snapshot_xmax(s)::text::bigint + age(pg_snapshot_xmax(s)::xid), "
            "coalesce((SELECT max(id) FROM events_event), 0) FROM pg_current_snapshot() s"
        )
        row = cursor.fetchone()
    assert row is not None
    return Position(*row)
