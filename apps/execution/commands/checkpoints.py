"""What attempts save to go on from: stored when complete, the newest few kept, and gone some time after the job."""

import logging
import tempfile
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import partial

from django.conf import settings
from django.core.files import File
from django.core.files.storage import storages
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from apps.core.actors import Actor
from apps.core.errors import Invalid
from apps.events.record import Fact, record
from apps.jobs.models import Job, Placement
from apps.jobs.states import JobState

from ..models import Checkpoint
from .files import Upload
from .live import live_placement

logger = logging.getLogger(__name__)

# Jobs whose checkpoints go in one pass.
FORGET_MAX = 200


def store_checkpoint(
    *, actor: Actor, node_id: int, placement_id: int, token: int, at: float, sha256: str, chunks: Iterable[bytes]
) -> Checkpoint:
    """Keep what a member of a live attempt had saved at a time (Unix seconds), and only the newest of its job.

    All or nothing: it is to be had by the next attempt from the moment at which this returns. The same again changes
    nothing. Raises Conflict for an old token, Invalid where the bytes have another digest, TooLarge.
    """
    live_placement(node_id, placement_id, token)
    storage = storages["checkpoints"]
    with tempfile.TemporaryFile() as file:
        upload = Upload(file, settings.CHECKPOINT_MAX_BYTES, "checkpoint")
        upload.take(chunks)
        if upload.sha256 != sha256:
            raise Invalid.field("sha256", f"the body has the digest {upload.sha256}: send it again.", "digest")
        file.seek(0)
        placement = live_placement(node_id, placement_id, token)
        # A name of its own for every upload: one that was broken off is never taken for whole.
        job_id = placement.attempt.job_id
        path = storage.save(
            f"{folder_of(job_id)}/{placement.group}-{placement.rank}-{token}-{sha256[:16]}.tar.gz", File(file)
        )
    try:
        with transaction.atomic():
            placement = live_placement(node_id, placement_id, token, lock=True)
            return _keep(actor, placement, path, _within(placement, at), upload)
    except BaseException:
        storage.delete(path)
        raise


def _within(placement: Placement, at: float) -> datetime:
    """The time that a node tells, neither before the start nor after now: clocks differ."""
    now = timezone.now()
    told = datetime.fromtimestamp(min(max(at, 0.0), now.timestamp()), UTC)
    return max(told, placement.started_at or told)


def _keep(actor: Actor, placement: Placement, path: str, at: datetime, upload: Upload) -> Checkpoint:
    job = placement.attempt.job
    mine = Checkpoint.objects.filter(job=job, group=placement.group, rank=placement.rank)
    known = mine.filter(token=placement.attempt.token, sha256=upload.sha256).order_by("-at").first()
    newest = mine.order_by("-token", "-at").first()
    if known is not None and known == newest:
        # Told again, as by an agent that was restarted: this upload is not needed.
        storages["checkpoints"].delete(path)
        if at > known.at:
            known.at = at
            known.save(update_fields=["at"])
        return known
    made = Checkpoint.objects.create(
        job=job,
        group=placement.group,
        rank=placement.rank,
        token=placement.attempt.token,
        at=at,
        path=path,
        size=upload.size,
        sha256=upload.sha256,
    )
    old = list(mine.order_by("-token", "-at")[settings.CHECKPOINTS_KEPT :])
    Checkpoint.objects.filter(pk__in=[one.pk for one in old]).delete()
    transaction.on_commit(partial(_delete_files, [one.path for one in old]))
    facts = {"job": job.pk, "size": made.size, "sha256": made.sha256, "rank": made.rank, "token": made.token}
    topics = (f"job:{job.pk}",)
    record(actor, Fact("checkpoint.stored", "checkpoint", made.pk, tenant_id=job.tenant_id, facts=facts, topics=topics))
    return made


def folder_of(job_id: int) -> str:
    """Where the checkpoints of a job lie in their storage."""
    return f"{job_id // 1000:06d}/{job_id}"


def forget_checkpoints(now: datetime) -> int:
    """Remove the checkpoints of jobs that need none any more: at once of those that succeeded or were cancelled, some
    days after their end of those that failed. Returns of how many jobs."""
    failed = Q(job__state=JobState.FAILED, job__ended_at__lt=now - timedelta(days=settings.CHECKPOINT_KEEP_DAYS))
    over = Checkpoint.objects.filter(failed | Q(job__state__in=(JobState.SUCCEEDED, JobState.CANCELLED)))
    jobs = list(over.order_by().values_list("job_id", flat=True).distinct()[:FORGET_MAX])
    for job_id in jobs:
        # The files first: the rows are what finds them, also those that no row names.
        folder = folder_of(job_id)
        _delete_files([f"{folder}/{name}" for name in storages["checkpoints"].listdir(folder)[1]])
        with transaction.atomic():
            Job.objects.select_for_update(no_key=True).get(pk=job_id)
            Checkpoint.objects.filter(job=job_id).delete()
    return len(jobs)


def _delete_files(paths: Iterable[str]) -> None:
    for path in paths:
        try:
            storages["checkpoints"].delete(path)
        except OSError as error:
            logger.warning("The checkpoint %s could not be removed: %s", path, error)
