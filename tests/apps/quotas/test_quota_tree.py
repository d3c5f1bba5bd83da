"""Operators shape the quota tree; tenants see their own part of it."""

from typing import Any

import pytest

from apps.core.actors import SYSTEM
from apps.core.errors import Conflict, Forbidden, Invalid, NotFound
from apps.events.models import Event
from apps.quotas import commands, queries
from apps.quotas.models import QuotaLimit, QuotaNode, QuotaUsage
from tests.personas import World, make_limits

ONE = {"flavor": "cpu", "resource": "cpu", "nominal": 1000}


@pytest.mark.parametrize(
    ("limit", "field", "code"),
    [
        ({"nominal": -1}, "limits[0].nominal", "out_of_range"),
        ({"nominal": 2**53 + 1}, "limits[0].nominal", "out_of_range"),
        ({"nominal": 1.5}, "limits[0].nominal", "out_of_range"),
        ({"nominal": True}, "limits[0].nominal", "out_of_range"),
        ({"nominal": None}, "limits[0].nominal", "out_of_range"),
        ({"borrowing_limit": -1}, "limits[0].borrowing_limit", "out_of_range"),
        ({"lending_limit": 2**60}, "limits[0].lending_limit", "out_of_range"),
        ({"flavor": "cpx"}, "limits[0].flavor", "not_found"),
        ({"resource": "love"}, "limits[0].resource", "invalid_choice"),
    ],
)
def test_absurd_limits_are_refused_and_nothing_changes(
    world: World, limit: dict[str, Any], field: str, code: str
) -> None:
    before = list(QuotaLimit.objects.order_by("pk").values())
    with pytest.raises(Invalid) as refusal:
        commands.set_limits(actor=SYSTEM, node_id=world.vision_quota.pk, limits=[{**ONE, **limit}])
    assert {(error["field"], error["code"]) for error in refusal.value.errors} == {(field, code)}
    assert list(QuotaLimit.objects.order_by("pk").values()) == before


def test_a_limit_is_given_once(world: World) -> None:
    with pytest.raises(Invalid) as refusal:
        commands.set_limits(actor=SYSTEM, node_id=world.vision_quota.pk, limits=[ONE, ONE])
    assert refusal.value.errors[0]["code"] == "repeated"


@pytest.mark.parametrize("name", ["borrowing_limit", "lending_limit"])
def test_a_root_neither_borrows_nor_lends(world: World, name: str) -> None:
    with pytest.raises(Invalid) as refusal:
        commands.set_limits(actor=SYSTEM, node_id=world.cohort.pk, limits=[{**ONE, name: 0}])
    assert refusal.value.errors[0]["code"] == "root_limit"
    commands.set_limits(actor=SYSTEM, node_id=world.vision_quota.pk, limits=[{**ONE, name: 5}])
    with pytest.raises(Invalid):
        commands.move_quota_node(actor=SYSTEM, node_id=world.vision_quota.pk, parent=None)


def test_new_limits_replace_the_old_ones(world: World) -> None:
    node = world.vision_quota
    commands.set_limits(actor=SYSTEM, node_id=node.pk, limits=[{**ONE, "borrowing_limit": 7}])
    assert list(node.limits.values_list("resource", "nominal", "borrowing_limit")) == [("cpu", 1000, 7)]
    event = Event.objects.filter(verb="quota.limits_set").latest("id")
    assert event.facts["limits"] == [["cpu", "cpu", 1000, 7, None]] and event.tenant_id == world.vision.pk


def test_a_cycle_is_refused_with_its_path(world: World) -> None:
    inner = commands.create_quota_node(actor=SYSTEM, name="inner", parent=world.cohort)
    leaf = commands.create_quota_node(actor=SYSTEM, name="below", parent=inner)
    for parent in (world.cohort, inner, leaf):
        with pytest.raises(Invalid) as refusal:
            commands.move_quota_node(actor=SYSTEM, node_id=world.cohort.pk, parent=parent)
        assert refusal.value.code == "cycle"
    assert "everybody → inner → below" in str(refusal.value)
    moved = commands.move_quota_node(actor=SYSTEM, node_id=leaf.pk, parent=world.cohort)
    assert moved.parent == world.cohort


def test_a_parent_that_was_moved_meanwhile_makes_no_cycle(world: World) -> None:
    """Two operators move each under the other at once: what the second had read of the tree is no longer so."""
    one, other = (commands.create_quota_node(actor=SYSTEM, name=name) for name in ("one", "other"))
    read_before = QuotaNode.objects.get(pk=other.pk)
    commands.move_quota_node(actor=SYSTEM, node_id=other.pk, parent=one)
    with pytest.raises(Invalid) as refusal:
        commands.move_quota_node(actor=SYSTEM, node_id=one.pk, parent=read_before)
    assert refusal.value.code == "cycle"
    gone = commands.create_quota_node(actor=SYSTEM, name="gone")
    commands.delete_quota_node(actor=SYSTEM, node_id=QuotaNode.objects.get(name="gone").pk)
    with pytest.raises(NotFound):
        commands.create_quota_node(actor=SYSTEM, name="below", parent=gone)


