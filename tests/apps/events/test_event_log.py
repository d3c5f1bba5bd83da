"""The log is complete, limited to what one may see, and can be followed without losing a row."""

from typing import Any

import pytest

from apps.core.actors import SYSTEM
from apps.core.errors import StaleState
from apps.events import queries, topics
from apps.events.models import Event
from apps.events.record import Fact, record, transition
from apps.fleet import commands as fleet
from apps.fleet.states import NODE_EDGES
from apps.tenants.actors import actor_for
from apps.tenants.models import Role
from tests.personas import PERSONAS, World, make_user


def fact(number: int, **where: Any) -> Fact:
    return Fact("thing.happened", "thing", number, **where)


def test_one_sees_what_happened_in_ones_tenants_and_domains(world: World) -> None:
    record(
        SYSTEM,
        fact(1),
        fact(2, tenant_id=world.vision.pk),
        fact(3, tenant_id=world.speech.pk),
        fact(4, domain_id=world.alpha.pk),
        fact(5, domain_id=world.alpha.pk, tenant_id=world.speech.pk),
    )
    seen = {
        persona: set(
            queries.list_events(world.actor(persona)).filter(subject_type="thing").values_list("subject_id", flat=True)
        )
        for persona in PERSONAS
    }
    assert seen == {
        "operator": {1, 2, 3, 4, 5},
        "provider": {4},
        "admin": {2},
        "member": {2},
        "auditor": {2},
        "stranger": {3, 5},
        "nobody": set(),
        "anonymous": set(),
    }


def test_a_refused_transition_leaves_no_event(world: World) -> None:
    node = world.node()
    node.state = "lost"  # What this process read before somebody else moved the row.
    before = Event.objects.count()
    with pytest.raises(StaleState):
        transition(SYSTEM, node, NODE_EDGES, "ready", fact(1))
    assert Event.objects.count() == before


def test_every_topic_asks_every_persona(world: World) -> None:
    node = world.node()
    theirs = fleet.create_cluster(actor=SYSTEM, domain=world.beta, name="beta-agents")
    expected = {
        f"tenant:{world.vision.pk}": {"operator", "admin", "member", "auditor"},
        f"node:{node.pk}": {"operator", "provider", "admin", "member", "auditor", "stranger"},
        f"telemetry:{world.cluster.pk}": {"operator", "provider"},
        f"telemetry:{theirs.pk}": {"operator"},
        "telemetry": set(),
        "fleet": set(PERSONAS) - {"anonymous"},
        "events": set(PERSONAS) - {"anonymous"},
        "quota": set(PERSONAS) - {"anonymous"},
    }
    for topic, who in expected.items():
        assert {persona for persona in PERSONAS if topics.may_watch(world.actor(persona), topic)} == who, topic
    auditor = actor_for(make_user("greta", Role.AUDITOR))
    for cluster in (world.cluster, theirs):
        assert topics.may_watch(auditor, f"telemetry:{cluster.pk}")
    for kind in topics.kinds():
        for number in ("", ":", ":x", ":-1", ":999999999999999999", ":9999999999999999999", ":１"):
            assert not topics.may_watch(world.actor("anonymous"), kind + number), kind + number
            topics.may_watch(world.actor("operator"), kind + number)
    assert not topics.may_watch(world.actor("operator"), "unknown")
    assert not topics.may_watch(world.actor("operator"), "unknown:1")


def test_readers_without_the_scope_watch_nothing(world: World) -> None:
    from dataclasses import replace

    actor = replace(world.actor("operator"), scopes=frozenset())
    assert not any(topics.may_watch(actor, kind) for kind in topics.kinds())
    assert not queries.list_events(actor).exists()
