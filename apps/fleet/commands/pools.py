"""Pools and their flavors: what tenants see and quotas refer to."""

from enum import StrEnum
from typing import Any

from django.db import IntegrityError, transaction

from apps.core.actors import Actor
from apps.core.errors import Conflict, Invalid
from apps.events.record import Fact, record
from apps.tenants.commands import checked_slug
from engine.backfill import Mode
from engine.order import Reach

from .. import policies
from ..models import Flavor, Pool
from ..validators import checked_query, checked_whole

MAX_DESCRIPTION = 300


def _changed(actor: Actor, verb: str, row: Pool | Flavor, **facts: Any) -> None:
    record(
        actor, Fact(verb, verb.split(".")[0], row.pk, facts={"name": row.name, **facts}, topics=("fleet",))
    )


def _position(value: Any) -> int:
    return checked_whole("position", value, 0, 10_000)


def _description(value: str) -> str:
    if len(value) > MAX_DESCRIPTION:
        raise Invalid.field("description", f"at most {MAX_DESCRIPTION} characters, not {len(value)}.")
    return value


def _one_of(field: str, value: str, words: type[StrEnum]) -> str:
    known = [word.value for word in words]
    if value not in known:
        raise Invalid.field(field, f"one of: {', '.join(known)}.", "invalid_choice")
    return value


def _rules(pool: Pool) -> dict[str, Any]:
    return {"query": pool.query, "backfill": pool.backfill, "priority_reach": pool.priority_reach}


@transaction.atomic
def create_pool(
    *,
    actor: Actor,
    name: str,
    query: dict[str, Any] | None = None,
    description: str = "",
    backfill: str = Mode.EASY.value,
    priority_reach: str = Reach.WITHIN.value,
) -> Pool:
    """Make a pool out of a query over lent nodes. Raises Conflict when the name is taken."""
    policies.pools.require(actor, "create", name)
    values = {
        "query": checked_query("query", query or {}),
        "description": _description(description),
        "backfill": _one_of("backfill", backfill, Mode),
        "priority_reach": _one_of("priority_reach", priority_reach, Reach),
    }
    try:
        with transaction.atomic():
            pool = Pool.objects.create(name=checked_slug("name", name), **values)
    except IntegrityError:
        raise Conflict(f"There is a pool {name} already.", code="exists") from None
    _changed(actor, "pool.created", pool, **_rules(pool))
    return pool


@transaction.atomic
def update_pool(
    *,
    actor: Actor,
    pool_id: int,
    query: dict[str, Any] | None = None,
    description: str | None = None,
    backfill: str | None = None,
    priority_reach: str | None = None,
) -> Pool:
    """Change a pool's query, description, backfill or how far priority reaches in it; what runs goes on."""
    pool = policies.pools.get(actor, "update", lock=True, pk=pool_id)
    if query is not None:
        pool.query = checked_query("query", query)
    if description is not None:
        pool.description = _description(description)
    if backfill is not None:
        pool.backfill = _one_of("backfill", backfill, Mode)
    if priority_reach is not None:
        pool.priority_reach = _one_of("priority_reach", priority_reach, Reach)
    pool.save(update_fields=["query", "description", "backfill", "priority_reach"])
    _changed(actor, "pool.changed", pool, **_rules(pool))
    return pool


@transaction.atomic
def delete_pool(*, actor: Actor, pool_id: int) -> None:
    """Delete a pool with its flavors; jobs that ask for it wait with the reason `no_pool`."""
    pool = policies.pools.get(actor, "delete", lock=True, pk=pool_id)
    _changed(actor, "pool.deleted", pool)
    pool.delete()


@transaction.atomic
def create_flavor(
    *, actor: Actor, pool: Pool, name: str, match: dict[str, Any] | None = None, position: int = 0
) -> Flavor:
    """Make a flavor in a pool. Raises Conflict when the name is taken."""
    policies.flavors.require(actor, "create", name)
    values = {"match": checked_query("match", match or {}, flavor=True), "position": _position(position)}
    try:
        with transaction.atomic():
            flavor = Flavor.objects.create(pool=pool, name=checked_slug("name", name), **values)
    except IntegrityError:
        raise Conflict(f"There is a flavor {name} already.", code="exists") from None
    _changed(actor, "flavor.created", flavor, pool=pool.name, match=flavor.match)
    return flavor


@transaction.atomic
def update_flavor(
    *, actor: Actor, flavor_id: int, match: dict[str, Any] | None = None, position: int | None = None
) -> Flavor:
    """Change what a flavor takes and when it is asked; what runs keeps the flavor it was charged to."""
    flavor = policies.flavors.get(actor, "update", lock=True, pk=flavor_id)
    if match is not None:
        flavor.match = checked_query("match", match, flavor=True)
    if position is not None:
        flavor.position = _position(position)
    flavor.save(update_fields=["match", "position"])
    _changed(actor, "flavor.changed", flavor, match=flavor.match)
    return flavor


@transaction.atomic
def delete_flavor(*, actor: Actor, flavor_id: int) -> None:
    """Delete a flavor; grants already made under it are released as they were charged."""
    flavor = policies.flavors.get(actor, "delete", lock=True, pk=flavor_id)
    _changed(actor, "flavor.deleted", flavor)
    flavor.delete()
