"""Appending to a log: each chunk is an object of its own; the row makes it part of the log."""

from django.core.files.base import ContentFile
from django.core.files.storage import storages
from django.db import transaction

from apps.core.errors import Conflict, NotFound
from apps.events.live import publish
from apps.fleet.commands import Replaced
from apps.jobs.models import Placement

from ..models import LogChunk


def append_log(
    *, node_id: int, placement_id: int, token: int, offset: int, data: bytes, connection: int | None = None
) -> int:
    """Append bytes at `offset` and return the size that is stored.

    Bytes below the stored size were stored before and are cut off; a gap changes nothing, and the returned
    size tells the agent where to go on. The object is written before the row, so a kill in between leaves
    only an unreferenced object that the repeat overwrites. A finished attempt's log may still grow to its end;
    only its own node can write to it. Raises NotFound for another node's placement, Conflict for an old token, and
    Replaced for another `connection` than the node's newest (None for nodes without).
    """
    with transaction.atomic():
        placement = (
            Placement.objects.select_for_update(of=("self",))
            .filter(pk=placement_id, node_id=node_id)
            .only("pk", "log_size", "attempt__token", "attempt__job_id", "node__connection")
            .select_related("attempt", "node")
            .first()
        )
        if placement is None:
            raise NotFound(f"Placement {placement_id} is not on this node.")
        if connection is not None and placement.node.connection != connection:
            raise Replaced(f"A newer connection speaks for node {node_id}.")
        if placement.attempt.token != token:
            raise Conflict(f"Placement {placement_id} has another token.", code="stale_token")
        size = placement.log_size
        fresh = data[size - offset :] if offset <= size else b""
        if not fresh:
            return size
        path = f"{placement_id // 1000:06d}/{placement_id}/{size:015d}"
        storage = storages["logs"]
        if storage.exists(path):
            storage.delete(path)
        storage.save(path, ContentFile(fresh))
        LogChunk.objects.create(placement_id=placement_id, offset=size, length=len(fresh), path=path)
        size += len(fresh)
        Placement.objects.filter(pk=placement_id).update(log_size=size)
        publish([f"log:{placement.attempt.job_id}"])
    return size
