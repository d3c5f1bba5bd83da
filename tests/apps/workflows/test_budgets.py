"""Budgets of one workflow: the jobs of all its runs count, those of others do not."""

from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from apps.core.actors import SYSTEM
from apps.core.errors import Conflict, Invalid, RateLimited
from apps.jobs.budgets import uses
from apps.jobs.models import Job
from apps.quotas.budgets import create_budget
from apps.quotas.models import Budget, Consumption
from apps.workflows.commands import trigger
from tests.personas import World
from tests.work import cycle, fresh, members, report, simulated_node, submit

from .driver import bash, end, start

NOON = datetime(2026, 11, 18, 12, tzinfo=UTC)
ONE_CORE = {"resources": {"cpu": "1"}}


def of_workflow(world: World, measure: str, amount: float, **more: Any) -> Budget:
    return create_budget(actor=SYSTEM, tenant=world.vision, workflow="etl", measure=measure, amount=amount, **more)


def jobs_of(run: Any) -> list[Job]:
    return list(Job.objects.filter(task__run=run).order_by("pk"))


def test_all_runs_of_the_workflow_count_and_nothing_else(world: World) -> None:
    simulated_node(world, cpu=20_000)
    of_workflow(world, "running", 3)
    ours = [start(world.vision, bash("a"), bash("b"), name="etl") for _ in range(2)]
    other = start(world.vision, bash("a"), bash("b"), name="report")
    theirs = start(world.speech, bash("a"), bash("b"), name="etl")
    alone = submit(world, name="etl")
    cycle()
    first, second = (jobs_of(run) for run in ours)
    assert [job.state for job in [*first, *second]] == ["granted", "granted", "granted", "pending"]
    waits = second[1]
    assert waits.reason == "budget_exhausted"
    assert waits.detail == "The budget of workflow etl of tenant vision lets 3 jobs run at once."
    assert {job.state for job in [*jobs_of(other), *jobs_of(theirs), fresh(alone)]} == {"granted"}
    for member in members(first[0]):
        report(member, "started", pid=1)
        report(member)
    cycle()
    assert fresh(waits).state == "granted"


def test_its_hours_are_counted_while_it_runs_and_after(world: World, monkeypatch: Any) -> None:
    now = [NOON]
    monkeypatch.setattr(timezone, "now", lambda: now[0])
    simulated_node(world, cpu=20_000)
    of_etl = of_workflow(world, "cpu_hours", 2, period="day")
    of_tenant = create_budget(actor=SYSTEM, tenant=world.vision, measure="cpu_hours", period="day", amount=100)
    run = start(world.vision, bash("a", **ONE_CORE), name="etl")
    start(world.vision, bash("a", **ONE_CORE), name="report")
    cycle()
    now[0] += timedelta(hours=2)
    assert [(use.used, use.per_hour) for use in uses([of_etl, of_tenant], now[0])] == [(2.0, 1.0), (4.0, 2.0)]
    [job] = jobs_of(run)
    for member in members(job):
        report(member, "started", pid=1)
        report(member)
    assert Consumption.objects.get(resource="cpu").workflow == "etl"
    assert [(use.used, use.per_hour) for use in uses([of_etl, of_tenant], now[0])] == [(2.0, 0.0), (4.0, 1.0)]
    late = start(world.vision, bash("a", **ONE_CORE), name="etl")
    cycle()
    assert [job.reason for job in jobs_of(late)] == ["budget_exhausted"]
    now[0] += timedelta(hours=10)
    cycle()
    assert [job.state for job in jobs_of(late)] == ["granted"]


def test_a_run_is_refused_while_too_many_of_its_workflows_jobs_wait(world: World) -> None:
    of_workflow(world, "pending", 2)
    first = start(world.vision, bash("a"), bash("b"), name="etl")
    start(world.vision, bash("a"), name="report")
    with pytest.raises(Conflict) as refused:
        trigger(actor=SYSTEM, workflow_id=first.workflow_id)
    assert refused.value.code == "too_many_pending" and "workflow etl of tenant vision" in refused.value.detail
    submit(world)  # Jobs of none, and other workflows, are not bound.
    start(world.vision, bash("a"), name="report")
    assert [use.used for use in uses(list(Budget.objects.all()), timezone.now())] == [2]
    simulated_node(world)
    cycle()
    assert trigger(actor=SYSTEM, workflow_id=first.workflow_id).state == "queued"


def test_a_run_is_refused_above_a_rate_and_told_when_to_come_again(world: World) -> None:
    of_workflow(world, "submissions", 2)
    first = start(world.vision, bash("a"), bash("b"), name="etl")
    with pytest.raises(RateLimited) as refused:
        trigger(actor=SYSTEM, workflow_id=first.workflow_id)
    assert 1 <= refused.value.retry_after <= 60
    Job.objects.filter(workflow="etl").update(submitted_at=timezone.now() - timedelta(minutes=1))
    assert trigger(actor=SYSTEM, workflow_id=first.workflow_id).state == "queued"


def test_a_budget_of_the_tenant_refuses_a_run_as_it_does_a_job(world: World) -> None:
    run = start(world.vision, bash("a"), name="etl")
    create_budget(actor=SYSTEM, tenant=world.vision, measure="pending", amount=1)
    with pytest.raises(Conflict):
        trigger(actor=SYSTEM, workflow_id=run.workflow_id)


def test_a_tenant_and_each_of_its_workflows_have_budgets_of_their_own(world: World) -> None:
    of_workflow(world, "running", 1)
    create_budget(actor=SYSTEM, tenant=world.vision, workflow="report", measure="running", amount=1)
    create_budget(actor=SYSTEM, tenant=world.vision, measure="running", amount=1)
    create_budget(actor=SYSTEM, tenant=world.speech, workflow="etl", measure="running", amount=1)
    with pytest.raises(Conflict):
        of_workflow(world, "running", 2)
    with pytest.raises(Invalid) as refused:
        create_budget(actor=SYSTEM, domain=world.alpha, workflow="etl", measure="running", amount=1)
    assert refused.value.errors[0]["field"] == "workflow"


def test_runs_under_way_when_the_portal_is_upgraded_count_too(world: World) -> None:
    run, ended = (start(world.vision, bash("a"), name="etl") for _ in range(2))
    alone = submit(world)
    end(ended, "a")
    Job.objects.update(workflow="")
    migration = import_module("apps.workflows.migrations.0004_workflow_of_active_jobs").Migration
    with connection.cursor() as cursor:
        cursor.execute(migration.operations[0].sql)
    assert [jobs_of(one)[0].workflow for one in (run, ended)] == ["etl", ""] and fresh(alone).workflow == ""
