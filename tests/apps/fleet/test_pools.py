"""Pools are live queries over what is lent; flavors divide them."""

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from apps.core.actors import SYSTEM
from apps.core.errors import Conflict, Forbidden, Invalid
from apps.fleet import commands, queries
from apps.fleet.membership import NodeRow, Terms, matches, members
from tests.personas import GIB, World

NOW = timezone.now()
CARD = {"index": 0, "model": "A100", "memory_bytes": 40 * GIB}


def row(**changes: Any) -> NodeRow:
    values: dict[str, Any] = {
        "id": 1,
        "cluster": "c",
        "domain": "d",
        "region": "eu",
        "labels": {"zone": "a"},
        "gpu_models": frozenset({"A100"}),
        "terms": [Terms(trust=2)],
        **changes,
    }
    return NodeRow(**values)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, True),
        ({"clusters": ["c", "x"]}, True),
        ({"clusters": ["x"]}, False),
        ({"domains": ["d"]}, True),
        ({"domains": ["x"]}, False),
        ({"regions": ["eu"]}, True),
        ({"regions": ["us"]}, False),
        ({"labels": {"zone": ["a", "b"]}}, True),
        ({"labels": {"zone": ["b"]}}, False),
        ({"labels": {"disk": ["ssd"]}}, False),
        ({"gpu_models": ["A100", "H100"]}, True),
        ({"gpu_models": ["H100"]}, False),
        ({"trust": 2}, True),
        ({"trust": 3}, False),
        ({"clusters": ["c"], "trust": 3}, False),
    ],
)
def test_a_query_restricts_by_every_key_that_it_has(query: dict[str, Any], expected: bool) -> None:
    assert matches(query, row()) is expected


def test_what_is_not_lent_is_in_no_pool() -> None:
    assert not matches({}, row(terms=[]))


@pytest.mark.parametrize(
    ("starts", "ends", "expected"),
    [
        (None, None, True),
        (-1, 1, True),
        (1, None, False),
        (None, -1, False),
        (None, 0, False),
        (0, None, True),
    ],
)
def test_terms_count_inside_their_period(starts: int | None, ends: int | None, expected: bool) -> None:
    hour = timedelta(hours=1)
    terms = Terms(
        starts_at=None if starts is None else NOW + starts * hour,
        ends_at=None if ends is None else NOW + ends * hour,
    )
    assert terms.in_force(NOW) is expected


def test_terms_add_up() -> None:
    lent = row(terms=[Terms(1, 50, frozenset({1})), Terms(3, 80, frozenset({2}))])
    assert (lent.trust, lent.share_percent, lent.consumers) == (3, 80, frozenset({1, 2}))
    assert row(terms=[Terms(consumers=frozenset({1})), Terms()]).consumers is None


def test_a_node_belongs_to_the_first_flavor_that_matches() -> None:
    rows = [row(id=3, gpu_models=frozenset()), row(id=1), row(id=2, labels={"zone": "b"})]
    found = members({}, [("a100", {"gpu_models": ["A100"]}), ("rest", {}), ("never", {})], rows)
    assert found.nodes == [1, 2, 3]
    assert found.flavors == [("a100", [1, 2]), ("rest", [3]), ("never", [])]


def test_members_of_all_pools_follow_the_rows(world: World) -> None:
    one, two = world.node("n1"), world.node("n2", gpus=[CARD])
    commands.set_labels(actor=SYSTEM, node_id=one.pk, labels={"disk": "ssd"})
    commands.create_pool(actor=SYSTEM, name="ssd", query={"labels": {"disk": ["ssd"]}})
    gpu = commands.create_pool(actor=SYSTEM, name="gpu", query={"gpu_models": ["A100"]})
    commands.create_flavor(actor=SYSTEM, pool=gpu, name="a100", match={"gpu_models": ["A100"]})
    found = queries.pool_members(NOW)
    assert {name: pool.nodes for name, pool in found.items()} == {
        "default": [one.pk, two.pk],
        "ssd": [one.pk],
        "gpu": [two.pk],
    }
    assert found["gpu"].flavors == [("a100", [two.pk])]
    assert found["default"].consumers == {one.pk: None, two.pk: None}
    commands.remove_node(actor=SYSTEM, node_id=one.pk)
    (terms,) = world.cluster.contributions.all()
    assert queries.pool_members(NOW)["ssd"].nodes == []
    commands.delete_contribution(actor=SYSTEM, contribution_id=terms.pk)
    assert queries.pool_members(NOW)["default"].nodes == []


def test_membership_takes_the_same_few_queries_for_many_pools_and_nodes(world: World) -> None:
    counts = []
    for size in (3, 30):
        for number in range(size):
            world.node(f"n{size}-{number}", gpus=[CARD])
            commands.create_pool(actor=SYSTEM, name=f"p{size}-{number}")
        with CaptureQueriesContext(connection) as captured:
            queries.pool_members(NOW)
        counts.append(len(captured))
    assert counts[0] == counts[1] <= 6


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"cluster": ["c"]}, "query.cluster"),
        ({"clusters": "c"}, "query.clusters"),
        ({"clusters": []}, "query.clusters"),
        ({"labels": {"zone": "a"}}, "query.labels.zone"),
        ({"labels": {"zo ne": ["a"]}}, "query.labels"),
        ({"trust": -1}, "query.trust"),
        ({"trust": True}, "query.trust"),
        ({"gpu_models": [1]}, "query.gpu_models"),
        ([], "query"),
    ],
)
def test_a_query_that_makes_no_sense_is_refused_by_field(world: World, query: Any, field: str) -> None:
    with pytest.raises(Invalid) as refusal:
        commands.update_pool(actor=SYSTEM, pool_id=world.pool.pk, query=query)
    assert refusal.value.errors[0]["field"] == field


def test_pools_are_the_operators(world: World) -> None:
    with pytest.raises(Conflict):
        commands.create_pool(actor=SYSTEM, name="default")
    with pytest.raises(Conflict):
        commands.create_flavor(actor=SYSTEM, pool=world.pool, name="cpu")
    for persona in ("provider", "admin", "member", "auditor", "stranger", "nobody", "anonymous"):
        with pytest.raises(Forbidden):
            commands.create_pool(actor=world.actor(persona), name="mine")


@pytest.mark.parametrize(
    ("labels", "taints", "field"),
    [
        ({"a b": "c"}, None, "labels"),
        ({"a": "c d"}, None, "labels.a"),
        ({"a": 1}, None, "labels.a"),
        (None, [{"key": "k", "effect": "Maybe"}], "taints[0].effect"),
        (None, [{"key": "k"}, {"key": "k"}], "taints[1]"),
        (None, [{"key": "k", "colour": "red"}], "taints[0].colour"),
        (None, ["k"], "taints[0]"),
    ],
)
def test_labels_and_taints_are_checked(world: World, labels: Any, taints: Any, field: str) -> None:
    node = world.node()
    with pytest.raises(Invalid) as refusal:
        commands.set_labels(actor=SYSTEM, node_id=node.pk, labels=labels, taints=taints)
    assert refusal.value.errors[0]["field"] == field


def test_terms_are_checked(world: World) -> None:
    for wrong in (
        {"share_percent": 0},
        {"share_percent": 101},
        {"trust": -1},
        {"price_per_cpu_hour": -1},
        {"notice_seconds": -1},
        {"starts_at": NOW, "ends_at": NOW},
    ):
        with pytest.raises(Invalid):
            commands.create_contribution(actor=SYSTEM, cluster=world.cluster, **wrong)
    with pytest.raises(Forbidden):
        commands.create_contribution(actor=world.actor("admin"), cluster=world.cluster)
