"""Which connection speaks for a node: the newest, by a number in the node's row that only grows.

An agent may come back through another web process while its connection before still looks alive there. What an older
connection says is refused where it would be stored, so it can neither report nor keep the node ready, whether or not
the hint that tells it to close arrives.
"""

from collections.abc import Mapping

from django.db import connection as database
from django.db import transaction
from django.db.models import F
from django.utils import timezone

from apps.core.errors import Conflict
from apps.events.live import publish

from ..models import Node
from ..queries import node_of_credential


class Replaced(Conflict):
    """A newer connection speaks for the node."""

    code = "replaced"


def connection_topic(node_id: int) -> str:
    """The live topic that tells a node's connections of a newer one."""
    return f"connection:{node_id}"


@transaction.atomic
def connect_node(*, credential: str) -> Node | None:
    """Take a new connection of the agent with this credential: it gets the node's next number, and older ones are told.

    None when the credential is unknown or revoked, or its node is removed.
    """
    node = node_of_credential(credential)
    if node is None:
        return None
    Node.objects.filter(pk=node.pk).update(connection=F("connection") + 1)
    node.refresh_from_db(fields=["connection"])
    publish([connection_topic(node.pk)])
    return node


def require_newest(node_id: int, number: int) -> None:
    """Raise Replaced unless this is the number of the node's newest connection."""
    with database.cursor() as cursor:
        cursor.execute("SELECT connection FROM fleet_node WHERE id = %s", [node_id])
        row = cursor.fetchone()
    if row is None or row[0] != number:
        raise Replaced(f"A newer connection speaks for node {node_id}.")


def nodes_seen(heard: Mapping[int, int]) -> list[int]:
    """Note that these nodes were heard of now on the connection with this number; returns those where it is the newest.

    Rows are locked in the order in which grants lock them.
    """
    with database.cursor() as cursor:
        cursor.execute(
            "UPDATE fleet_node SET last_seen_at = %s FROM ("
            " SELECT n.id FROM fleet_node n JOIN unnest(%s::bigint[], %s::bigint[]) AS heard(id, connection)"
            " ON heard.id = n.id AND heard.connection = n.connection ORDER BY n.id FOR NO KEY UPDATE OF n"
            ") AS newest WHERE fleet_node.id = newest.id RETURNING fleet_node.id",
            [timezone.now(), list(heard), list(heard.values())],
        )
        return [row[0] for row in cursor.fetchall()]
