"""The changes of a what-if request, checked, and told in the simulator's words."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from apps.core.actors import Actor
from apps.core.errors import FieldError, Invalid
from apps.fleet.policies import clusters as cluster_policy
from apps.fleet.policies import nodes as node_policy
from apps.jobs.admission import default_pool, too_urgent
from apps.jobs.commands.submission import equivalence
from apps.jobs.policies import jobs as job_policy
from apps.jobs.requests import amounts_of, groups_of, minimums_of
from apps.quotas.policies import budgets as budget_policy
from apps.quotas.policies import quotas as quota_policy
from apps.tenants.queries import tenant_named
from engine import simulate
from engine.budgets import UNLIMITED
from engine.fleet import Fleet, NodeRow
from engine.fragmentation import Mix
from engine.placement import expect
from engine.quota import Limit, Node
from engine.snapshot import Candidate
from rmctl.spec import SpecError, parse_job

from .observe import charged
from .policies import simulations
from .runtimes import keys_of, run_times
from .world import RUN_TIMES, World

JOBS_MAX = 2_000
NODES_MAX = 2_000
CHANGES_MAX = 500
# Numbers of jobs that are only made up, beyond all real ones.
ADDED = 1 << 60


def refuse_above(field: str, count: int, most: int, what: str) -> None:
    """Raise Invalid for a simulation that is too large, naming the limit."""
    if count > most:
        raise Invalid.field(field, f"{count} {what}; at most {most} can be simulated.", "simulation_too_large")


class Asked:
    """The changes of a request as the simulator's, each allowed to the actor."""

    def __init__(self, actor: Actor, world: World, request: Mapping[str, Any]) -> None:
        self.actor, self.world = actor, world
        self.fleet: Fleet = world.fleet
        self.like: dict[int, int] = {}
        self.jobs: list[simulate.Job] = []
        self.changes: list[simulate.Change] = []
        self.labels: dict[int, str] = {}
        nodes = [*request["add_nodes"], *request["remove_nodes"], *request["cordon_nodes"]]
        lost = request["lose_clusters"]
        single = [*request["jobs"], *request["cancel"], *request["quotas"], *request["budgets"]]
        self.any = bool(nodes or lost or single or request.get("policy"))
        if nodes or lost or request.get("policy"):
            simulations.require(actor, "simulate", "of the fleet or the policy")
        refuse_above("changes", len(nodes) + len(lost) + len(single), CHANGES_MAX, "changes in one request")
        self._add_nodes(request["add_nodes"])
        self._take_nodes(request)
        self._change_quotas(request["quotas"])
        self._change_budgets(request["budgets"])
        self._cancel(request["cancel"])
        self._add_jobs(request["jobs"], request["run_times"])

    def _at(self, item: Mapping[str, Any]) -> float:
        return self.world.now + float(item["at_seconds"])

    # Nodes

    def _row(self, name: str, field: str) -> int:
        found = [row for row, known in enumerate(self.world.fleet.names) if known == name]
        visible = set(node_policy.visible(self.actor).filter(name=name).values_list("pk", flat=True))
        found = [row for row in found if int(self.world.fleet.ids[row]) in visible]
        if len(found) != 1:
            message = f"there is no live node {name} that you can see." if not found else f"several nodes are {name}."
            raise Invalid.field(field, message, "unknown_node")
        return found[0]

    def _add_nodes(self, items: Iterable[Mapping[str, Any]]) -> None:
        rows = list(self.world.rows)
        count = sum(item["count"] for item in items)
        refuse_above("add_nodes", len(rows) + count, NODES_MAX, "nodes with those that are added")
        for place, item in enumerate(items):
            model = self._row(item["like"], f"add_nodes[{place}].like")
            first = len(rows)
            for number in range(item["count"]):
                twin = replace(rows[model], id=-len(rows), name=f"{item['like']}+{number + 1}", ready=False)
                self.like[len(rows)] = model
                rows.append(twin)
            added = frozenset(range(first, len(rows)))
            self.changes.append(simulate.Change(self._at(item), ready=added))
        if count:
            self.fleet = extended(self.world, rows)

    def _take_nodes(self, request: Mapping[str, Any]) -> None:
        for name, kind in (("remove_nodes", "lost"), ("cordon_nodes", "closed")):
            for place, item in enumerate(request[name]):
                row = self._row(item["node"], f"{name}[{place}].node")
                self.changes.append(simulate.Change(self._at(item), **{kind: frozenset({row})}))
        for place, item in enumerate(request["lose_clusters"]):
            cluster = cluster_policy.visible(self.actor).filter(name=item["cluster"]).first()
            if cluster is None:
                message = f"there is no cluster {item['cluster']} that you can see."
                raise Invalid.field(f"lose_clusters[{place}].cluster", message, "unknown_cluster")
            ids = set(cluster.nodes.values_list("pk", flat=True))
            gone = frozenset(row for row, pk in enumerate(self.world.fleet.ids) if int(pk) in ids)
            self.changes.append(simulate.Change(self._at(item), lost=gone))

    # Quotas

    def _change_quotas(self, items: Sequence[Mapping[str, Any]]) -> None:
        nodes = dict(self.world.tree.nodes)
        by_name = {node.name: node.id for node in nodes.values()}
        visible = set(quota_policy.visible(self.actor).values_list("name", flat=True))
        for place, item in sorted(enumerate(items), key=lambda pair: pair[1]["at_seconds"]):
            field = f"quotas[{place}]"
            if item["quota"] not in by_name or item["quota"] not in visible:
                raise Invalid.field(f"{field}.quota", f"there is no quota {item['quota']} that you can see.", "unknown")
            number = by_name[item["quota"]]
            tenant = next(
                (pk for pk, row in self.world.configuration.tenants.items() if row.quota_node == number), None
            )
            simulations.require(self.actor, "simulate_quota", tenant)
            nodes[number] = _with_limit(nodes[number], item, field)
            self.changes.append(simulate.Change(self._at(item), quotas=list(nodes.values())))

    # Budgets

    def _change_budgets(self, items: Iterable[Mapping[str, Any]]) -> None:
        limits = {limit.key: limit for limit in self.world.limits}
        rows = {row.pk: row for row in budget_policy.visible(self.actor).filter(pk__in=[i["budget"] for i in items])}
        for place, item in enumerate(items):
            row, limit = rows.get(item["budget"]), limits.get(item["budget"])
            if row is None or limit is None:
                message = f"there is no budget {item['budget']} that holds jobs back and that you can see."
                raise Invalid.field(f"budgets[{place}].budget", message, "unknown_budget")
            simulations.require(self.actor, "simulate_budget", row)
            amount = UNLIMITED if item["amount"] is None else item["amount"]
            self.changes.append(simulate.Change(self._at(item), limits=[replace(limit, amount=amount)]))

    # Jobs

    def _cancel(self, items: Sequence[Mapping[str, Any]]) -> None:
        known = self.world.names.keys()
        asked = [item["job"] for item in items]
        visible = set(job_policy.visible(self.actor).filter(pk__in=asked).values_list("pk", flat=True))
        for place, item in enumerate(items):
            number = item["job"]
            if number not in visible or number not in known:
                message = f"there is no job {number} that runs or waits and that you can see."
                raise Invalid.field(f"cancel[{place}].job", message, "unknown_job")
            simulations.require(self.actor, "simulate_jobs", self.world.tenants[number])
            self.changes.append(simulate.Change(self._at(item), cancelled=frozenset({number})))

    def _add_jobs(self, items: Sequence[Mapping[str, Any]], run_times_named: str) -> None:
        count = len(self.world.jobs) + sum(item["count"] for item in items)
        refuse_above("jobs", count, JOBS_MAX, "jobs with those that are added")
        for place, item in enumerate(items):
            field = f"jobs[{place}]"
            tenant = tenant_named(self.actor, item.get("tenant"))
            simulations.require(self.actor, "simulate_jobs", tenant.pk)
            spec = _spec(item["spec"], field)
            if problems := too_urgent(self.world.configuration, tenant, spec["priority"], prefix=f"{field}.spec."):
                raise Invalid(problems[0]["message"], code=problems[0]["code"], errors=problems)
            name, limit = spec["name"], float(spec["time_limit"])
            groups = self.world.lent_to(groups_of(spec), tenant.pk, limit)
            run_times().look([(tenant.pk, name)], datetime.fromtimestamp(self.world.now, UTC))
            seconds = item.get("run_seconds")
            if seconds is None:
                part = RUN_TIMES[run_times_named]
                estimate = run_times().estimate(tenant.pk, name, limit)
                seconds = limit if part >= 1.0 else estimate.p50 if part == 0.5 else estimate.p90
            queue = self.world.queue(tenant.pk)
            for copy in range(item["count"]):
                number = ADDED + len(self.jobs)
                self.world.names[number], self.world.tenants[number] = name, tenant.pk
                self.world.owners[number] = self.actor.user_id, ""
                self.labels[number] = f"{name} (added{f' {copy + 1}' if item['count'] > 1 else ''})"
                candidate = Candidate(
                    job=number,
                    queue=queue,
                    priority=spec["priority"],
                    submitted=self._at(item),
                    groups=groups,
                    amounts=charged(self.world.tree, queue, amounts_of(groups)),
                    pool=self.world.view(tenant.pk, spec["intent"]["pool"]),
                    equivalence=self.world.alike(equivalence(spec), groups, tenant.pk, limit),
                    minimums=minimums_of(spec),
                    budgets=self.world.budgets(number, tenant.pk),
                )
                self.jobs.append(simulate.Job(candidate, float(seconds), limit, keys_of(tenant.pk, name)))


