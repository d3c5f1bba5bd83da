"""What the portal keeps of what attempts save: whole, of live attempts only, the newest few, while it is needed."""

import hashlib
import time
from datetime import timedelta
from typing import Any

import pytest
from django.core.files.storage import storages
from django.db import transaction
from django.utils import timezone

from apps.core.actors import SYSTEM
from apps.core.errors import Conflict, Invalid, NotFound, TooLarge
from apps.execution.commands import forget_checkpoints, store_checkpoint
from apps.execution.commands.checkpoints import folder_of
from apps.execution.dispatch import assignments
from apps.execution.models import Checkpoint
from apps.jobs import commands as jobs
from apps.jobs.models import Job, Placement
from tests.personas import World
from tests.work import cycle, fresh, granted, members, report, simulated_node


@pytest.fixture
def member(world: World) -> Placement:
    simulated_node(world)
    job = granted(world, retries={"limit": 3, "delay": 0})
    report(members(job)[0], "started")
    return members(job)[0]


def save(
    member: Placement, data: bytes, *, token: int = 0, node: int = 0, digest: str = "", at: float = 0
) -> Checkpoint:
    return store_checkpoint(
        actor=SYSTEM,
        node_id=node or member.node_id,
        placement_id=member.pk,
        token=token or member.attempt.token,
        at=at or time.time(),
        sha256=digest or hashlib.sha256(data).hexdigest(),
        chunks=[data[:1], data[1:]],
    )


def stored(job_id: int) -> list[bytes]:
    """What lies in the job's folder."""
    storage, folder = storages["checkpoints"], folder_of(job_id)
    found = []
    for name in sorted(storage.listdir(folder)[1]) if storage.exists(folder) else ():
        with storage.open(f"{folder}/{name}") as file:
            found.append(file.read())
    return found


def again(job: Job) -> Placement:
    """The next attempt, after the node was lost."""
    with transaction.atomic():
        jobs.end_lost(actor=SYSTEM, placement_ids=[members(job)[0].pk], detail="its node is lost")
    cycle()
    (member,) = members(job)
    assert fresh(job).state == "granted"
    return member


def test_the_next_attempt_is_told_of_the_newest(member: Placement, django_capture_on_commit_callbacks: Any) -> None:
    job = member.attempt.job
    assert assignments([member.pk])[0][0].saved is None
    with django_capture_on_commit_callbacks(execute=True):
        kept = [save(member, data) for data in (b"one", b"two", b"three")]
    assert sorted(stored(job.pk)) == [b"three", b"two"]
    second = again(job)
    saved = assignments([second.pk])[0][0].saved
    assert saved is not None and (saved.sha256, saved.size) == (kept[-1].sha256, 5)


def test_first_attempts_cost_no_further_statement(member: Placement, django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(1):
        assignments([member.pk])
    second = again(member.attempt.job)
    with django_assert_num_queries(2):
        assignments([second.pk])


def test_a_fenced_out_attempt_overwrites_nothing(member: Placement) -> None:
    job = member.attempt.job
    save(member, b"good")
    second = again(job)
    for late in (member, second):
        with pytest.raises(Conflict) as refused:
            save(late, b"late", token=1)
        assert refused.value.code == "stale_token"
    with pytest.raises(NotFound):
        save(second, b"foreign", node=second.node_id + 1000)
    assert stored(job.pk) == [b"good"]
    saved = assignments([second.pk])[0][0].saved
    assert saved is not None and saved.sha256 == hashlib.sha256(b"good").hexdigest()


def test_a_later_attempt_wins_even_if_its_clock_is_behind(member: Placement) -> None:
    job = member.attempt.job
    save(member, b"first", at=time.time() + 3600)
    second = again(job)
    report(second, "started")
    save(second, b"second", at=time.time() - 3600)
    saved = assignments([again(job).pk])[0][0].saved
    assert saved is not None and saved.sha256 == hashlib.sha256(b"second").hexdigest()
    times = Checkpoint.objects.filter(job=job).values_list("at", flat=True)
    assert all(at <= timezone.now() for at in times)


def test_the_same_again_is_one_and_one_broken_off_is_none(member: Placement, settings: Any) -> None:
    job = member.attempt.job
    first = save(member, b"state")
    assert save(member, b"state") == first and stored(job.pk) == [b"state"]
    with pytest.raises(Invalid) as refused:
        save(member, b"half", digest=hashlib.sha256(b"half and half").hexdigest())
    assert refused.value.errors[0]["field"] == "sha256"
    settings.CHECKPOINT_MAX_BYTES = 10
    with pytest.raises(TooLarge):
        save(member, b"x" * 11)
    assert [row.pk for row in Checkpoint.objects.filter(job=job)] == [first.pk] and stored(job.pk) == [b"state"]


@pytest.mark.parametrize(
    ("end", "kept"),
    [({"exit_code": 0, "reason": "exited"}, False), ({"exit_code": 1, "reason": "exited"}, True)],
    ids=["succeeded", "failed"],
)
def test_they_go_with_the_job_and_of_one_that_failed_later(
    member: Placement, end: dict[str, Any], kept: bool
) -> None:
    job = member.attempt.job
    Job.objects.filter(pk=job.pk).update(spec={**job.spec, "retries": {**job.spec["retries"], "limit": 0}})
    save(member, b"state")
    assert forget_checkpoints(timezone.now()) == 0
    report(member, **end)
    forget_checkpoints(timezone.now())
    assert stored(job.pk) == ([b"state"] if kept else [])
    forget_checkpoints(timezone.now() + timedelta(days=8))
    assert stored(job.pk) == [] and not Checkpoint.objects.exists()
