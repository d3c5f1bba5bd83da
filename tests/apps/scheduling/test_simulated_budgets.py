"""What if, under budgets: it agrees with what then happens, and with what a member of the tenant would be held to."""

from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest
from django.utils import timezone

from apps.core.actors import SYSTEM
from apps.jobs import commands as jobs
from apps.jobs.models import Attempt, Job
from apps.quotas.budgets import create_budget
from tests.apps.workflows.driver import bash, start
from tests.personas import World
from tests.work import cycle, job_data, pump, simulated_cluster, simulated_node

from .test_simulation import SPEC, asked, by_job, starts_in

MIDNIGHT = datetime(2026, 11, 19, tzinfo=UTC)


def until_midnight(clock: Any, seconds: float) -> None:
    clock((MIDNIGHT - timezone.now()).total_seconds() - seconds)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_it_agrees_with_what_then_happens(world: World, api: Any, clock: Any, seed: int) -> None:
    until_midnight(clock, 300)
    simulated_node(world, cpu=6000)
    create_budget(actor=SYSTEM, tenant=world.vision, measure="running", amount=3)
    create_budget(actor=SYSTEM, domain=world.beta, measure="cpu_hours", period="day", amount=0.05)
    create_budget(actor=SYSTEM, user=world.users["member"], measure="cpu_hours", period="week", amount=0.1)
    create_budget(actor=SYSTEM, user=world.users["admin"], measure="running", amount=1)
    chance = Random(seed)
    submitted = []
    for number in range(18):
        seconds = chance.randint(20, 200)
        persona = chance.choice(["member", "admin", "stranger"])
        data = job_data(
            f"sleep {seconds}", cpu=str(chance.randint(1, 3)), name=f"job-{number}", time_limit=f"{seconds}s"
        )
        tenant = world.speech if persona == "stranger" else world.vision
        submitted.append(jobs.submit(actor=world.actor(persona), tenant=tenant, data=data))
    cycle()
    pump()
    clock(7)
    answer = by_job(asked(api, horizon_seconds=20 * 86_400, run_times="limit"))
    reasons: set[str] = set()
    # From one moment at which something happens to the next: an end, or a day.
    for _ in range(100):
        while cycle() or Job.objects.filter(state="granted").exists():
            pump()
        if not Job.objects.filter(state__in=("pending", "running")).exists():
            break
        reasons |= set(Job.objects.filter(state="pending").values_list("reason", flat=True))
        now = timezone.now()
        moments = [
            attempt.started_at + timedelta(seconds=attempt.job.spec["time_limit"])
            for attempt in Attempt.objects.filter(state="running").select_related("job")
        ]
        moments.append(datetime.combine(now.date() + timedelta(days=1), datetime.min.time(), UTC))
        clock((min(moments) - now).total_seconds())
        pump()
    starts = {job.pk: Attempt.objects.get(job=job).created_at for job in submitted}
    for job in submitted:
        told = timezone.datetime.fromisoformat(answer[job.pk]["after"]["starts_at"])
        assert abs((starts[job.pk] - told).total_seconds()) < 0.5, (job.name, starts[job.pk], told)
    assert "budget_exhausted" in reasons and min(starts.values()) < MIDNIGHT <= max(starts.values())


def test_a_job_that_is_made_up_counts_for_who_asks(world: World, api: Any, clock: Any) -> None:
    until_midnight(clock, 1000)
    simulated_node(world, cpu=12_000)
    create_budget(actor=SYSTEM, user=world.users["member"], measure="running", amount=1)
    request = {"jobs": [{"tenant": "vision", "spec": SPEC, "count": 2}], "run_times": "limit"}

    def waits(persona: str) -> list[float | None]:
        return sorted(starts_in(row) or 0 for row in asked(api, persona, **request)["jobs"])

    assert (waits("member"), waits("admin")) == ([0, 100], [0, 0])


def test_of_workflows_only_its_own_tasks_count(world: World, api: Any, clock: Any) -> None:
    until_midnight(clock, 1000)
    simulated_node(world, cpu=12_000)
    create_budget(actor=SYSTEM, tenant=world.vision, workflow="etl", measure="running", amount=1)
    limited = {"time_limit": "50s"}
    for name in ("etl", "other"):
        start(world.vision, bash("a", **limited), bash("b", **limited), name=name)
    cycle()
    rows = by_job(asked(api, run_times="limit"))
    found = {
        workflow: sorted(starts_in(rows[job.pk]) or 0 for job in Job.objects.filter(workflow=workflow))
        for workflow in ("etl", "other")
    }
    assert found == {"etl": [0, 50], "other": [0, 0]}


def test_a_budget_can_be_changed_in_it(world: World, api: Any, clock: Any) -> None:
    until_midnight(clock, 10_000)
    simulated_node(world, cpu=12_000)
    mine = create_budget(actor=SYSTEM, tenant=world.vision, measure="running", amount=1)
    theirs = create_budget(actor=SYSTEM, domain=world.beta, measure="running", amount=1)
    soft = create_budget(actor=SYSTEM, tenant=world.vision, measure="cost", period="day", amount=1, hard=False)
    for _ in range(3):
        jobs.submit(actor=world.actor("member"), tenant=world.vision, data=job_data(time_limit="100s"))

    def starts(*changes: dict[str, Any]) -> list[float | None]:
        answer = asked(api, "member", run_times="limit", budgets=list(changes))
        return sorted(starts_in(row) or 0 for row in answer["jobs"])

    assert starts() == [0, 100, 200]
    assert starts({"budget": mine.pk, "amount": 2}) == [0, 0, 100]
    assert starts({"budget": mine.pk, "amount": None, "at_seconds": 50}) == [0, 50, 50]
    for number in (theirs.pk, soft.pk, 10**6):
        refused = api.member.post("simulate", {"budgets": [{"budget": number, "amount": 2}]})
        assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "budgets[0].budget")


def test_cost_and_windows_bind_and_move_in_it(world: World, api: Any, clock: Any) -> None:
    until_midnight(clock, 50_000)
    simulated_node(world, cluster=simulated_cluster(world, price_per_cpu_hour="2"), cpu=12_000)
    create_budget(actor=SYSTEM, tenant=world.vision, measure="cost", period="3h", amount=2)
    for _ in range(3):
        jobs.submit(actor=world.actor("member"), tenant=world.vision, data=job_data(time_limit="3600s"))
    cycle()
    jobs.submit(actor=world.actor("member"), tenant=world.vision, data=job_data(time_limit="60s"))
    clock(1200)  # Three jobs for a third of an hour at 2 an hour: the budget is spent.
    pump()
    rows = by_job(asked(api, run_times="limit", horizon_seconds=86_400))
    last = starts_in(rows[Job.objects.latest("pk").pk])
    # After the hour 6 are spent. What was used in the first 40 minutes has left three hours later.
    assert last is not None and abs(last - (3 * 3600 + 2400 - 1200)) < 120, last
