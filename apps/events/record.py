"""Writing events and guarded transitions: the only two ways in which a command leaves a trace."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from django.db import models
from django.utils import timezone

from apps.core import loops
from apps.core.actors import Actor
from apps.core.bulk import append, update_rows
from apps.core.errors import StaleState
from apps.core.pipeline import when_answered

from .live import publish
from .models import Event
from .stamp import move_stamp, moves_stamp
from .wakes import woken_by


@dataclass(frozen=True, slots=True)
class Fact:
    """What is to be recorded about one subject; `topics` are the live views that show it. Without `wakes` it wakes no
    loop: somebody else has been told who does what there is to do."""

    verb: str
    subject_type: str
    subject_id: int
    tenant_id: int | None = None
    domain_id: int | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""
    topics: tuple[str, ...] = ()
    wakes: bool = True


def record(actor: Actor, *facts: Fact, on_behalf_of: str = "") -> None:
    """Append the facts to the log in the present transaction; when it commits, publish their topics and wake the loops
    that have work by them."""
    record_all(actor, facts, on_behalf_of=on_behalf_of)


def record_all(actor: Actor, facts: Iterable[Fact], *, on_behalf_of: str = "") -> None:
    """The same for many, in one insert."""
    now = timezone.now()
    rows = []
    topics: set[str] = {"events"}
    waking: set[str] = set()
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
        if fact.wakes:
            waking.add(fact.verb)
        topics.add(f"{fact.subject_type}:{fact.subject_id}")
        if fact.tenant_id is not None:
            topics.add(f"tenant:{fact.tenant_id}")
        topics.update(fact.topics)
    if rows:
        append(rows)
        if moves_stamp({row.verb for row in rows}):
            move_stamp()
        for name in sorted(woken_by(waking)):
            loops.wake(name)
        publish(topics)


@dataclass(frozen=True, slots=True)
class Move:
    """One row's step from the state it was read in to the next, with the columns that go along."""

    pk: int
    source: str
    target: str
    values: tuple[Any, ...] = ()


def move_many(
    model: type[models.Model],
    machine: Mapping[tuple[str, str], str],
    moves: Sequence[Move],
    columns: Sequence[str] = (),
) -> None:
    """Move many rows in one guarded UPDATE; all of them or StaleState. `columns` names what `values` sets.

    The caller has locked the rows, read their states, and records the verbs (`machine[source, target]`). In a pipeline
    that some have moved is known at its end.
    """
    for step in moves:
        if (step.source, step.target) not in machine:
            raise StaleState(f"{model.__name__} {step.pk} is {step.source} and cannot become {step.target}.")
    rows = [(step.pk, step.target, *step.values, step.source) for step in moves]
    moved = update_rows(model, ("state", *columns), rows, guard="state")

    def all_moved() -> None:
        if len(moved) != len(moves):
            gone = sorted({step.pk for step in moves} - {key for (key,) in moved})
            raise StaleState(f"{model.__name__} {gone} moved meanwhile; nothing was changed.")

    when_answered(all_moved)


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
    record(actor, replace(fact, verb=sources[source]))
