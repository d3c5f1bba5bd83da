"""Jobs that start with fewer members than they would like: charged, told and run as many as there are."""

from typing import Any

import pytest

from apps.core.actors import SYSTEM
from apps.core.errors import Invalid
from apps.execution.dispatch import assignments
from apps.jobs import commands as jobs
from apps.jobs.commands.grants import drift
from apps.jobs.models import Grant, Job
from tests.personas import World
from tests.work import cycle, fresh, job_data, members, report, simulated_node


def submit(world: World, count: int, least: int | None, **more: Any) -> Job:
    data = job_data(count=count, **more)
    data["groups"][0]["min_count"] = least
    return jobs.submit(actor=SYSTEM, tenant=world.vision, data=data)


def test_the_task_sees_how_many_there_are_and_the_quota_is_charged_for_them(world: World) -> None:
    simulated_node(world, cpu=3000)
    job = submit(world, 5, 2)
    cycle()
    started = members(job)
    assert fresh(job).state == "granted" and [member.rank for member in started] == [0, 1, 2]
    assert Grant.objects.get(job=job).amounts["cpu"] == 3000
    sent, missing = assignments([member.pk for member in started])
    assert not missing and [assignment.size for assignment in sent] == [3, 3, 3]
    assert drift() == []
    for member in started:
        report(member, "started", pid=1)
        report(member)
    assert fresh(job).state == "succeeded" and drift() == []


def test_below_the_fewest_it_waits(world: World) -> None:
    simulated_node(world, cpu=3000)
    job = submit(world, 8, 3)
    blocker = submit(world, 1, None, priority=10)
    cycle()
    assert (fresh(blocker).state, fresh(job).state, fresh(job).reason) == ("granted", "pending", "waiting_for_capacity")


def test_what_could_start_with_its_fewest_is_not_refused_at_submission(world: World) -> None:
    simulated_node(world, cpu=3000)
    with pytest.raises(Invalid):
        submit(world, 5, None)
    with pytest.raises(Invalid):
        submit(world, 5, 4)
    assert submit(world, 5, 3).state == "pending"


def test_a_minimum_above_the_count_is_refused(world: World) -> None:
    simulated_node(world)
    with pytest.raises(Invalid) as refused:
        submit(world, 2, 3)
    [error] = refused.value.errors
    assert error["code"] == "minimum_above_count" and "min_count (3)" in error["message"]
