"""How far priority reaches in a pool, and the highest that the jobs of a tenant may name."""

from datetime import datetime
from typing import Any

import pytest
from django.utils import timezone

from apps.core.actors import SYSTEM
from apps.core.errors import Forbidden, Invalid
from apps.events.models import Event
from apps.fleet import commands as fleet
from apps.quotas import commands as quotas
from apps.quotas.queries import quota_rows
from apps.scheduling.fitting import fits
from apps.scheduling.queries import why
from apps.workflows import commands as workflows
from rmctl.spec import parse_job
from tests.apps.workflows.driver import bash, definition
from tests.personas import World
from tests.work import cycle, fresh, job_data, members, report, simulated_node, submit


def bound(world: World, highest: int | None, node: Any = None) -> None:
    node = node or world.vision_quota
    quotas.set_highest_priority(actor=SYSTEM, node_id=node.pk, highest_priority=highest)


def across(world: World) -> None:
    fleet.update_pool(actor=SYSTEM, pool_id=world.pool.pk, priority_reach="across_tenants")


def busy(world: World) -> tuple[Any, Any, Any]:
    """A node full of vision's jobs, the larger of which will end; vision waits for its room with priority 50, and
    speech, which uses nothing, with 0."""
    simulated_node(world, cpu=6000)
    submit(world, cpu="2", time_limit="1000s")
    running = submit(world, cpu="4", time_limit="100s")
    cycle()
    high = submit(world, cpu="4", time_limit="100s", priority=50)
    low = submit(world, cpu="4", time_limit="100s", tenant=world.speech)
    cycle()
    return running, high, low


def test_across_tenants_the_higher_priority_starts_first_and_the_explanation_says_so(
    world: World, api: Any, clock: Any
) -> None:
    _, high, low = busy(world)

    def told() -> list[tuple[str, int, int]]:
        orders = [api.operator.get(f"jobs/{job.pk}/why").json()["order"] for job in (high, low)]
        return [(order["priority_reach"], order["above"], order["below"]) for order in orders]

    def first() -> int:
        reserved = {job.pk: why(SYSTEM, job.pk).reserved_at for job in (high, low)}
        return min((at, pk) for pk, at in reserved.items() if at is not None)[1]

    assert first() == low.pk
    assert told() == [("within_tenants", 0, 0), ("within_tenants", 0, 0)]
    across(world)
    cycle()
    assert first() == high.pk
    assert told() == [("across_tenants", 0, 1), ("across_tenants", 1, 0)]


@pytest.mark.parametrize("reach", ["within_tenants", "across_tenants"])
def test_a_simulation_under_the_rule_tells_what_then_happens(world: World, api: Any, clock: Any, reach: str) -> None:
    running, high, low = busy(world)
    answer = api.operator.post("simulate", {"policy": reach}).json()
    starts = {row["job"]: datetime.fromisoformat(row["after"]["starts_at"]) for row in answer["jobs"]}
    fleet.update_pool(actor=SYSTEM, pool_id=world.pool.pk, priority_reach=reach)
    report(members(running)[0])
    cycle()
    first, second = (high, low) if reach == "across_tenants" else (low, high)
    assert (fresh(first).state, fresh(second).state) == ("granted", "pending")
    assert starts[first.pk] < starts[second.pk]


def test_what_names_more_than_the_quota_allows_is_refused_at_its_field(world: World) -> None:
    simulated_node(world)
    bound(world, 50)
    assert submit(world, priority=50).priority == 50
    data = {**job_data(), "priority": 51}
    with pytest.raises(Invalid) as refusal:
        submit(world, priority=51)
    assert [(error["field"], error["code"]) for error in refusal.value.errors] == [("priority", "priority_too_high")]
    assert "Jobs of tenant vision may name at most priority 50, not 51" in str(refusal.value)
    assert "at most priority 50" in fits(world.vision, parse_job(data).normalised(), timezone.now()).refusal
    tasks = [bash("a", priority=50), bash("b", priority=60)]
    with pytest.raises(Invalid) as refusal:
        workflows.push(actor=SYSTEM, tenant=world.vision, definition=definition(*tasks))
    assert [error["field"] for error in refusal.value.errors] == ["tasks[1].priority"]
    submit(world, priority=1000, tenant=world.speech)


def test_the_nearest_bound_on_the_way_up_holds(world: World) -> None:
    simulated_node(world)
    bound(world, 10, world.cohort)
    bound(world, 100)
    submit(world, priority=100)
    with pytest.raises(Invalid, match="at most priority 10, not 11"):
        submit(world, priority=11, tenant=world.speech)
    bound(world, None)
    with pytest.raises(Invalid, match="at most priority 10, not 100"):
        submit(world, priority=100)
    rows = {row.name: row.highest_priority for row in quota_rows(SYSTEM)}
    assert (rows[world.cohort.name], rows[world.vision_quota.name]) == (10, None)
    facts = [event.facts["highest_priority"] for event in Event.objects.filter(verb="quota.priority_bounded")]
    assert sorted(facts, key=str) == [10, 100, None]


def test_what_was_submitted_before_counts_as_the_highest_that_it_may_name_now(world: World, clock: Any) -> None:
    across(world)
    running, high, low = busy(world)
    bound(world, -5)
    cycle()
    found = why(SYSTEM, high.pk)
    assert found.outlook.terms is not None
    assert (found.outlook.terms.priority, found.outlook.named, found.outlook.above) == (-5, 50, 1)
    report(members(running)[0])
    cycle()
    assert (fresh(high).state, fresh(low).state) == ("pending", "granted")


def test_nonsense_is_refused_and_only_operators_set_either(world: World, api: Any) -> None:
    node, pool = f"quotas/{world.vision_quota.pk}", f"pools/{world.pool.pk}"
    for body in ({"highest_priority": 1001}, {"highest_priority": "high"}):
        assert api.operator.patch(node, body).json()["errors"][0]["field"] == "highest_priority"
    assert api.operator.patch(pool, {"priority_reach": "far"}).json()["errors"][0]["field"] == "priority_reach"
    for value in (True, 1001):
        with pytest.raises(Invalid, match="from -1000 to 1000"):
            bound(world, value)
    with pytest.raises(Forbidden):
        quotas.set_highest_priority(actor=world.actor("admin"), node_id=world.vision_quota.pk, highest_priority=1000)
    assert api.operator.patch(node, {"highest_priority": 7}).json()["highest_priority"] == 7
    assert api.operator.patch(pool, {"priority_reach": "across_tenants"}).json()["priority_reach"] == "across_tenants"
    assert Event.objects.get(verb="pool.changed").facts["priority_reach"] == "across_tenants"


def test_a_made_up_job_may_name_no_more_either(world: World, api: Any) -> None:
    simulated_node(world)
    bound(world, 0)
    answer = api.operator.post("simulate", {"jobs": [{"tenant": "vision", "spec": {**job_data(), "priority": 1}}]})
    assert answer.json()["errors"][0]["field"] == "jobs[0].spec.priority"
