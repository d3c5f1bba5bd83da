"""Places are never given out twice: many at once give out, resize, clear, cancel and end tasks."""

import random
import threading
from functools import partial

import pytest
from django.db import OperationalError, connection, transaction
from django.db.models import Sum
from django.utils import timezone

from apps.core.actors import SYSTEM
from apps.core.errors import Conflict
from apps.jobs.models import Job
from apps.workflows import claims, commands
from apps.workflows.apply import apply
from apps.workflows.clearing import Choice
from apps.workflows.giving import apply as apply_and_give_out
from apps.workflows.models import Run, SlotClaim, SlotPool, Task
from apps.workflows.observe import observe
from tests.apps.workflows.driver import bash, end_job, start, step
from tests.concurrency.test_clear import together
from tests.personas import World, make_world

# What the first three tasks of a run want together.
SIZE = 6


@pytest.fixture
def shared_world(transactional_db: None, redis_empty: None) -> World:
    return make_world()


def held(pool: SlotPool) -> int:
    return SlotClaim.objects.filter(pool=pool, held=True).aggregate(sum=Sum("count"))["sum"] or 0


def make_runs(world: World, count: int = 4) -> tuple[SlotPool, list[Run]]:
    """Runs of several workflows that wait for a pool of no slots, so that nothing has started yet."""
    pool = commands.create_slot_pool(actor=SYSTEM, tenant=world.vision, name="warehouse", size=0)
    tasks = [bash(name, slots={"name": "warehouse", "count": 1 + place % 3}) for place, name in enumerate("abcdef")]
    runs = [start(world.vision, *tasks, name=f"flow{place}") for place in range(count)]
    SlotPool.objects.filter(pk=pool.pk).update(size=SIZE)
    return pool, runs


def test_who_gives_out_at_once_gives_no_slot_twice(shared_world: World) -> None:
    pool, _ = make_runs(shared_world)
    given: list[int] = []

    def give() -> None:
        given.extend(claims.give_out([shared_world.vision.pk]))

    together(*[give] * 4)
    assert held(pool) == SIZE
    assert len(given) == len(set(given)) == SlotClaim.objects.filter(held=True).count()


def test_who_gives_out_sees_what_another_has_given_out_and_not_committed(shared_world: World) -> None:
    """A heavier task comes between: without the lock of the tenant it would get what the others have already."""
    pool, _ = make_runs(shared_world)

    def come() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SET lock_timeout = '300ms'")
        heavy = bash("heavy", weight=1000, slots={"name": "warehouse", "count": SIZE})
        with pytest.raises(OperationalError, match="lock timeout"):
            start(shared_world.vision, heavy, name="heavy")

    with transaction.atomic():
        assert len(claims.give_out([shared_world.vision.pk])) == 3
        together(come)
    claims.give_out([shared_world.vision.pk])
    assert held(pool) == SIZE and not SlotClaim.objects.get(name="heavy").held


def test_who_gives_out_waits_for_nobody_who_takes_claims_away(shared_world: World) -> None:
    """A cancel that has not committed holds the claims of its run: the others' go on, and those stay as they were."""
    pool, runs = make_runs(shared_world)
    done = threading.Event()

    def give() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SET lock_timeout = '5s'")
        claims.give_out([shared_world.vision.pk])
        done.set()

    with transaction.atomic():
        commands.cancel_run(actor=SYSTEM, run_id=runs[0].pk)
        together(give)
        assert done.is_set()
    assert not SlotClaim.objects.filter(run=runs[0]).exists()
    claims.give_out([shared_world.vision.pk])
    assert held(pool) == SIZE


def act(world: World, pool: SlotPool, runs: list[Run], seed: int, over: list[int]) -> None:
    """Some acts of a person, an agent or a loop, one after the other."""
    chance = random.Random(seed)
    for _ in range(12):
        run = chance.choice(runs)
        try:
            match chance.randrange(5):
                case 0:
                    jobs = Job.objects.filter(task__run=run, state="pending")[:2]
                    for job in jobs:
                        end_job(job, chance.choice(["succeeded", "failed"]))
                    apply_and_give_out(observe(search=True, review=False), timezone.now())
                case 1:
                    # A pass that is killed before it gives anything out.
                    apply(observe(search=True, review=False), timezone.now())
                case 2:
                    commands.clear(actor=SYSTEM, run_id=run.pk, choice=Choice((chance.choice("abc"),)))
                case 3:
                    commands.mark(actor=SYSTEM, run_id=run.pk, tasks=[chance.choice("def")], state="skipped")
                case 4:
                    claims.give_out([world.vision.pk])
        except Conflict:
            pass
        if held(pool) > SIZE:
            over.append(held(pool))


@pytest.mark.parametrize("seed", range(2))
def test_no_order_of_acts_gives_out_more_than_there_is_or_forgets_anybody(shared_world: World, seed: int) -> None:
    pool, runs = make_runs(shared_world)
    over: list[int] = []
    together(*(partial(act, shared_world, pool, runs, 10 * seed + place, over) for place in range(3)))
    assert over == []
    for _ in range(60):
        for job in Job.objects.filter(task__run__in=runs, state__in=["pending", "cancelling"]):
            end_job(job, "succeeded" if job.state == "pending" else "cancelled")
        step(review=True)
        assert held(pool) <= SIZE
        if not Run.objects.filter(ended_at=None).exists():
            break
    assert not Run.objects.filter(ended_at=None).exists(), Task.objects.exclude(state="succeeded").values_list()
    assert not SlotClaim.objects.exists()
