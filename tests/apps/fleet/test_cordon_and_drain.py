"""Operators and providers take nodes out of service and bring them back."""

import itertools

import pytest

from apps.core.actors import SYSTEM, Actor
from apps.core.errors import Conflict, DomainError, Forbidden, NotFound
from apps.events.models import Event
from apps.fleet import commands
from apps.fleet.models import Node
from apps.fleet.states import NODE_EDGES, NodeState
from tests.personas import World

VERBS = {
    "cordon": commands.cordon_node,
    "uncordon": commands.uncordon_node,
    "drain": commands.drain_node,
    "remove": commands.remove_node,
}


def put(node: Node, state: str, intended: str = "ready") -> None:
    """Set the stage; production code never does this."""
    Node.objects.filter(pk=node.pk).update(**{"state": state, "intended_state": intended})


@pytest.mark.parametrize(("verb", "state"), list(itertools.product(VERBS, NodeState.values)))
def test_every_verb_in_every_state_follows_the_table(world: World, verb: str, state: str) -> None:
    node = world.node()
    put(node, state)
    before = Event.objects.count()
    try:
        VERBS[verb](actor=SYSTEM, node_id=node.pk, reason="because")
    except DomainError:
        node.refresh_from_db()
        assert (node.state, Event.objects.count()) == (state, before)
        return
    node.refresh_from_db()
    written = list(Event.objects.order_by("id")[before:])
    if node.state == state:
        # Nothing moved: already there, or a lost node whose return was decided.
        assert len(written) <= 1 and (not written or state == "lost")
    else:
        assert [event.verb for event in written] == [NODE_EDGES[state, node.state]]
        assert written[0].reason == "because"


def test_cordoning_twice_changes_nothing(world: World) -> None:
    node = world.node()
    commands.cordon_node(actor=SYSTEM, node_id=node.pk)
    commands.cordon_node(actor=SYSTEM, node_id=node.pk)
    assert Event.objects.filter(verb="node.cordoned").count() == 1


def test_a_lost_node_returns_to_where_its_operator_wants_it(world: World) -> None:
    node = world.node()
    assert commands.mark_lost(actor=SYSTEM, node_ids=[node.pk], reason="silent") == [node.pk]
    assert commands.mark_lost(actor=SYSTEM, node_ids=[node.pk], reason="silent") == []
    commands.cordon_node(actor=world.actor("provider"), node_id=node.pk)
    node.refresh_from_db()
    assert node.state == NodeState.LOST
    agent = Actor(label="agent:node-1", node_id=node.pk)
    commands.mark_returned(actor=agent, node_id=node.pk)
    commands.mark_returned(actor=agent, node_id=node.pk)
    node.refresh_from_db()
    assert node.state == NodeState.CORDONED
    assert Event.objects.filter(verb="node.returned").count() == 1


def test_an_empty_draining_node_ends_cordoned(world: World) -> None:
    node = world.node()
    commands.drain_node(actor=SYSTEM, node_id=node.pk)
    with pytest.raises(Conflict):
        commands.cordon_node(actor=SYSTEM, node_id=node.pk)
    commands.finish_drain(actor=SYSTEM, node_id=node.pk)
    node.refresh_from_db()
    assert (node.state, node.intended_state) == (NodeState.CORDONED, NodeState.CORDONED)
    commands.uncordon_node(actor=SYSTEM, node_id=node.pk)
    commands.finish_drain(actor=SYSTEM, node_id=node.pk)
    node.refresh_from_db()
    assert node.state == NodeState.READY


def test_who_may(world: World) -> None:
    node = world.node()
    for persona in ("operator", "provider"):
        for verb in ("cordon", "uncordon"):
            VERBS[verb](actor=world.actor(persona), node_id=node.pk)
    for persona, refusal in {
        "admin": Forbidden,
        "member": Forbidden,
        "auditor": Forbidden,
        "stranger": Forbidden,  # The cluster is lent to everybody, so its nodes are no secret.
        "nobody": NotFound,
        "anonymous": NotFound,
    }.items():
        for command in VERBS.values():
            with pytest.raises(refusal):
                command(actor=world.actor(persona), node_id=node.pk)


def test_nodes_lent_to_one_domain_are_hidden_from_others(world: World) -> None:
    node = world.node()
    (terms,) = world.cluster.contributions.all()
    commands.update_contribution(actor=SYSTEM, contribution_id=terms.pk, consumers=[world.alpha])
    with pytest.raises(NotFound):
        commands.cordon_node(actor=world.actor("stranger"), node_id=node.pk)
    with pytest.raises(Forbidden):
        commands.cordon_node(actor=world.actor("member"), node_id=node.pk)
