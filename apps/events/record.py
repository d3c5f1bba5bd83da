"""Writing events and guarded transitions: the only two ways in which a command leaves a trace."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from django.db import models
from django.utils import timezone

from apps.core.actors import Actor
from apps.core.errors import StaleState

from .live import publish
from .models import Event


@dataclass(frozen=True, slots=True)
class Fact:
    """What is to be recorded about one subject; `topics` are the live views that show it."""

    verb: str
    subject_type: str
    subject_id: int
    tenant_id: int | None = None
    domain_id: int | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""
    topics: tuple[str, ...] = ()


def record(actor: Actor, *facts: Fact, on_behalf_of: str = "") -> None:
    """Append the facts to the log in the present transaction and publish their topics when it commits."""
    record_all(actor, facts, on_behalf_of=on_behalf_of)


def record_all(actor: Actor, facts: Iterable[Fact], *, on_behalf_of: str = "") -> None:
    """The same for many, in one insert."""
    now = timezone.now()
    rows = []
    topics: set[str] = {"events"}
    for fact in facts:
        rows.append(
            Event(
                at=now,
                tenant_id=fact.tenant_id,
                domain_id=fact.domain_id,
                actor=actor.label,
                on_behalf_of=on_behalf_of,
                subject_type=fact.subject_type,
                subject_id=fact.subject_id,
                verb=fact.verb,
                facts=dict(fact.facts),
                reason=fact.reason,
            )
        )
        topics.add(f"{fact.subject_type}:{fact.subject_id}")
        if fact.tenant_id is not None:
            topics.add(f"tenant:{fact.tenant_id}")
        topics.update(fact.topics)
    if rows:
        Event.objects.bulk_create(rows, batch_size=1000)
        publish(topics)


def move(
    rows: models.QuerySet[Any], machine: Mapping[tuple[str, str], str], to: str, **values: Any
) -> list[int]:
    """One guarded UPDATE of the `state` of `rows` to `to`; returns the ids that really moved.

    `machine` maps (source, target) → verb; only rows in a source with an edge to `to` move. The caller records
    the verb of each moved row (`verb_of`).
    """
    sources = [source for source, target in machine if target == to]
    if not sources:
        raise StaleState(f"No state leads to {to}.")
    query = rows.filter(state__in=sources)
    ids = list(query.select_for_update(of=("self",)).values_list("pk", flat=True))
    if ids:
        rows.model._default_manager.filter(pk__in=ids).update(state=to, **values)
    return ids


def transition(
    actor: Actor,
    obj: Any,
    machine: Mapping[tuple[str, str], str],
    to: str,
    fact: Fact,
    **values: Any,
) -> None:
    """Move one object and record the edge's verb (`fact.verb` is replaced by it).

    Raises StaleState when the row is, at commit, in a state without an edge to `to`.
    """
    sources = {source: verb for (source, target), verb in machine.items() if target == to}
    source = obj.state
    updated = 0
    if source in sources:
        updated = type(obj)._default_manager.filter(pk=obj.pk, state=source).update(state=to, **values)
    if not updated:
        allowed = ", ".join(sorted(sources)) or "no state"
        raise StaleState(f"{fact.subject_type} {obj.pk} is {source}; it can become {to} only from {allowed}.")
    obj.state = to
    for name, value in values.items():
        setattr(obj, name, value)
    record(
        actor,
        Fact(
            verb=sources[source],
            subject_type=fact.subject_type,
            subject_id=fact.subject_id,
            tenant_id=fact.tenant_id,
            domain_id=fact.domain_id,
            facts=fact.facts,
            reason=fact.reason,
            topics=fact.topics,
        ),
    )
