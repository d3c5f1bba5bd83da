"""The form of a quota: amounts as people type them, refusals beside their fields, nobody's change overwritten."""

import re
from typing import Any

import pytest

from apps.console.quota_forms import shown, typed
from apps.core.actors import SYSTEM
from apps.events.models import Event
from apps.fleet import commands as fleet
from apps.quotas import commands as quotas
from apps.quotas.models import QuotaLimit, QuotaNode, QuotaUsage
from apps.tenants import commands as tenants
from rmctl.spec import BadValue
from tests.personas import GIB, World, make_limits

from .conftest import People, fragment
from .test_fleet_forms import fault

INPUT = re.compile(r'name="((?:nominal|borrowing_limit|lending_limit):[^"]+|weight|seen)"[^>]*?value="([^"]*)"')


def fields(page: Any) -> dict[str, str]:
    """What a browser would send back."""
    return dict(INPUT.findall(page.content.decode()))


def limits(node: QuotaNode) -> dict[str, tuple[int, int | None, int | None]]:
    rows = QuotaLimit.objects.filter(node=node)
    return {row.resource: (row.nominal, row.borrowing_limit, row.lending_limit) for row in rows}


@pytest.mark.parametrize(
    ("text", "resource", "amount"),
    [
        ("16", "cpu", 16_000),
        ("0.5", "cpu", 500),
        ("1500m", "cpu", 1500),
        ("0", "cpu", 0),
        ("20000", "cpu", 20_000_000),
        ("64Gi", "memory", 64 * GIB),
        ("0", "memory", 0),
        ("1Ti", "storage", 1024 * GIB),
        ("2.5", "gpu", 2500),
        ("1000", "gpu", 1_000_000),
    ],
)
def test_amounts_are_read_and_shown_so_that_they_read_the_same(text: str, resource: str, amount: int) -> None:
    assert typed(text, resource) == amount
    assert typed(shown(amount, resource), resource) == amount


@pytest.mark.parametrize(
    ("text", "resource"),
    [("many", "cpu"), ("-1", "cpu"), ("1e3", "cpu"), ("500m", "gpu"), ("64m", "memory"), ("9" * 13, "gpu")],
)
def test_what_is_no_amount_is_refused(text: str, resource: str) -> None:
    with pytest.raises(BadValue):
        typed(text, resource)


def test_limits_and_weight_are_saved_together(world: World, people: People) -> None:
    path = f"/quotas/{world.vision_quota.pk}/"
    page = people.operator.get(path)
    values = fields(page)
    assert values["nominal:cpu:cpu"] == "16"
    assert values["nominal:cpu:memory"] == "64Gi"
    changes = {
        "weight": "2.5",
        "nominal:cpu:cpu": "8500m",
        "borrowing_limit:cpu:cpu": "4",
        "lending_limit:cpu:cpu": "0",
        "nominal:cpu:storage": "",
        "nominal:cpu:gpu": "2",
    }
    answer = people.operator.post(path, {**values, **changes})
    assert answer["Location"] == "/quotas/"
    world.vision_quota.refresh_from_db()
    assert world.vision_quota.weight == 2.5
    assert limits(world.vision_quota) == {
        "cpu": (8500, 4000, 0),
        "memory": (64 * GIB, None, None),
        "gpu": (2000, None, None),
    }


def test_saving_what_is_there_already_changes_nothing(world: World, people: People) -> None:
    path = f"/quotas/{world.vision_quota.pk}/"
    before = Event.objects.count()
    assert people.operator.post(path, fields(people.operator.get(path))).status_code == 302
    assert Event.objects.count() == before


@pytest.mark.parametrize(
    ("changes", "field", "said"),
    [
        ({"nominal:cpu:cpu": "many"}, "nominal:cpu:cpu", "is not an amount of cpu"),
        ({"borrowing_limit:cpu:memory": "-1Gi"}, "borrowing_limit:cpu:memory", "negative"),
        ({"lending_limit:cpu:storage": "64m"}, "lending_limit:cpu:storage", "is not a size"),
        ({"borrowing_limit:cpu:gpu": "2"}, "nominal:cpu:gpu", "Give the nominal amount too"),
        ({"nominal:cpu:cpu": "9" * 13}, "nominal:cpu:cpu", "more than any fleet has"),
        ({"weight": "heavy"}, "weight", "is not a weight"),
        ({"weight": "nan"}, "weight", "is not a weight"),
        ({"weight": "-1"}, "weight", "a number from 0"),
    ],
)
def test_a_refused_value_stays_and_names_its_field(
    world: World, people: People, changes: dict[str, str], field: str, said: str
) -> None:
    path = f"/quotas/{world.vision_quota.pk}/"
    before = limits(world.vision_quota)
    sent = {**fields(people.operator.get(path)), "nominal:cpu:memory": "32Gi", **changes}
    page = people.operator.post(path, sent)
    assert page.status_code == 422
    assert said in fault(page, re.escape(field))
    assert fields(page) == sent
    assert limits(world.vision_quota) == before


def test_usage_stands_beside_each_limit_and_is_live(world: World, people: People) -> None:
    QuotaUsage.objects.create(node=world.vision_quota, flavor="cpu", resource="cpu", used=20_000)
    path = f"/quotas/{world.vision_quota.pk}/"
    part = fragment(people.operator, path, "quota-limits").content.decode()
    text = " ".join(re.sub(r"<[^>]+>", " ", part).split())
    assert "20 used of 16 · 4 borrowed · 12 still to be had" in text
    assert "No limit, nothing used." in text  # Of the resource gpu.
    # The refresh must leave alone what is being typed.
    assert part.count("data-morph-keep") == part.count("<input") == 12


