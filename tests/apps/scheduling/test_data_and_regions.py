"""Images, datasets, jurisdictions, ways and power, through the API: from what is reported and said to the node."""

from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from apps.core.actors import SYSTEM, Actor
from apps.core.errors import Forbidden, Invalid
from apps.events.models import Event
from apps.fleet import commands as fleet
from apps.fleet.models import Node
from apps.jobs.configuration import configuration
from apps.scheduling.models import Decision
from rmctl.agent.protocol import Holdings
from tests.personas import World
from tests.work import cycle, fresh, simulated_cluster, simulated_node

from .test_placement import ask, placed_on

GB = 10**9


def of(image: str) -> list[Any]:
    """One group of a job with an image."""
    return [{"command": ["true"], "image": image, "resources": {"cpu": "1", "memory": "1Gi"}}]


def call(world: World, method: str, path: str, who: str = "operator", data: Any = None) -> Any:
    return getattr(Client(), method)(
        f"/api/v1/{path}", data=data, content_type="application/json",
        headers={"Authorization": f"Bearer {world.token(who)}"},
    )  # fmt: skip


def test_an_agent_tells_what_lies_ready_and_jobs_go_there(world: World) -> None:
    bare, holds = simulated_node(world, "bare"), simulated_node(world, "holds")
    agent = Actor(label="agent:holds", node_id=holds.pk)
    found = Holdings(["docker.io/library/python:3.12"], {"corpus": 30 * GB})
    fleet.update_holdings(actor=agent, node_id=holds.pk, connection=holds.connection, holdings=found)
    Node.objects.update(runtimes=["podman"])
    event = Event.objects.get(verb="node.holdings_changed")
    assert event.facts["datasets"] == {"came": ["corpus"], "went": []}
    fleet.update_holdings(actor=agent, node_id=holds.pk, connection=holds.connection, holdings=found)
    assert Event.objects.filter(verb="node.holdings_changed").count() == 1
    assert call(world, "get", f"nodes/{holds.pk}").json()["system"]["datasets"] == {"corpus": 30 * GB}

    assert placed_on(ask(world, intent={"require": {"datasets": ["corpus"]}})) == ["holds"]
    assert placed_on(ask(world, groups=of("python:3.12"), intent={"require": {"image_present": True}})) == ["holds"]
    near = ask(world, intent={"datasets": ["corpus"], "goals": {"locality": 1}})
    assert placed_on(near) == ["holds"]
    assert Decision.objects.get(job=near, outcome="grant").scores["terms"]["locality"] == 1.0
    warm = ask(world, groups=of("python:3.12"), intent={"datasets": ["corpus"], "goals": {"warmth": 1}})
    assert placed_on(warm) == ["holds"]
    never = ask(world, status=422, groups=of("python:3.13"), intent={"require": {"image_present": True}})
    assert "having the image docker.io/library/python:3.13 already rules out 2" in never["detail"]
    never = ask(world, status=422, intent={"require": {"image_present": True}})
    assert never["errors"][0]["code"] == "contradiction"
    never = ask(world, status=422, intent={"goals": {"locality": 1}})
    assert "name it in datasets" in never["errors"][0]["message"]
    assert bare.system.get("images") in (None, [])


def test_an_agent_speaks_for_its_own_node_and_within_bounds(world: World) -> None:
    node, other = simulated_node(world, "a"), simulated_node(world, "b")
    agent = Actor(label="agent:a", node_id=node.pk)
    for wrong in (Holdings(["x" * 700]), Holdings(datasets={"no/slash": 1}), Holdings(datasets={"a": -1})):
        with pytest.raises(Invalid):
            fleet.update_holdings(actor=agent, node_id=node.pk, connection=node.connection, holdings=wrong)
    with pytest.raises(fleet.Replaced):
        fleet.update_holdings(actor=agent, node_id=node.pk, connection=node.connection + 1, holdings=Holdings())
    with pytest.raises(Exception, match="no node"):
        fleet.update_holdings(actor=agent, node_id=other.pk, connection=other.connection, holdings=Holdings())


def test_jurisdictions_are_terms_of_lending(world: World) -> None:
    simulated_node(world, "eu", cluster=simulated_cluster(world, "inside", jurisdictions=["DE", "EU"]))
    simulated_node(world, "elsewhere", cluster=simulated_cluster(world, "outside"))
    assert placed_on(ask(world, intent={"require": {"jurisdictions": ["DE"]}})) == ["eu"]
    never = ask(world, status=422, intent={"require": {"jurisdictions": ["CH"]}})
    assert "a jurisdiction among CH rules out 2" in never["detail"]
    terms = call(world, "get", "contributions").json()["results"]
    mine = next(item for item in terms if item["cluster"] == "inside")
    assert mine["jurisdictions"] == ["DE", "EU"]
    bad = call(world, "patch", f"contributions/{mine['id']}", data={"jurisdictions": ["Germany"]})
    assert bad.status_code == 422 and bad.json()["errors"][0]["field"].startswith("jurisdictions")


def test_the_narrowest_of_several_terms_counts(world: World) -> None:
    inside = simulated_cluster(world, "inside", jurisdictions=["DE", "EU"])
    simulated_node(world, "n", cluster=inside)
    fleet.create_contribution(actor=SYSTEM, cluster=inside, jurisdictions=["EU", "US"])
    fleet.create_contribution(actor=SYSTEM, cluster=inside)
    (lent,) = configuration(timezone.now()).lent.values()
    assert lent.row.site.jurisdictions == {"EU"}


def test_ways_between_regions_and_their_power_decide_by_goals(world: World) -> None:
    for region, watts in (("eu", "6"), ("us", "2")):
        cluster = simulated_cluster(world, f"in-{region}")
        fleet.update_cluster(actor=SYSTEM, cluster_id=cluster.pk, region=region)
        simulated_node(world, region, cluster=cluster, labels={"watts-per-core": watts})
    said = call(world, "put", "regions/eu", data={"carbon": 300, "round_trips": {"us": 90, "asia": 200}})
    assert said.status_code == 200, said.content
    call(world, "put", "regions/us", data={"carbon": 450, "round_trips": {"eu": 80, "asia": 150}})
    # Said last by us: the way between the two is 80 ms.
    assert call(world, "get", "regions/eu").json()["round_trips"] == {"asia": 200.0}
    for users, node, part in (("asia", "us", 0.25), ("eu", "eu", 1.0)):
        job = ask(world, intent={"near_region": users, "goals": {"latency": 1}})
        assert placed_on(job) == [node]
        assert Decision.objects.get(job=job, outcome="grant").scores["terms"]["latency"] == part
    job = ask(world, intent={"goals": {"energy": 1}})
    assert placed_on(job) == ["us"]
    assert Decision.objects.get(job=job, outcome="grant").scores["terms"]["energy"] == 0.5
    wrong = call(world, "put", "regions/eu", data={"round_trips": {"eu": 1}})
    assert wrong.status_code == 422 and "no way from itself" in wrong.json()["errors"][0]["message"]
    assert call(world, "put", "regions/eu", who="member", data={}).status_code == 403
    with pytest.raises(Forbidden):
        fleet.delete_region(actor=world.actor("member"), name="eu")
    assert call(world, "delete", "regions/eu", data="").status_code == 204
    cycle()
    assert fresh(job).state == "granted"
