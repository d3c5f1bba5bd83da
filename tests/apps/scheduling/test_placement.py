"""Placement by intent through the API: from the spec that somebody sends to the nodes that the job gets."""

from typing import Any

import pytest
from django.test import Client

from apps.core.actors import SYSTEM, Actor
from apps.fleet.commands import update_inventory
from apps.fleet.snapshot import facts_of
from apps.jobs.models import Job
from apps.jobs.states import JobState
from apps.quotas import commands as quotas
from apps.scheduling.models import Decision
from apps.scheduling.queries import why
from tests.personas import World, make_inventory, make_limits
from tests.work import cycle, fresh, job_data, members, simulated_cluster, simulated_node


def ask(world: World, *, status: int = 201, **more: Any) -> Any:
    """POST a job as a member of tenant vision; the job, or the answer when another status is expected."""
    answer = Client().post(
        "/api/v1/jobs",
        data={"tenant": "vision", **job_data(**more)},
        content_type="application/json",
        headers={"Authorization": f"Bearer {world.token('member')}"},
    )
    assert answer.status_code == status, answer.content
    return Job.objects.get(pk=answer.json()["id"]) if status == 201 else answer.json()


def placed_on(job: Job) -> list[str]:
    cycle()
    return sorted(member.node.name for member in members(fresh(job)))


def test_hardware_that_the_agent_reported_decides(world: World) -> None:
    facts = {"arch": "x86_64", "cpu_flags": ["avx"], "python": "3.11.2", "gpu_driver": "535.104.05"}
    simulated_node(world, "old", cards=1, system={**facts, "gpu_compute": "7.5"})
    simulated_node(world, "new", cards=1, system={**facts, "gpu_compute": "8.0"}, labels={"interconnect": "nvlink"})
    cards = {"flavor": "cpu", "resource": "gpu", "nominal": 2000}
    quotas.set_limits(actor=SYSTEM, node_id=world.vision_quota.pk, limits=[*make_limits(), cards])
    wanted = {"gpu_compute": "8.0", "gpu_driver": "535", "interconnects": ["nvlink"], "cpu_flags": ["avx"]}
    job = ask(world, gpu={"count": 1}, intent={"require": wanted})
    assert placed_on(job) == ["new"]


def test_an_inventory_brings_the_facts_along(world: World) -> None:
    node = world.node("machine", gpu_compute="9.0", gpu_driver="550.1", interconnects=["infiniband"])
    assert node.system["gpu_compute"] == "9.0" and node.system["interconnects"] == ["infiniband"]
    changed = make_inventory(gpu_compute="8.9", packages=["scikit-learn"])
    update_inventory(
        actor=Actor(label="agent:machine", node_id=node.pk),
        node_id=node.pk,
        connection=node.connection,
        inventory=changed,
        version="1",
    )
    node.refresh_from_db()
    assert node.system["gpu_compute"] == "8.9" and node.system["interconnects"] == []
    assert facts_of(node.system, {}).packages == {"scikit-learn"}


def test_python_packages_that_a_node_has(world: World) -> None:
    simulated_node(world, "plain", system={"packages": ["numpy"]})
    wanted = {"intent": {"require": {"packages": ["Scikit_Learn"]}}}
    refused = ask(world, status=422, **wanted)
    assert "the Python packages scikit-learn" in refused["detail"]
    simulated_node(world, "learner", system={"packages": ["numpy", "scikit-learn"]})
    assert placed_on(ask(world, **wanted)) == ["learner"]


def test_a_price_ceiling_and_the_cost_goal(world: World) -> None:
    dear = simulated_cluster(world, "dear", price_per_cpu_hour="2")
    cheap = simulated_cluster(world, "cheap", price_per_cpu_hour="0.5")
    simulated_node(world, "first", cluster=dear)
    simulated_node(world, "second", cluster=cheap)
    job = ask(world, intent={"goals": {"cost": 5}})
    assert placed_on(job) == ["second"]
    assert Decision.objects.get(job=job, outcome="grant").scores["terms"]["cost"] == 0.75
    assert placed_on(ask(world, intent={"require": {"max_price": 1}})) == ["second"]
    never = ask(world, status=422, cpu="4", intent={"require": {"max_price": 1.9}})
    assert never["detail"] == "None of 2 nodes matches: a price of at most 1.9 an hour rules out 2."
    waiting = ask(world, cpu="3", intent={"require": {"max_price": 1.5}})
    cycle()
    told = why(world.actor("member"), waiting.pk)
    (funnel,) = [entry["funnel"] for entry in told.tried]
    assert {step["filter"]: step["rejected"] for step in funnel}["price"] == 1
    assert "a price of 6 an hour instead of 1.5: now" in [item.text for item in told.suggestions]


def test_a_gang_that_must_share_a_rack_waits_for_one(world: World) -> None:
    for number, rack in enumerate("aab"):
        simulated_node(world, f"n{number}", labels={"rack": rack})
    together = {"together": {"levels": ["rack"]}}
    assert placed_on(ask(world, count=8, intent=together)) == ["n0"] * 4 + ["n1"] * 4
    job = ask(world, count=5, intent=together)
    cycle()
    assert fresh(job).state == JobState.PENDING
    assert "4 of 5 members find room now in one rack" in fresh(job).detail


def test_members_spread_over_racks_and_labels_have_operators(world: World) -> None:
    for number, rack in enumerate("aab"):
        simulated_node(world, f"n{number}", labels={"rack": rack, "cores": str(8 * number)})
    apart = ask(world, count=2, intent={"apart": {"key": "rack", "most": 1}})
    nodes = placed_on(apart)
    assert len(nodes) == 2 and "n2" in nodes
    numbers = {"nodes": [{"label": "cores", "operator": "Gt", "values": ["8"]}]}
    assert placed_on(ask(world, intent={"require": numbers})) == ["n2"]


GREATER = {"nodes": [{"label": "a", "operator": "Gt", "values": ["x"]}]}
OTHER_ZONE = {"labels": {"zone": ["a"]}, "nodes": [{"label": "zone", "operator": "NotIn", "values": ["a"]}]}


@pytest.mark.parametrize(
    ("intent", "field", "text"),
    [
        ({"require": {"max_price": -1}}, "intent.require.max_price", "0"),
        ({"require": {"gpu_driver": "new"}}, "intent.require.gpu_driver", ""),
        ({"require": {"gpu_driver": "535"}}, "", "no group has resources.gpu"),
        ({"require": GREATER}, "intent.require.nodes[0]", "number"),
        ({"goals": {"speed": 1}}, "intent.goals", "cost"),
        ({"together": {"levels": ["rack"], "level": "row"}}, "intent.together", "none of the levels rack"),
        ({"together": {"levels": ["rack"]}, "apart": {"most": 1}}, "intent", "one of the two"),
        ({"require": OTHER_ZONE}, "intent.require", "no node can meet both"),
    ],
)
def test_an_intent_that_makes_no_sense_is_refused(world: World, intent: dict[str, Any], field: str, text: str) -> None:
    answer = ask(world, status=422, intent=intent)
    assert any(error["field"].startswith(field) and text in error["message"] for error in answer["errors"]), answer