def test_what_is_below_a_moved_node_counts_for_the_depth(world: World) -> None:
    def chain(name: str, levels: int) -> list[QuotaNode]:
        nodes: list[QuotaNode] = []
        for level in range(levels):
            above = nodes[-1] if nodes else None
            nodes.append(commands.create_quota_node(actor=SYSTEM, name=f"{name}-{level}", parent=above))
        return nodes

    upper, lower = chain("upper", commands.MAX_DEPTH // 2), chain("lower", commands.MAX_DEPTH // 2 + 1)
    with pytest.raises(Invalid) as refusal:
        commands.move_quota_node(actor=SYSTEM, node_id=lower[0].pk, parent=upper[-1])
    assert refusal.value.code == "too_deep"
    commands.move_quota_node(actor=SYSTEM, node_id=lower[1].pk, parent=upper[-1])


def test_tenants_are_leaves(world: World) -> None:
    with pytest.raises(Invalid) as refusal:
        commands.create_quota_node(actor=SYSTEM, name="below", parent=world.vision_quota)
    assert refusal.value.code == "not_a_cohort"
    with pytest.raises(Conflict):
        commands.create_quota_node(actor=SYSTEM, name="second", tenant=world.vision)
    with pytest.raises(Conflict):
        commands.create_quota_node(actor=SYSTEM, name="vision")


def test_what_is_in_use_is_not_deleted(world: World) -> None:
    with pytest.raises(Conflict):
        commands.delete_quota_node(actor=SYSTEM, node_id=world.cohort.pk)
    QuotaUsage.objects.create(node=world.vision_quota, flavor="cpu", resource="cpu", used=1)
    with pytest.raises(Conflict):
        commands.delete_quota_node(actor=SYSTEM, node_id=world.vision_quota.pk)
    QuotaUsage.objects.update(used=0)
    commands.delete_quota_node(actor=SYSTEM, node_id=world.vision_quota.pk)
    assert not QuotaNode.objects.filter(pk=world.vision_quota.pk).exists()


def test_the_rows_tell_what_is_used_borrowed_and_left(world: World) -> None:
    QuotaUsage.objects.create(node=world.vision_quota, flavor="cpu", resource="cpu", used=20_000)
    rows = queries.quota_rows(SYSTEM)
    assert [(row.depth, row.name, row.tenant) for row in rows] == [
        (0, "everybody", None),
        (1, "speech", "speech"),
        (1, "vision", "vision"),
    ]
    cells = {row.name: {cell.resource: cell for cell in row.cells} for row in rows}
    mine = cells["vision"]["cpu"]
    assert (mine.nominal, mine.used, mine.borrowed) == (16_000, 20_000, 4_000)
    assert (mine.potential, mine.available) == (32_000, 12_000)
    assert cells["speech"]["cpu"].available == 12_000
    assert cells["everybody"]["cpu"].used == 20_000


def test_a_tenant_sees_its_leaf_and_what_is_above(world: World, api: Any) -> None:
    def seen(persona: str) -> set[str]:
        return {row.name for row in queries.quota_rows(world.actor(persona))}

    assert seen("operator") == {"everybody", "vision", "speech"}
    assert seen("member") == seen("admin") == seen("auditor") == {"everybody", "vision"}
    assert seen("stranger") == {"everybody", "speech"}
    assert seen("provider") == seen("nobody") == seen("anonymous") == set()
    assert api.stranger.get(f"quotas/{world.vision_quota.pk}").status_code == 404
    assert api.stranger.get(f"quotas/{world.speech_quota.pk}/limits").status_code == 200


def test_only_operators_change_it(world: World) -> None:
    for persona in ("provider", "admin", "member", "stranger", "nobody", "anonymous"):
        actor = world.actor(persona)
        with pytest.raises((Forbidden, NotFound)):
            commands.set_limits(actor=actor, node_id=world.vision_quota.pk, limits=make_limits())
        with pytest.raises(Forbidden):
            commands.create_quota_node(actor=actor, name="mine")


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf"), 1e9])
def test_weights_are_finite_and_not_negative(world: World, weight: float) -> None:
    with pytest.raises(Invalid):
        commands.set_weight(actor=SYSTEM, node_id=world.vision_quota.pk, weight=weight)


@pytest.mark.parametrize(
    ("rules", "field", "code"),
    [
        ({"reclaim": "sometimes"}, "rules.reclaim", "invalid_choice"),
        ({"within_queue": "any"}, "rules.within_queue", "invalid_choice"),
        ({"borrow_threshold": 1001}, "rules.borrow_threshold", "out_of_range"),
        ({"minimum_run_seconds": -1}, "rules.minimum_run_seconds", "out_of_range"),
        ({"recliam": "any"}, "rules.recliam", "unknown"),
    ],
)
def test_absurd_rules_are_refused_and_nothing_changes(
    world: World, rules: dict[str, Any], field: str, code: str
) -> None:
    with pytest.raises(Invalid) as refusal:
        commands.set_rules(actor=SYSTEM, node_id=world.vision_quota.pk, rules={"strategy": "strict_fifo", **rules})
    assert [(error["field"], error["code"]) for error in refusal.value.errors] == [(field, code)]
    assert QuotaNode.objects.get(pk=world.vision_quota.pk).strategy == "best_effort_fifo"


def test_rules_are_those_of_a_leaf_and_seen_in_its_row(world: World) -> None:
    with pytest.raises(Invalid, match="is a cohort"):
        commands.set_rules(actor=SYSTEM, node_id=world.cohort.pk, rules={"reclaim": "any"})
    commands.set_rules(actor=SYSTEM, node_id=world.vision_quota.pk, rules={"reclaim": "any"})
    rows = {row.name: row for row in queries.quota_rows(SYSTEM)}
    assert rows[world.cohort.name].rules is None
    rules = rows[world.vision_quota.name].rules
    assert rules is not None and rules["reclaim"] == "any" and rules["minimum_run_seconds"] == 60
    assert Event.objects.get(verb="quota.rules_set").facts["rules"] == {"reclaim": "any"}
