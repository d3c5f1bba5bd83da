"""What a person can rely on when submitting: a clear refusal that leaves nothing behind, or a job with a reason."""

from typing import Any

import pytest

from apps.core.actors import SYSTEM
from apps.core.errors import Forbidden, Invalid
from apps.events.models import Event
from apps.execution.models import Bundle
from apps.jobs import commands as jobs
from apps.jobs.models import Job
from apps.jobs.requests import RequestCache
from apps.tenants import commands as tenants
from tests.personas import GIB, World
from tests.work import cycle, fresh, job_data, simulated_node, submit


def with_group(**changes: Any) -> dict[str, Any]:
    data = job_data("true")
    data["groups"][0].update(changes)
    return data


def with_resources(**changes: Any) -> dict[str, Any]:
    data = job_data("true")
    data["groups"][0]["resources"].update(changes)
    return data


REFUSED: list[tuple[str, dict[str, Any], str, str]] = [
    ("unknown field", {**job_data(), "colour": "red"}, "colour", ""),
    ("unknown field of a group", with_group(comand=["x"]), "groups[0]", ""),
    ("no groups", {"groups": []}, "groups", ""),
    ("negative cpu", with_resources(cpu="-1"), "resources.cpu", ""),
    ("absurd cpu", with_resources(cpu="999999999999999999999"), "resources.cpu", ""),
    ("absurd memory", with_resources(memory="9999999999Ti"), "resources.memory", ""),
    ("memory that is no size", with_resources(memory="lots"), "resources.memory", ""),
    ("negative count", with_group(count=-1), "count", ""),
    ("absurd count", with_group(count=10**9), "count", ""),
    ("negative retries", {**job_data(), "retries": {"limit": -1}}, "retries.limit", ""),
    ("absurd priority", {**job_data(), "priority": 10**12}, "priority", ""),
    ("command and script", with_group(script="true"), "groups[0]", ""),
    ("a share of several cards", with_resources(gpu={"count": 2, "milli": 500}), "gpu", ""),
    ("unknown pool", {**job_data(), "intent": {"pool": "nowhere"}}, "intent.pool", "unknown_pool"),
    ("larger than any node", with_resources(cpu="5"), "groups[0].resources", "exceeds_every_node"),
    ("a gang that the nodes never hold", with_group(count=9), "groups[0].resources", "exceeds_every_node"),
    ("a label that no node has", {**job_data(), "intent": {"require": {"labels": {"zone": ["moon"]}}}},
     "groups[0].resources", "no_node_matches"),
    ("more than the quota can ever give", with_resources(memory="200Gi"), "groups[0].resources", "exceeds_max_quota"),
    ("a resource without quota", with_resources(gpu={"count": 1}), "groups[0].resources", "exceeds_max_quota"),
    ("unknown secret", with_group(secrets={"TOKEN": "absent"}), "groups[0].secrets", "unknown_secret"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "field", "code"), [item[1:] for item in REFUSED], ids=[item[0] for item in REFUSED])
def test_a_wrong_job_is_refused_with_its_field_and_nothing_is_written(
    world: World, data: dict[str, Any], field: str, code: str
) -> None:
    simulated_node(world)
    events = Event.objects.count()

    with pytest.raises(Invalid) as refusal:
        jobs.submit(actor=SYSTEM, tenant=world.vision, data=data)

    fields = [error["field"] for error in refusal.value.errors]
    assert any(field in named for named in fields), fields
    assert all(error["message"] for error in refusal.value.errors)
    if code:
        assert refusal.value.code == code
    assert not Job.objects.exists()
    assert Event.objects.count() == events


def test_a_secret_of_another_tenant_is_as_unknown_as_one_that_does_not_exist(world: World) -> None:
    simulated_node(world)
    tenants.set_secret(actor=SYSTEM, tenant=world.speech, name="theirs", value="x")

    with pytest.raises(Invalid) as refusal:
        jobs.submit(actor=SYSTEM, tenant=world.vision, data=with_group(secrets={"TOKEN": "theirs"}))

    assert refusal.value.code == "unknown_secret"
    assert "theirs" in refusal.value.detail