def test_nobody_elses_change_is_overwritten_unseen(world: World, people: People) -> None:
    path = f"/quotas/{world.vision_quota.pk}/"
    mine = {**fields(people.operator.get(path)), "nominal:cpu:cpu": "4"}
    quotas.set_limits(actor=SYSTEM, node_id=world.vision_quota.pk, limits=make_limits(cpu=12_000))
    # A refusal for another reason does not make the other's change seen.
    mine = fields(people.operator.post(path, {**mine, "weight": "heavy"})) | {"weight": "1"}
    page = people.operator.post(path, mine)
    assert page.status_code == 422
    assert "were changed by somebody else meanwhile" in page.content.decode()
    assert limits(world.vision_quota)["cpu"] == (12_000, None, None)
    again = fields(page)
    assert again["nominal:cpu:cpu"] == "4"
    assert people.operator.post(path, again).status_code == 302
    assert limits(world.vision_quota)["cpu"] == (4000, None, None)


def test_a_root_has_nobody_to_share_with(world: World, people: People) -> None:
    path = f"/quotas/{world.cohort.pk}/"
    values = fields(people.operator.get(path))
    assert not [name for name in values if name.startswith(("borrowing", "lending"))]
    values |= {"nominal:cpu:cpu": "8", "borrowing_limit:cpu:cpu": "1"}
    assert people.operator.post(path, values).status_code == 302
    assert limits(world.cohort) == {"cpu": (8000, None, None)}


def test_limits_of_a_flavor_that_is_gone_are_shown_and_ended(world: World, people: People) -> None:
    fleet.delete_flavor(actor=SYSTEM, flavor_id=world.flavor.pk)
    path = f"/quotas/{world.vision_quota.pk}/"
    page = people.operator.get(path)
    assert "flavor is gone" in page.content.decode()
    values = fields(page)
    refused = people.operator.post(path, {**values, "weight": "3"})
    assert "There is no flavor" in fault(refused, "nominal:cpu:cpu")
    world.vision_quota.refresh_from_db()
    assert world.vision_quota.weight == 1.0
    emptied = {name: "" if ":" in name else value for name, value in values.items()}
    assert people.operator.post(path, emptied).status_code == 302
    assert limits(world.vision_quota) == {}


def test_a_tenant_gets_its_place_in_the_tree_and_loses_it(world: World, people: People) -> None:
    tenants.create_tenant(actor=SYSTEM, domain=world.alpha, slug="robotics", name="Robotics")
    operator = people.operator
    assert "/quotas/new/?tenant=robotics" in operator.get("/tenants/robotics/").content.decode()
    page = operator.get("/quotas/new/?tenant=robotics").content.decode()
    assert '<option value="robotics" selected>Robotics</option>' in page
    assert '<option value="vision"' not in page  # It has its quota already.
    wanted = {"name": "robotics", "tenant": "robotics", "parent": "everybody", "weight": "3"}
    refused = operator.post("/quotas/new/", {**wanted, "weight": "much", "name": "vision"})
    assert refused.status_code == 422
    assert "'much' is not a weight" in fault(refused, "weight")
    assert 'value="much"' in refused.content.decode()
    taken = operator.post("/quotas/new/", {**wanted, "name": "vision"})
    assert fault(taken, "name") == "There is a quota vision already."

    made = operator.post("/quotas/new/", wanted)
    node = QuotaNode.objects.get(name="robotics")
    assert made["Location"] == f"/quotas/{node.pk}/"
    assert (node.parent, node.tenant.slug, node.weight) == (world.cohort, "robotics", 3.0)  # type: ignore[union-attr]
    assert operator.post(f"/quotas/{node.pk}/delete")["Location"] == "/quotas/"
    assert not QuotaNode.objects.filter(pk=node.pk).exists()


def test_a_cohort_with_children_stays(world: World, people: People) -> None:
    page = people.operator.get(f"/quotas/{world.cohort.pk}/").content.decode()
    assert "delete-quota" not in page
    answer = people.operator.post(f"/quotas/{world.cohort.pk}/delete", follow=True)
    assert "has children: move or delete them first" in answer.content.decode()
    assert QuotaNode.objects.filter(pk=world.cohort.pk).exists()


def test_rules_of_the_queue_are_set_and_a_wrong_one_stays_beside_its_field(world: World, people: People) -> None:
    path = f"/quotas/{world.vision_quota.pk}/"
    page = people.operator.get(path)
    assert 'data-testid="quota-rules"' in page.content.decode()
    values = {**fields(page), "reclaim": "any", "minimum_run_seconds": "300", "borrow_threshold": "-5"}
    assert people.operator.post(path, values).status_code == 302
    world.vision_quota.refresh_from_db()
    node = world.vision_quota
    assert (node.reclaim, node.minimum_run_seconds, node.borrow_threshold) == ("any", 300, -5)
    refused = people.operator.post(path, {**values, "minimum_run_seconds": "soon", "reclaim": "never"})
    assert refused.status_code == 422 and "is not a whole number" in refused.content.decode()
    node.refresh_from_db()
    assert node.reclaim == "any"
    cohort = people.operator.get(f"/quotas/{world.cohort.pk}/").content.decode()
    assert 'data-testid="quota-rules"' not in cohort
