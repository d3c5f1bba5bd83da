"""How many nodes a job would find now, worked out before it is submitted."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from apps.fleet.snapshot import present_fleet
from apps.jobs.admission import default_pool, impossible, too_urgent
from apps.jobs.configuration import configuration
from apps.jobs.requests import groups_of, lent_to
from apps.tenants.models import Tenant
from engine.filters import FILTERS, static_filters
from engine.placement import candidates

from .lending import present_terms
from .observe import pool_view

_STATIC = frozenset(item.name for item in static_filters())


@dataclass(frozen=True, slots=True)
class Fit:
    """Nodes for one group: of `total` in its pool that are lent to the tenant so many match, and have `room` now.

    `hurdle` is the demand that rules out most of those that do not match, and by how many nodes; "" where all do.
    """

    group: str
    members: int
    total: int
    matching: int
    room: int
    hurdle: str
    hurdle_nodes: int


@dataclass(frozen=True, slots=True)
class Fits:
    """All groups, and why the job would be refused at submission; "" if it would not be."""

    groups: list[Fit]
    refusal: str


def fits(tenant: Tenant, spec: Mapping[str, Any], now: datetime) -> Fits:
    """Of a normalised spec, by the same filters that place it; nothing is kept. Company is not looked at."""
    body = {**spec, "intent": {**spec["intent"], "pool": spec["intent"].get("pool") or default_pool()}}
    configured = configuration(now)
    refused = too_urgent(configured, tenant, body["priority"]) or impossible(tenant, body, configured=configured)
    pool = configured.pools.get(body["intent"]["pool"])
    if pool is None:
        return Fits([], refused[0]["message"])
    fleet = present_fleet(configured.fleet, present_terms(configured, now)).fork()  # Several threads may ask.
    allowed = pool_view(fleet, pool, tenant.domain_id).nodes
    groups = groups_of(body)
    if fleet.terms is not None:
        groups = lent_to(groups, tenant.domain_id, body["time_limit"])
    found = []
    for (request, count), group in zip(groups, body["groups"], strict=True):
        funnel, fitting = candidates(fleet, request, allowed)
        static = [step for step in funnel.steps if step.filter in _STATIC]
        hurdle = max(static, key=lambda step: step.rejected, default=None)
        rejected = hurdle.rejected if hurdle is not None else 0
        words = FILTERS[hurdle.filter].words(request) if hurdle is not None and rejected else ""
        found.append(
            Fit(
                group=group["name"],
                members=count,
                total=funnel.total,
                matching=funnel.total - sum(step.rejected for step in static),
                room=int(np.count_nonzero(fitting)),
                hurdle=words,
                hurdle_nodes=rejected,
            )
        )
    return Fits(found, refused[0]["message"] if refused else "")
