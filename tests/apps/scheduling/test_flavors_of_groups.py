"""A job whose groups get different flavors: charged, shown, evicted, simulated and released as such."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from apps.core.actors import SYSTEM
from apps.core.errors import Invalid
from apps.fleet import commands as fleet
from apps.fleet.models import Flavor
from apps.jobs import commands as jobs
from apps.jobs.commands.grants import drift, repair
from apps.jobs.models import Attempt, Grant, Job
from apps.quotas import commands as quotas
from apps.quotas.models import QuotaUsage
from apps.scheduling.models import Decision
from tests.personas import World
from tests.work import GIB, cycle, fresh, members, report, simulated_node

BOTH = "cpu-spot + h100"


@pytest.fixture
def mixed(world: World) -> World:
    """Nodes without cards in `cpu-spot`, one with two cards in `h100`; quota of cards in the latter alone."""
    Flavor.objects.all().delete()
    fleet.create_flavor(actor=SYSTEM, pool=world.pool, name="cpu-spot", match={"labels": {"kind": ["spot"]}})
    fleet.create_flavor(actor=SYSTEM, pool=world.pool, name="h100", match={"gpu_models": ["A100"]}, position=1)
    simulated_node(world, "sim-1", cpu=4000, labels={"kind": "spot"})
    simulated_node(world, "sim-2", cpu=8000, cards=2)
    limits = [
        {"flavor": flavor, "resource": resource, "nominal": nominal}
        for flavor, resource, nominal in (
            ("cpu-spot", "cpu", 4000), ("cpu-spot", "memory", 16 * GIB),
            ("h100", "cpu", 4000), ("h100", "memory", 16 * GIB), ("h100", "gpu", 2000),
        )
    ]  # fmt: skip
    quotas.set_limits(actor=SYSTEM, node_id=world.vision_quota.pk, limits=limits)
    return world


def data(workers: int = 2, cpu: str = "2", **more: Any) -> dict[str, Any]:
    """A job with a driver without cards and workers with one each."""
    driver = {"name": "driver", "command": ["true"], "resources": {"cpu": "1", "memory": "1Gi"}}
    worker = {"cpu": cpu, "memory": "1Gi", "gpu": {"count": 1}}
    return {
        "groups": [driver, {"name": "workers", "command": ["true"], "count": workers, "resources": worker}],
        **more,
    }


def submit(world: World, **more: Any) -> Job:
    return jobs.submit(actor=SYSTEM, tenant=world.vision, data=data(**more))


def used() -> dict[tuple[str, str], int]:
    rows = QuotaUsage.objects.filter(used__gt=0).values_list("flavor", "resource", "used")
    return {(flavor, resource): amount for flavor, resource, amount in rows}


def test_each_group_is_charged_to_its_flavor_until_the_end(mixed: World) -> None:
    job = submit(mixed)
    cycle()
    assert [(member.group, member.node.name) for member in members(job)] == [(0, "sim-1"), (1, "sim-2"), (1, "sim-2")]
    grant = Grant.objects.get(job=job)
    assert (grant.flavor, grant.amounts["cpu"], grant.amounts["gpu"]) == (BOTH, 5000, 2000)
    cores = [(share["flavor"], share["amounts"]["cpu"]) for share in grant.shares]
    assert cores == [("cpu-spot", 1000), ("h100", 4000)]
    charged = {
        ("cpu-spot", "cpu"): 1000, ("cpu-spot", "memory"): GIB,
        ("h100", "cpu"): 4000, ("h100", "memory"): 2 * GIB, ("h100", "gpu"): 2000,
    }  # fmt: skip
    assert used() == charged and drift() == []
    decision = Decision.objects.filter(job=job, outcome="grant").get()
    assert decision.flavor == BOTH and decision.tried[-1]["flavor"] == BOTH
    QuotaUsage.objects.filter(flavor="h100", resource="cpu").update(used=1)
    assert len(drift()) == 1 and repair() and used() == charged
    for member in members(job):
        report(member, "started", pid=1)
        report(member)
    assert fresh(job).state == "succeeded" and used() == {} and drift() == []


def test_a_group_that_could_have_the_flavor_of_the_other_still_gets_its_own_first(mixed: World) -> None:
    """The quota of h100 has four cores: with the driver there as well the workers would not fit."""
    first, second = submit(mixed, workers=1, cpu="3"), submit(mixed, workers=1, cpu="3")
    cycle()
    assert (fresh(first).state, fresh(second).state) == ("granted", "pending")
    assert fresh(second).reason == "waiting_for_quota"
    told = {entry["flavor"]: entry["quota"]["resource"] for entry in fresh(second).tried}
    assert told == {BOTH: "cpu", "h100": "cpu"}


def test_what_only_different_flavors_could_hold_is_accepted_and_more_is_refused(mixed: World) -> None:
    assert submit(mixed, workers=2, cpu="2").state == "pending"  # Five cores; each flavor has four.
    with pytest.raises(Invalid) as refused:
        submit(mixed, workers=2, cpu="2500m")
    [error] = refused.value.errors
    assert error["code"] == "exceeds_max_quota" and "cpu" in error["message"]


def test_a_victim_in_both_flavors_makes_room_in_both(mixed: World) -> None:
    quotas.set_rules(
        actor=SYSTEM,
        node_id=mixed.vision_quota.pk,
        rules={"within_queue": "lower_priority", "minimum_run_seconds": 0},
    )
    first = submit(mixed)
    cycle()
    urgent = submit(mixed, priority=10)
    cycle()
    assert fresh(urgent).reason == "waiting_for_preemption"
    assert Attempt.objects.get(job=first).stop_reason == "preempted"
    for member in members(first):
        report(member, reason="stopped", exit_code=None)
    cycle()
    assert fresh(urgent).state == "granted" and Grant.objects.get(job=urgent).flavor == BOTH and drift() == []


def test_a_simulation_counts_what_runs_in_both_flavors(mixed: World, api: Any) -> None:
    running, waiting = submit(mixed, time_limit=100), submit(mixed, time_limit=100)
    cycle()
    assert (fresh(running).state, fresh(waiting).state) == ("granted", "pending")
    answer = api.operator.post("simulate", {"run_times": "limit"}).json()
    [course] = [row["before"] for row in answer["jobs"] if row["job"] == waiting.pk]
    ends = Grant.objects.get(job=running).created_at + timedelta(seconds=100)
    assert abs(timezone.datetime.fromisoformat(course["starts_at"]) - ends) < timedelta(seconds=1)
    assert course["nodes"] == ["sim-1", "sim-2"]
    [attempt] = api.member.get(f"jobs/{running.pk}/attempts").json()["results"]
    assert attempt["flavor"] == BOTH and [share["flavor"] for share in attempt["shares"]] == ["cpu-spot", "h100"]
    why = api.member.get(f"jobs/{running.pk}/why").json()
    assert why["detail"] == f"Placed on sim-1, sim-2 in flavors {BOTH}."