def test_a_bundle_of_another_tenant_is_as_unknown_as_one_that_does_not_exist(world: World) -> None:
    simulated_node(world)
    Bundle.objects.create(tenant=world.speech, sha256="a" * 64, size=1)

    with pytest.raises(Invalid) as refusal:
        jobs.submit(actor=SYSTEM, tenant=world.vision, data={**job_data(), "bundle": "a" * 64})

    assert (refusal.value.code, refusal.value.errors[0]["field"]) == ("unknown_bundle", "bundle")
    Bundle.objects.create(tenant=world.vision, sha256="a" * 64, size=1)
    assert jobs.submit(actor=SYSTEM, tenant=world.vision, data={**job_data(), "bundle": "a" * 64}).pk


def test_more_different_requests_than_are_kept_are_all_known(world: World) -> None:
    simulated_node(world)
    spec = submit(world).spec
    small = RequestCache(size=3)
    for names in ({"a", "b", "c"}, {"b", "c", "d"}, {"a", "b", "c", "d"}, {"a"}):
        for name in small.missing(names):
            small.add(name, spec)
        assert all(small[name] for name in names)


def test_the_group_with_the_unknown_secret_is_named(world: World) -> None:
    simulated_node(world)
    data = job_data("true")
    data["groups"].append({**data["groups"][0], "name": "second", "secrets": {"TOKEN": "absent"}})

    with pytest.raises(Invalid) as refusal:
        jobs.submit(actor=SYSTEM, tenant=world.vision, data=data)

    assert refusal.value.errors[0]["field"] == "groups[1].secrets"


def test_a_tenant_without_quota_is_told_to_ask_for_one(world: World) -> None:
    simulated_node(world)
    bare = tenants.create_tenant(actor=SYSTEM, domain=world.alpha, slug="bare")

    with pytest.raises(Invalid) as refusal:
        jobs.submit(actor=SYSTEM, tenant=bare, data=job_data())

    assert refusal.value.code == "no_quota"


@pytest.mark.parametrize("persona", ["stranger", "auditor", "nobody", "anonymous", "provider"])
def test_only_members_submit(world: World, persona: str) -> None:
    simulated_node(world)

    with pytest.raises(Forbidden):
        jobs.submit(actor=world.actor(persona), tenant=world.vision, data=job_data())

    assert not Job.objects.exists()


def test_a_member_submits_and_owns_the_job(world: World) -> None:
    simulated_node(world)

    job = jobs.submit(actor=world.actor("member"), tenant=world.vision, data=job_data(name="mine"))

    assert (job.owner_id, job.name, job.state, job.pool) == (world.users["member"].pk, "mine", "pending", "default")
    event = Event.objects.get(verb="job.submitted")
    assert (event.actor, event.subject_id, event.tenant_id) == ("user:max", job.pk, world.vision.pk)




def test_a_job_has_a_reason_from_the_start_and_the_true_one_after_one_pass(world: World) -> None:
    simulated_node(world)
    submit(world, cpu="4")
    cycle()

    job = submit(world, cpu="4")
    assert (job.reason, bool(job.detail)) == ("submitted", True)
    cycle()

    job = fresh(job)
    assert (job.state, job.reason) == ("pending", "waiting_for_capacity")
    assert "free" in job.detail
    assert job.tried[0]["flavor"] == "cpu"
    assert job.tried[0]["funnel"]


def test_a_job_for_nodes_that_are_away_now_is_taken_and_says_so(world: World) -> None:
    node = simulated_node(world)
    node.state = "cordoned"
    node.save()

    job = submit(world)
    cycle()

    assert fresh(job).reason == "no_node_matches"
    assert "ready" in fresh(job).detail


def test_equal_requests_share_an_equivalence_and_different_ones_do_not(world: World) -> None:
    simulated_node(world)
    one, same = submit(world, "sleep 1"), submit(world, "sleep 2", name="another")
    other = submit(world, "sleep 1", memory="2Gi")

    assert one.equivalence == same.equivalence != other.equivalence


def test_memory_beyond_the_quota_that_the_cohort_has_is_lent(world: World) -> None:
    simulated_node(world, memory=200 * GIB)

    job = submit(world, memory="100Gi")  # vision has 64 GiB, speech lends its own
    cycle()

    assert fresh(job).state == "granted"
