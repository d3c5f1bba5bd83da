"""A counter that grows whenever something that seldom changes has changed.

Loops derive a lot from configuration (pools, terms, quota limits, nodes' labels). Every command records its
event, so the event's verb is the one place that knows of a change: a verb about one of the nouns below moves
the stamp in the same transaction, and a loop keeps what it derived for as long as the stamp stands still.
"""

from collections.abc import Iterable

from django.db import connection

CONFIGURATION = frozenset(
    {"domain", "tenant", "region", "cluster", "node", "contribution", "pool", "flavor", "quota", "budget"}
)


def moves_stamp(verbs: Iterable[str]) -> bool:
    """Whether one of the verbs tells of a change of configuration."""
    return any(verb.partition(".")[0] in CONFIGURATION for verb in verbs)


def move_stamp() -> None:
    """Let every reader of configuration look again after this transaction."""
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO events_stamp AS s (id, value) VALUES (1, 1) ON CONFLICT (id) DO UPDATE SET value = s.value + 1"
        )


def stamp() -> int:
    """The present value."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT value FROM events_stamp WHERE id = 1")
        row = cursor.fetchone()
    return int(row[0]) if row else 0
