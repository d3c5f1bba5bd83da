"""A machine becomes a node with a one-time token."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from apps.core.actors import SYSTEM
from apps.core.errors import Conflict, Forbidden, Invalid, Unauthenticated
from apps.events.models import Event
from apps.fleet import commands, queries
from apps.fleet.models import Gpu, JoinToken, Node, NodeCredential
from tests.personas import GIB, World, make_inventory

CARD = {"index": 0, "model": "A100", "memory_bytes": 40 * GIB, "uuid": "GPU-1"}


def token_of(world: World, **options: Any) -> str:
    return commands.create_join_token(actor=SYSTEM, cluster=world.cluster, **options)[1]


def test_a_token_makes_one_node_with_its_capacity(world: World) -> None:
    token = token_of(world)
    node, credential = commands.join_node(token=token, name="n1", inventory=make_inventory(gpus=[CARD]))
    assert token.startswith("rmj_") and credential.startswith("rma_")
    assert (node.cpu_millicores, node.memory_bytes, node.storage_bytes) == (8000, 32 * GIB, 200 * GIB)
    assert list(node.gpus.values_list("index", "model")) == [(0, "A100")]
    found = queries.node_of_credential(credential)
    assert found is not None and found.pk == node.pk
    row = JoinToken.objects.get()
    assert row.node_id == node.pk and row.used_at is not None
    event = Event.objects.get(verb="node.joined")
    assert (
        event.actor == "agent:n1" and event.on_behalf_of == "system" and event.facts["cpu_millicores"] == 8000
    )
    assert token not in str(event.facts) and not JoinToken.objects.filter(digest=token).exists()


@pytest.mark.parametrize("kind", ["unknown", "used", "expired"])
def test_other_tokens_are_refused(world: World, kind: str) -> None:
    token = token_of(world)
    if kind == "unknown":
        token += "x"
    elif kind == "used":
        commands.join_node(token=token, name="first", inventory=make_inventory())
    else:
        JoinToken.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    with pytest.raises(Unauthenticated) as refusal:
        commands.join_node(token=token, name="n1", inventory=make_inventory())
    assert refusal.value.code == "join_token_invalid"
    assert not Node.objects.filter(name="n1").exists()


def test_a_silent_node_joins_again_as_itself(world: World) -> None:
    node, old = world.join("n1", gpus=[CARD])
    Gpu.objects.update(allocated_milli=500)
    Node.objects.update(last_seen_at=timezone.now() - timedelta(seconds=30))
    again, new = commands.join_node(
        token=token_of(world), name="n1", inventory=make_inventory(cpu_millicores=4000, gpus=[CARD])
    )
    assert again.pk == node.pk and again.cpu_millicores == 4000
    assert Gpu.objects.get().allocated_milli == 500
    assert queries.node_of_credential(old) is None and queries.node_of_credential(new) is not None


def test_a_connected_node_keeps_its_name_and_the_token_stays_usable(world: World) -> None:
    world.node("n1")
    token = token_of(world)
    with pytest.raises(Conflict) as refusal:
        commands.join_node(token=token, name="n1", inventory=make_inventory())
    assert refusal.value.code == "node_connected"
    node, _ = commands.join_node(token=token, name="n2", inventory=make_inventory())
    assert node.name == "n2"


def test_a_removed_node_makes_room_for_another_of_its_name(world: World) -> None:
    node, credential = world.join("n1")
    commands.remove_node(actor=SYSTEM, node_id=node.pk)
    assert queries.node_of_credential(credential) is None
    assert world.node("n1").pk != node.pk


@pytest.mark.parametrize(
    ("inventory", "field"),
    [
        ({"cpu_millicores": -1}, "inventory.cpu_millicores"),
        ({"memory_bytes": 2**60}, "inventory.memory_bytes"),
        ({"cpu_millicores": "many"}, "inventory"),
        ({"gpus": [CARD, CARD]}, "inventory.gpus"),
        ({"gpus": [{**CARD, "index": -1}]}, "inventory.gpus[0]"),
        ({"hostname": "a\x00b"}, "inventory.hostname"),
    ],
)
def test_a_nonsensical_inventory_is_refused_by_field(
    world: World, inventory: dict[str, Any], field: str
) -> None:
    with pytest.raises(Invalid) as refusal:
        commands.join_node(token=token_of(world), name="n1", inventory=make_inventory(**inventory))
    assert refusal.value.errors[0]["field"] == field
    assert not Node.objects.exists() and not JoinToken.objects.filter(used_at__isnull=False).exists()


@pytest.mark.parametrize("name", ["", "a b", "-a", "a" * 201, "a\n", "ä"])
def test_a_bad_name_is_refused(world: World, name: str) -> None:
    with pytest.raises(Invalid):
        commands.join_node(token=token_of(world), name=name, inventory=make_inventory())


def test_only_who_governs_the_cluster_makes_tokens(world: World) -> None:
    for persona in ("operator", "provider"):
        commands.create_join_token(actor=world.actor(persona), cluster=world.cluster)
    for persona in ("admin", "member", "auditor", "stranger", "nobody", "anonymous"):
        with pytest.raises(Forbidden):
            commands.create_join_token(actor=world.actor(persona), cluster=world.cluster)


def test_new_inventory_is_an_event_only_when_capacity_changed(world: World) -> None:
    from apps.core.actors import Actor

    node = world.node("n1", gpus=[CARD, {**CARD, "index": 1}])
    agent = Actor(label="agent:n1", node_id=node.pk)

    def report(**inventory: Any) -> int:
        commands.update_inventory(
            actor=agent,
            node_id=node.pk,
            connection=0,
            inventory=make_inventory(**inventory),
            version="1",
        )
        return Event.objects.filter(verb="node.inventory_changed").count()

    assert report(gpus=[CARD, {**CARD, "index": 1}]) == 0
    assert report(gpus=[CARD]) == 1
    assert node.gpus.count() == 1
    Gpu.objects.update(allocated_milli=1000)
    # The card has gone, but a task still holds it: its row stays until the grant is released.
    assert report(gpus=[]) == 1
    assert node.gpus.count() == 1
    Gpu.objects.update(allocated_milli=0)
    assert report(gpus=[]) == 2
    assert node.gpus.count() == 0


def test_an_agent_reports_about_its_own_node_only(world: World) -> None:
    from apps.core.actors import Actor
    from apps.core.errors import NotFound

    node, other = world.node("n1"), world.node("n2")
    with pytest.raises(NotFound):
        commands.update_inventory(
            actor=Actor(label="agent:n2", node_id=other.pk),
            node_id=node.pk,
            connection=0,
            inventory=make_inventory(),
            version="",
        )


def test_rotation_and_revocation_end_the_old_credentials(world: World) -> None:
    node, first = world.join("n1")
    _, second = commands.rotate_credentials(actor=world.actor("provider"), node_id=node.pk)
    assert queries.node_of_credential(first) is None
    assert queries.node_of_credential(second) is not None
    commands.revoke_credentials(actor=world.actor("provider"), node_id=node.pk)
    assert queries.node_of_credential(second) is None
    assert NodeCredential.objects.filter(revoked_at__isnull=True).count() == 0
    assert queries.node_of_credential("") is None
