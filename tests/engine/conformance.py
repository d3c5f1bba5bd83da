"""Run conformance cases against the engine: `python -m tests.engine.conformance FOLDER [--json]`.

The cases are facts about quota, sharing and ordering taken from Kueue's tests; their format is described
beside them. Each kind that the engine answers has one adapter function here, which builds engine objects from
the case and returns what the engine says in the words of the case. A kind without an adapter is reported as
unsupported, never as passed.
"""

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from math import ceil, inf
from pathlib import Path
from typing import Any

from engine.admission import Outcome, admit, cycle_key, may_admit
from engine.flavors import Level, Mode, PartAssignment, assign, reduced
from engine.history import consumption
from engine.preemption import Demand, Victim, find_victims
from engine.queues import (
    FairStrategy,
    Flavor,
    Fungibility,
    Holder,
    Part,
    Policy,
    Preference,
    QueueRules,
    ResourceGroup,
    Strategy,
    Workload,
    World,
    victim_order,
    workload_order,
)
from engine.quota import FlavorResource, Limit, Node, QuotaTree
from engine.reasons import Reason
from engine.topology import Constraint, Host, Spread, spread

Case = Mapping[str, Any]


def _limits(quotas: Iterable[Mapping[str, Any]]) -> dict[FlavorResource, Limit]:
    return {
        (quota["flavor"], quota["resource"]): Limit(
            quota["nominal"], quota.get("borrowing_limit"), quota.get("lending_limit")
        )
        for quota in quotas
    }


def _amounts(rows: Iterable[Mapping[str, Any]]) -> dict[FlavorResource, int]:
    return {(row["flavor"], row["resource"]): row["amount"] for row in rows}


def _held(workload: Mapping[str, Any]) -> dict[FlavorResource, int]:
    """What an admitted workload holds."""
    held: Counter[FlavorResource] = Counter()
    for pod_set in workload["pod_sets"]:
        for resource, amount in pod_set["usage"].items():
            held[pod_set["flavors"][resource], resource] += amount
    return dict(held)


def build_tree(case: Case, holders: Iterable[Mapping[str, Any]]) -> tuple[QuotaTree, dict[str, int]]:
    """The tree of a case charged with the given workloads, and the id of each queue and cohort by name.

    Cohort names are prefixed with `cohort:`, as a queue may have the same name.
    """
    ids = {f"cohort:{cohort['name']}": number for number, cohort in enumerate(case["cohorts"])}
    ids |= {queue["name"]: len(ids) + number for number, queue in enumerate(case["queues"])}
    nodes, usage = [], {}
    for cohort in case["cohorts"]:
        name, parent = f"cohort:{cohort['name']}", cohort["parent"]
        above = None if parent is None else ids[f"cohort:{parent}"]
        nodes.append(Node(ids[name], above, name, _limits(cohort["quotas"]), cohort.get("weight", 1)))
    for queue in case["queues"]:
        name, cohort = queue["name"], queue["cohort"]
        above = None if cohort is None else ids[f"cohort:{cohort}"]
        nodes.append(Node(ids[name], above, name, _limits(queue["quotas"]), queue.get("weight", 1)))
        usage[ids[name]] = _amounts(queue.get("usage", ()))
    tree = QuotaTree(nodes, usage)
    for workload in holders:
        tree.add(ids[workload["queue"]], _held(workload))
    return tree, ids


def quota(case: Case) -> dict[str, Any]:
    """What each queue can take now, and could take if nothing were in use."""
    tree, ids = build_tree(case, case["admitted"])

    def rows(value: Callable[[int, FlavorResource], int]) -> dict[str, Any]:
        return {
            queue["name"]: [
                {
                    "flavor": quota["flavor"],
                    "resource": quota["resource"],
                    "amount": value(ids[queue["name"]], (quota["flavor"], quota["resource"])),
                }
                for quota in queue["quotas"]
            ]
            for queue in case["queues"]
        }

    return {"available": rows(tree.available), "potential": rows(tree.potential)}


def share(case: Case) -> dict[str, Any]:
    """The fair share of every queue and cohort."""
    tree, ids = build_tree(case, case.get("admitted", ()))
    extra = _amounts(case.get("extra_request") or ())
    found = []
    for expected in case["expect"]["shares"]:
        prefix = "cohort:" if expected["node_type"] == "cohort" else ""
        value = tree.share(ids[prefix + expected["node"]], extra)
        found.append(
            {
                "node": expected["node"],
                "node_type": expected["node_type"],
                "share_ceil": "infinite" if value.weighted == inf else ceil(value.weighted),
                "dominant_resource": value.dominant,
                "borrowing": value.unweighted > 0,
            }
        )
    return {"shares": found}