def extended(world: World, rows: Sequence[NodeRow]) -> Fleet:
    """The world's fleet with further rows behind its own."""
    fleet = Fleet.build(rows)
    known = len(world.fleet)
    fleet.cpu[:known], fleet.memory[:known] = world.fleet.cpu, world.fleet.memory
    fleet.storage[:known], fleet.tasks[:known] = world.fleet.storage, world.fleet.tasks
    width = world.fleet.gpu_free.shape[1]
    fleet.gpu_free[:known, :width] = world.fleet.gpu_free
    if fleet.terms is not None and world.fleet.terms is not None:
        # Nodes that are added are like others, so there are no other terms.
        fleet.terms = fleet.terms.at(world.now, world.fleet.terms.left.copy())
    if isinstance(world.fleet.mix, Mix):
        expect(fleet, world.fleet.mix)
    return fleet


def _spec(data: Mapping[str, Any], field: str) -> dict[str, Any]:
    try:
        spec = parse_job({key: value for key, value in data.items() if key != "tenant"}).normalised()
    except SpecError as error:
        faults = [FieldError(**{**fault, "field": f"{field}.spec.{fault['field']}"}) for fault in error.errors]
        raise Invalid(str(error), code="invalid_spec", errors=faults) from None
    spec["intent"]["pool"] = spec["intent"].get("pool") or default_pool()
    return spec


def _with_limit(node: Node, item: Mapping[str, Any], field: str) -> Node:
    fr = (item["flavor"], item["resource"])
    now = node.limits.get(fr, Limit(0))
    nominal = item.get("nominal")
    nominal = now.nominal + item.get("change", 0) if nominal is None else nominal
    if nominal < 0:
        raise Invalid.field(f"{field}.change", f"the nominal quota would be {nominal}; from 0 on.", "out_of_range")
    limit = replace(
        now,
        nominal=nominal,
        borrowing_limit=item.get("borrowing_limit", now.borrowing_limit),
        lending_limit=item.get("lending_limit", now.lending_limit),
    )
    return replace(node, limits={**node.limits, fr: limit})
