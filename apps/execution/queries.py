"""Reads of logs, artifacts, checkpoints and bundles."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.core.files.storage import storages
from django.db.models import F, QuerySet

from apps.core.actors import Actor
from apps.core.errors import FieldError, NotFound
from apps.jobs.models import Placement
from apps.jobs.policies import jobs as job_policy
from apps.jobs.states import ATTEMPT_TERMINAL
from apps.tenants.models import Tenant

from . import policies
from .models import Artifact, Bundle, Checkpoint, LogChunk


@dataclass(frozen=True, slots=True)
class LogPiece:
    """Bytes of a log from `offset`; `size` is what is stored by now, `complete` that nothing will follow."""

    offset: int
    data: bytes
    size: int
    complete: bool


def job_placement(actor: Actor, job_id: int, *, attempt: int | None = None, rank: int = 0, group: int = 0) -> Placement:
    """A member of an attempt (the newest by default) of a job that the actor may see; raises NotFound."""
    job = job_policy.get(actor, pk=job_id)
    rows = Placement.objects.filter(attempt__job=job, rank=rank, group=group).order_by("-attempt__token")
    if attempt is not None:
        rows = rows.filter(attempt__token=attempt)
    placement = rows.select_related("attempt", "node").first()
    if placement is None:
        what = f"attempt {attempt}" if attempt is not None else "attempt"
        raise NotFound(f"Job {job_id} has no {what} with group {group}, rank {rank} yet.")
    return placement


def read_log(placement_id: int, offset: int, limit: int = 1 << 20) -> LogPiece:
    """Up to `limit` bytes of the log from `offset`, whatever its length: only the chunks touched are read.

    A negative offset counts from the end, as `tail -c` does.
    """
    placement = Placement.objects.only("log_size", "log_expected", "state").get(pk=placement_id)
    size = placement.log_size
    if offset < 0:
        offset = max(0, size + offset)
    end = min(size, offset + limit)
    pieces = []
    if offset < end:
        storage = storages["logs"]
        chunks = LogChunk.objects.filter(placement_id=placement_id, offset__lt=end).filter(
            offset__gt=offset - F("length")
        )
        for chunk in chunks.order_by("offset"):
            with storage.open(chunk.path, "rb") as file:
                first = max(0, offset - chunk.offset)
                file.seek(first)
                pieces.append(file.read(min(chunk.length, end - chunk.offset) - first))
    ended = placement.state in ATTEMPT_TERMINAL
    complete = ended and (placement.log_expected is None or size >= placement.log_expected)
    return LogPiece(offset=offset, data=b"".join(pieces), size=size, complete=complete)


def unknown_bundle(tenant: Tenant, spec: dict[str, Any]) -> list[FieldError]:
    """What is wrong with the bundle of a normalised job spec: it must be one of the tenant's own."""
    sha256 = spec.get("bundle")
    if not sha256 or Bundle.objects.filter(tenant=tenant, sha256=sha256).exists():
        return []
    message = f"tenant {tenant.slug} has no bundle {sha256[:12]}…: upload it first."
    return [FieldError(field="bundle", message=message, code="unknown_bundle")]


def job_checkpoints(actor: Actor, job_id: int) -> QuerySet[Checkpoint]:
    """What the members of a job have saved, the newest first."""
    return policies.checkpoints.visible(actor).filter(job=job_id).order_by("-token", "-at", "group", "rank")


def saved_before(members: Iterable[tuple[int, int, int, int]]) -> dict[tuple[int, int, int], Checkpoint]:
    """From what later attempts go on, by (job, group, rank): the newest checkpoint of an earlier one; `members` come
    with the token of the attempt as well. Nothing is read where all attempts are first ones."""
    later = {(job, group, rank): token for job, group, rank, token in members if token > 1}
    found: dict[tuple[int, int, int], Checkpoint] = {}
    rows = Checkpoint.objects.filter(job__in={job for job, _, _ in later}).order_by("token", "at") if later else ()
    for row in rows:
        key = (row.job_id, row.group, row.rank)
        if row.token < later.get(key, 0):
            found[key] = row
    return found


def job_artifacts(actor: Actor, job_id: int) -> QuerySet[Artifact]:
    """The artifacts of all attempts of a job, newest attempt first."""
    return (
        policies.artifacts.visible(actor)
        .filter(placement__attempt__job_id=job_id)
        .select_related("placement__attempt")
        .order_by("-placement__attempt__token", "name")
    )
