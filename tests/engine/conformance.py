"""Run conformance cases against the engine: `python -m tests.engine.conformance FOLDER [--json]`.

The cases are facts about quota, sharing and ordering taken from Kueue's tests; their format is described
beside them. Each kind that the engine answers has one adapter function here, which builds engine objects from
the case and returns what the engine says in the words of the case. A kind without an adapter is reported as
unsupported, never as passed.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from math import ceil, inf
from pathlib import Path
from typing import Any

from engine.cycle import Candidate, queue_order
from engine.quota import FlavorResource, Limit, Node, QuotaTree

Case = Mapping[str, Any]


class Unsupported(Exception):
    """The engine has no answer to this question yet."""


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


def order(case: Case) -> dict[str, Any]:
    """The order of the workloads of one queue; from when a job counts as old is the caller's choice."""
    if case["scope"] != "queue":
        raise Unsupported
    since_eviction = case.get("settings", {}).get("requeue_timestamp") == "eviction"
    items = []
    for number, item in enumerate(case["items"]):
        evicted = item.get("evicted_for_not_ready_at") if since_eviction else None
        at = item["created_at"] if evicted is None else evicted
        items.append(Candidate(number, 0, item["priority"], float(at), (), {}, ""))
    names = [case["items"][item.job]["name"] for item in queue_order(items)[0]]
    return {"first": names[0]} if "first" in case["expect"] else {"order": names}


ADAPTERS: dict[str, Callable[[Case], dict[str, Any]]] = {
    "quota": quota,
    "share": share,
    "usage_report": usage_report,
    "order": order,
}


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
    try:
        found = adapter(case)
    except Unsupported:
        return "unsupported", ""
    expected = _canonical(case["expect"])
    if _canonical(found) == expected:
        return "passed", ""
    return "failed", f"expected {json.dumps(expected)}\n   found {json.dumps(_canonical(found))}"


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
