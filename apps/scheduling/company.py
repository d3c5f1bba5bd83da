"""Observe: where the jobs are that others want near or away."""

from collections.abc import Collection, Sequence

from django.db import connection

from apps.jobs.configuration import Configuration
from apps.jobs.requests import cache, of_tenant
from engine.company import Bonds, Company
from engine.fleet import Fleet
from engine.snapshot import Candidate

from .known import know

# Members that have ended count as well, like the room that is given back with the whole attempt's.
MEMBERS = (
    "SELECT j.id, j.tenant_id, j.equivalence, array_agg(p.node_id) "
    "FROM jobs_job j JOIN jobs_attempt a ON a.job_id = j.id AND a.state IN ('granted', 'running') "
    "JOIN jobs_placement p ON p.attempt_id = a.id "
    "WHERE j.bonded AND j.tenant_id = ANY(%s) AND j.state IN ('granted', 'running', 'cancelling') GROUP BY j.id"
)


def keep_company(fleet: Fleet, candidates: Sequence[Candidate]) -> dict[int, Bonds]:
    """Let a fleet know who is where of the tenants whose waiting jobs have bonds; returns the bonds of those that run.

    Where no waiting job has any, nothing is read.
    """
    tenants = {bonds.tenant for item in candidates if (bonds := item.groups[0][0].bonds) is not None}
    if not tenants:
        return {}
    fleet.company, found = company(fleet, tenants)
    return found


def company(fleet: Fleet, tenants: Collection[int]) -> tuple[Company, dict[int, Bonds]]:
    """The company of these tenants' jobs on a fleet, and the bonds of those that run, by job."""
    with connection.cursor() as cursor:
        cursor.execute(MEMBERS, [list(tenants)])
        rows = cursor.fetchall()
    know({equivalence for _, _, equivalence, _ in rows})
    index = {int(node_id): row for row, node_id in enumerate(fleet.ids)}
    found, bonds = Company(fleet.domains), {}
    for job, tenant, equivalence, nodes in rows:
        mine = of_tenant(cache()[equivalence][0], tenant)[0][0].bonds
        if mine is not None:
            bonds[job] = mine
            for node in nodes:
                if node in index:
                    found.count(mine, index[node])
    return found, bonds


class Suitable:
    """Looks at grants again, in the transaction that writes them and so one after the other: is everybody still there
    whom a job wants near, and nobody whom it must not meet?"""

    def __init__(self, configured: Configuration, candidates: Sequence[Candidate]) -> None:
        self._company: Company | None = None
        tenants = {bonds.tenant for item in candidates if (bonds := item.groups[0][0].bonds) is not None}
        if tenants:
            self._company, _ = company(configured.fleet, tenants)
            self._index = {int(node_id): row for row, node_id in enumerate(configured.fleet.ids)}

    def allows(self, candidate: Candidate, node_ids: Sequence[int]) -> bool:
        """Whether the members may be on these nodes."""
        bonds = candidate.groups[0][0].bonds
        if self._company is None or bonds is None:
            return True
        allowed = self._company.allowed(bonds)
        return allowed is None or all(pk in self._index and allowed[self._index[pk]] for pk in node_ids)

    def add(self, candidate: Candidate, node_ids: Sequence[int]) -> None:
        """Those that come after find the members there."""
        bonds = candidate.groups[0][0].bonds
        for pk in node_ids if self._company is not None and bonds is not None else ():
            if pk in self._index:
                self._company.count(bonds, self._index[pk])


def may_follow(candidates: Sequence[Candidate], granted: Collection[int]) -> bool:
    """Whether somebody who waits wants one of those near who were granted; they were no company before it was too
    late in the cycle."""
    both: tuple[list[Bonds], list[Bonds]] = ([], [])
    for item in candidates:
        if (bonds := item.groups[0][0].bonds) is not None:
            both[item.job in granted].append(bonds)
    return any(
        one.means(other.labels) and waits.tenant == other.tenant
        for waits in set(both[False])
        for one in waits.near_needs
        for other in set(both[True])
    )
