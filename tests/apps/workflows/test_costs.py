"""What a clear or a backfill would cost: by what the latest runs took."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from apps.core.actors import SYSTEM
from apps.fleet.models import Contribution
from apps.jobs.models import Attempt, Grant, Job, Placement
from apps.workflows import commands
from apps.workflows.backfills import plan_backfill
from apps.workflows.clearing import Choice, plan_clear
from apps.workflows.costs import of_clear
from apps.workflows.models import Run, Task
from tests.apps.workflows.driver import bash, empty, finish, start
from tests.personas import World
from tests.work import simulated_node

pytestmark = pytest.mark.django_db

HOURS = {"a": 1.0, "m": 0.5}


def took(world: World, run: Run, gpus: Any = ()) -> None:
    """Let the jobs of a run have had a placement each: two cores for as long as HOURS says."""
    node = simulated_node(world, f"sim-{run.pk}")
    now = timezone.now()
    for task in Task.objects.filter(run=run, job__isnull=False):
        job = task.job
        assert job is not None
        grant = Grant.objects.create(
            job=job, quota_node=world.vision_quota, flavor="cpu", amounts={}, created_at=now, lease_expires_at=now,
            released_at=now,
        )  # fmt: skip
        attempt = Attempt.objects.create(job=job, grant=grant, token=1, state="succeeded", created_at=now)
        Placement.objects.create(
            attempt=attempt, node=node, cpu_millicores=2000, memory_bytes=1, storage_bytes=1, gpus=list(gpus),
            started_at=now - timedelta(hours=HOURS[task.name]), ended_at=now,
        )  # fmt: skip


@pytest.fixture
def run(world: World) -> Run:
    over = bash("m", "a", map={"over": {"x": {"value": [1, 2, 3, 4]}}})
    found = start(world.vision, bash("a"), over, empty("z", "m"), schedule="@daily")
    assert finish(found) == "succeeded"
    return found


def estimate(run: Run, *tasks: str, **options: Any) -> Any:
    return of_clear(plan_clear(run, Choice(tasks, **options)), frozenset({"z"}))


def test_hours_of_what_is_cleared(world: World, run: Run) -> None:
    took(world, run)
    found = estimate(run)
    assert (found.task_hours, found.cpu_hours, found.money, found.unknown) == (3.0, 6.0, None, ())
    assert estimate(run, "a", downstream=False).task_hours == 1.0
    assert estimate(run, "m[1]", "m[2]", downstream=False).task_hours == 1.0


def test_a_clear_keeps_its_own_history(world: World, run: Run) -> None:
    took(world, run)
    commands.clear(actor=SYSTEM, run_id=run.pk, choice=Choice())
    assert Job.objects.filter(task__run=run).count() == 0
    run.refresh_from_db()
    finish(run)
    assert estimate(run).task_hours == 3.0


def test_money_follows_the_prices_of_the_nodes(world: World, run: Run) -> None:
    took(world, run, gpus=[[0, 500]])
    Contribution.objects.update(price_per_cpu_hour=0.5, price_per_gpu_hour=2)
    # An hour of two cores at 0.5 and of half a card at 2.
    assert estimate(run, "a", downstream=False).money == pytest.approx(2.0)


def test_what_never_ran_is_named_and_not_counted(world: World, run: Run) -> None:
    found = estimate(run)
    assert (found.task_hours, found.unknown) == (0.0, ("a", "m"))


def test_a_backfill_costs_a_run_for_each_time_that_gets_one(world: World, run: Run) -> None:
    took(world, run)
    first = datetime(2026, 3, 1, tzinfo=UTC)
    plan = plan_backfill(
        run.workflow, run.version, first=first, last=first + timedelta(days=4), order="forward", existing="none",
        now=timezone.now(),
    )  # fmt: skip
    assert plan.makes == 5
    assert plan.estimate.task_hours == pytest.approx(15.0)