def usage_report(case: Case) -> dict[str, Any]:
    """What a status page shows of one queue: all that is reserved, and what runs."""
    name = case["expect"]["queue"]
    admitted = [workload for workload in case["admitted"] if workload["queue"] == name]
    running = [workload for workload in admitted if workload["running"]]
    queue = next(queue for queue in case["queues"] if queue["name"] == name)

    def rows(holders: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        tree, ids = build_tree(case, holders)
        return [
            {
                "flavor": quota["flavor"],
                "resource": quota["resource"],
                "total": tree.usage(ids[name], (quota["flavor"], quota["resource"])),
                "borrowed": tree.borrowing(ids[name], (quota["flavor"], quota["resource"])),
            }
            for quota in queue["quotas"]
        ]

    return {
        "queue": name,
        "reserved": rows(admitted),
        "reserving_workloads": len(admitted),
        "in_use": rows(running),
        "running_workloads": len(running),
    }


# Words of the cases, and what the engine calls the same.
STRATEGIES = {"StrictFIFO": Strategy.STRICT_FIFO, "BestEffortFIFO": Strategy.BEST_EFFORT_FIFO}
REASONS = {
    Reason.NO_FLAVOR: "no_matching_flavor",
    Reason.EXCEEDS_MAX_QUOTA: "exceeds_max_quota",
    Reason.WAITING_FOR_QUOTA: "waiting_for_quota",
    Reason.WAITING_FOR_PREEMPTION: "waiting_for_preempted",
}
MODES = {Mode.FIT: "fit", Mode.PREEMPT: "preempt", Mode.NO_FIT: "no_fit"}
PROBES = {"preempt": Mode.PREEMPT, "reclaim": Mode.RECLAIM, "none": Mode.NO_CANDIDATES}


def _snake(word: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", word).lower()


def _rules(queue: Mapping[str, Any]) -> QueueRules:
    preemption, fungibility = queue["preemption"], queue["fungibility"]
    borrow = preemption["borrow_within_cohort"]
    preference = fungibility["preference"] or "BorrowingOverPreemption"
    return QueueRules(
        groups=tuple(
            ResourceGroup(frozenset(group["resources"]), tuple(group["flavors"])) for group in queue["resource_groups"]
        ),
        strategy=STRATEGIES[queue["strategy"]],
        within_queue=Policy(_snake(preemption["within_queue"])),
        reclaim=Policy(_snake(preemption["reclaim_within_cohort"])),
        borrow=Policy(_snake(borrow["policy"])),
        borrow_threshold=borrow["max_priority_threshold"],
        when_can_borrow=Fungibility(_snake(fungibility["when_can_borrow"])),
        when_can_preempt=Fungibility(_snake(fungibility["when_can_preempt"])),
        preference=Preference(_snake(preference)),
    )


def _uid(item: Mapping[str, Any]) -> tuple[str, str]:
    """Workloads of a case may share a uid; the name tells them apart."""
    return item["uid"], item["name"]


def build_world(case: Case) -> tuple[World, dict[str, int]]:
    """The engine's world of a case, and the id of each queue by name."""
    admitted = case.get("admitted", ())
    tree, ids = build_tree(case, admitted)
    settings = case["settings"]
    strategies = settings.get("fair_preemption_strategies", ["LessThanOrEqualToFinalShare", "LessThanInitialShare"])
    holders = [
        Holder(
            _uid(item),
            ids[item["queue"]],
            item["priority"],
            item["created_at"],
            item["admitted_at"],
            _held(item),
            evicting=item.get("evicting", False),
        )
        for item in admitted
    ]
    world = World.of(
        tree,
        {ids[queue["name"]]: _rules(queue) for queue in case["queues"]},
        holders,
        flavors={
            item["name"]: Flavor(item["name"], item["labels"], item["taints"], item["tolerations"])
            for item in case["flavors"]
        },
        fair=settings["fair_sharing"],
        strategies=tuple(FairStrategy(_snake(name)) for name in strategies),
    )
    return world, ids


def build_workload(item: Mapping[str, Any], ids: Mapping[str, int], resume: Any = None) -> Workload:
    """A waiting workload of a case."""
    parts = tuple(
        Part(
            part["name"],
            part["count"],
            part["requests"],
            part.get("min_count"),
            part.get("tolerations", ()),
            part.get("node_selector", {}),
            part.get("node_affinity", ()),
        )
        for part in item["pod_sets"]
    )
    return Workload(_uid(item), ids[item["queue"]], item["priority"], item["created_at"], parts, resume or {})


def _parts(parts: Iterable[PartAssignment]) -> list[dict[str, Any]]:
    return [
        {"name": part.name, "count": part.count, "flavors": dict(part.flavors), "usage": dict(part.usage)}
        for part in parts
    ]


class Names:
    """The names of a case's workloads by uid, and of its queues by id."""

    def __init__(self, case: Case, ids: Mapping[str, int]) -> None:
        items = [*case.get("admitted", ()), *case["pending"]]
        self.workload: dict[Hashable, str] = {_uid(item): item["name"] for item in items}
        self.queue = {number: name for name, number in ids.items()}

    def victims(self, victims: Iterable[Victim]) -> list[dict[str, Any]]:
        """Victims that have not been told to stop before, with the reason."""
        return [
            {"workload": self.workload[victim.holder.uid], "reason": victim.cause.value}
            for victim in victims
            if not victim.holder.evicting
        ]

    def admitted(self, outcome: Outcome) -> dict[str, Any]:
        """What an admitted head was given."""
        return {
            "workload": self.workload[outcome.workload.uid],
            "queue": self.queue[outcome.workload.queue],
            "pod_sets": _parts(outcome.assignment.parts),
        }


def cycle(case: Case) -> dict[str, Any]:
    """One cycle: who is admitted, who is evicted for whom, and how the others wait."""
    world, ids = build_world(case)
    names = Names(case, ids)
    workloads = [build_workload(item, ids) for item in case["pending"]]
    outcomes = admit(world, workloads, partial=case["settings"]["partial_admission"])
    decided = {outcome.workload.uid for outcome in outcomes}
    waiting = [
        {
            "workload": names.workload[outcome.workload.uid],
            "left": "active" if outcome.retry else "parked",
            "reason": REASONS.get(outcome.reason) if outcome.reason else None,
        }
        for outcome in outcomes
        if outcome.state != "admitted"
    ]
    behind = [workload for workload in workloads if workload.uid not in decided]
    waiting += [{"workload": names.workload[workload.uid], "left": "active", "reason": None} for workload in behind]
    return {
        "admitted": [names.admitted(outcome) for outcome in outcomes if outcome.state == "admitted"],
        "preempted": [
            {**victim, "by_queue": names.queue[outcome.workload.queue]}
            for outcome in outcomes
            for victim in names.victims(outcome.victims)
        ],
        "not_admitted": waiting,
    }


def cycles(case: Case) -> dict[str, Any]:
    """Several steps; what a step says of itself is compared at once, and told with the end."""
    world, ids = build_world(case)
    names = Names(case, ids)
    pending = {item["name"]: build_workload(item, ids) for item in case["pending"]}
    holding = {
        item["name"]: {"workload": item["name"], "queue": item["queue"], "pod_sets": item["pod_sets"]}
        for item in case["admitted"]
    }
    wrong = []
    for step in case["steps"]:
        if step["op"] == "remove":
            for holders in list(world.holders.values()):
                for holder in [each for each in holders.values() if names.workload[each.uid] in step["workloads"]]:
                    world.remove(holder)
            for name in step["workloads"]:
                holding.pop(name, None)
                pending.pop(name, None)
            continue
        outcomes = admit(world, pending.values(), partial=case["settings"]["partial_admission"])
        found: dict[str, list[Any]] = {"admitted": [], "preempted": []}
        for outcome in outcomes:
            workload = outcome.workload
            name = names.workload[workload.uid]
            if outcome.state == "admitted":
                del pending[name]
                usage = outcome.assignment.usage
                world.add(Holder(workload.uid, workload.queue, workload.priority, workload.submitted, 0.0, usage))
                holding[name] = names.admitted(outcome)
                found["admitted"].append(name)
            else:
                found["preempted"] += names.victims(outcome.victims)
                item = next(item for item in case["pending"] if item["name"] == name)
                pending[name] = build_workload(item, ids, outcome.resume)
        if "expect" in step and _canonical(found) != _canonical(step["expect"]):
            wrong.append({"expected": step["expect"], "found": found})
    return {"holding_quota_at_end": list(holding.values())} | ({"wrong_steps": wrong} if wrong else {})


def preemption(case: Case) -> dict[str, Any]:
    """Who is evicted for a workload whose flavors are given."""
    world, ids = build_world(case)
    workload = build_workload(case["pending"][0], ids)
    usage: Counter[FlavorResource] = Counter()
    contested = set()
    for part, given in zip(workload.parts, case["pending"][0]["assignment"], strict=True):
        for resource, flavor in given["flavors"].items():
            usage[flavor, resource] += part.requests.get(resource, 1) * part.count
        contested |= {(given["flavors"][resource], resource) for resource in given["needs_preemption"]}
    demand = Demand(
        workload.uid, workload.queue, workload.priority, workload.submitted, dict(usage), frozenset(contested)
    )
    victims = find_victims(world, demand)
    names = Names(case, ids)
    stopping = [names.workload[victim.holder.uid] for victim in victims if victim.holder.evicting]
    return {"preempted": names.victims(victims)} | ({"already_evicting_used": stopping} if stopping else {})


def assignment(case: Case) -> dict[str, Any]:
    """Which flavors one workload gets."""
    world, ids = build_world(case)
    table = case.get("preemption_probe", {})

    def probe(fr: FlavorResource, amount: int) -> Level:
        rows = [row for row in table["overrides"] if (row["flavor"], row["resource"]) == fr]
        row = rows[0] if rows else table["default"]
        return Level(PROBES[row["outcome"]], row["borrowing_level_after"])

    found = assign(world, build_workload(case["pending"][0], ids), probe=probe if table else None)
    if found.mode == Mode.NO_FIT:
        return {"mode": "no_fit", "reason": REASONS.get(found.reason) if found.reason else None}
    parts = [{"name": part.name, "count": part.count, "flavors": dict(part.flavors)} for part in found.parts]
    return {"mode": MODES[found.mode], "pod_sets": parts, "borrowing": found.borrowing > 0}


def order(case: Case) -> dict[str, Any]:
    """Whose turn it is; from when a workload counts as old is the caller's choice."""
    items, settings = case["items"], case.get("settings", {})
    users = {
        user["name"]: consumption(user["consumed"], user["weight"], settings.get("resource_weights", {}), {"cpu": 1000})
        for user in case.get("users", ())
    }

    def key(item: Mapping[str, Any]) -> Any:
        if case["scope"] == "victims":
            other = item["queue"] != settings["preemptor_queue"]
            at = item["admitted_at"]
            past_use = users.get(item.get("user", ""), 0.0)
            return victim_order(
                Holder(item["name"], int(other), item["priority"], 0.0, at, {}, past_use=past_use), 0
            )
        evicted = item.get("evicted_for_not_ready_at") if settings.get("requeue_timestamp") == "eviction" else None
        at = item["created_at"] if evicted is None else evicted
        workload = Workload(item["name"], 0, item["priority"], at, ())
        if case["scope"] == "cycle":
            return cycle_key(item.get("borrowing_level", 0), workload)
        return workload_order(workload, users.get(item.get("user", ""), 0.0))

    names = [item["name"] for item in sorted(items, key=key)]
    return {"first": names[0]} if "first" in case["expect"] else {"order": names}


def partial_search(case: Case) -> dict[str, Any]:
    """How far pod sets shrink until their total is within a limit."""
    counts, minimums = zip(*((part["count"], part.get("min_count")) for part in case["pod_sets"]), strict=True)

    def fits(shrunk: Sequence[int]) -> int | None:
        return sum(shrunk) if sum(shrunk) <= case["total_limit"] else None

    total = reduced(counts, minimums, fits)
    return {"found": total is not None, "total": total}


def readiness(case: Case) -> dict[str, Any]:
    """Whether the next workload may be admitted while others get ready."""
    return {"may_admit_next": may_admit(item["all_pods_ready"] for item in case["admitted"])}


def placement(case: Case) -> dict[str, Any]:
    """Pods onto nodes in a topology."""
    request, topology = case["request"], case["request"]["topology"]
    hosts = [
        Host(
            node["name"],
            node["labels"],
            node["capacity"],
            node.get("ready", True) and node.get("schedulable", True),
            node.get("taints", ()),
        )
        for node in case["nodes"]
    ]
    wanted = Spread(
        request["count"],
        {**request["per_pod"], "pods": 1},
        Constraint(topology["mode"]),
        topology.get("level"),
        topology.get("slice_level"),
        topology.get("slice_size", 1),
        {**case["node_filter"], **request.get("node_selector", {})},
        request.get("tolerations", ()),
    )
    found = spread(case["levels"], hosts, wanted)
    if isinstance(found, int):
        return {"placed": False, "fits_only": found}
    hosts_only = case["expect"].get("levels") == case["levels"][-1:]
    return {
        "placed": True,
        "levels": case["levels"][-1:] if hosts_only else case["levels"],
        "domains": [
            {"values": list(path[-1:] if hosts_only else path), "count": count} for path, count in found.items()
        ],
    }


ADAPTERS: dict[str, Callable[[Case], dict[str, Any]]] = {
    adapter.__name__: adapter
    for adapter in (
        quota, share, usage_report, order, cycle, cycles, preemption, assignment, partial_search, readiness, placement,
    )
}  # fmt: skip

# Told by the engine always, and by a case only where its source does.
OPTIONAL = {"reason", "usage", "borrowing", "fits_only", "already_evicting_used"}


def _asked(found: Any, expected: Any) -> Any:
    """What was found without the optional facts that the case does not state."""
    if isinstance(found, dict) and isinstance(expected, dict):
        return {
            key: _asked(value, expected[key]) if key in expected else value
            for key, value in found.items()
            if key in expected or key not in OPTIONAL
        }
    if isinstance(found, list) and isinstance(expected, list):
        by_name = {item.get("workload", item.get("name")): item for item in expected if isinstance(item, dict)}
        return [
            _asked(item, by_name.get(item.get("workload", item.get("name")))) if isinstance(item, dict) else item
            for item in found
        ]
    return found


def _canonical(value: Any) -> Any:
    """Lists in an expectation are sets, except a full order."""
    if isinstance(value, dict):
        return {key: item if key == "order" else _canonical(item) for key, item in value.items()}
    if isinstance(value, list):
        return sorted((_canonical(item) for item in value), key=lambda item: json.dumps(item, sort_keys=True))
    return value


def check(case: Case) -> tuple[str, str]:
    """(`passed`, `failed` or `unsupported`; for a failure, what was expected and what was found)."""
    adapter = ADAPTERS.get(case["kind"])
    if adapter is None:
        return "unsupported", ""
    found = adapter(case)
    expected, found = _canonical(case["expect"]), _canonical(_asked(found, case["expect"]))
    if found == expected:
        return "passed", ""
    return "failed", f"expected {json.dumps(expected)}\n   found {json.dumps(found)}"


def read_cases(folder: Path) -> list[dict[str, Any]]:
    """All case files of a folder or of its `cases` folder, by name."""
    inner = folder / "cases"
    files = sorted((inner if inner.is_dir() else folder).glob("*.json"))
    return [json.loads(file.read_text()) for file in files]


def report(cases: Iterable[Case]) -> dict[str, Counter[str]]:
    """Results by kind; failures are printed to the error output."""
    results: dict[str, Counter[str]] = {}
    for case in cases:
        result, why = check(case)
        results.setdefault(case["kind"], Counter())[result] += 1
        if why:
            print(f"FAILED {case['id']}: {why}", file=sys.stderr)
    return results


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0 if nothing failed, 1 if something did, 2 if there is no case."""
    parser = argparse.ArgumentParser(description="Run conformance cases against the engine.")
    parser.add_argument("folder", type=Path, help="folder with the case files")
    parser.add_argument("--json", action="store_true", help="print the counts as JSON")
    options = parser.parse_args(arguments)
    cases = read_cases(options.folder)
    if not cases:
        print(f"no case files in {options.folder}", file=sys.stderr)
        return 2
    results = report(cases)
    total: Counter[str] = Counter()
    for counts in results.values():
        total.update(counts)
    if options.json:
        print(json.dumps({"total": total, "kinds": results}, sort_keys=True))
    else:
        print(f"{'kind':<16}{'passed':>8}{'failed':>8}{'not yet supported':>20}")
        for kind, counts in [*sorted(results.items()), ("all", total)]:
            print(f"{kind:<16}{counts['passed']:>8}{counts['failed']:>8}{counts['unsupported']:>20}")
    return 1 if total["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
