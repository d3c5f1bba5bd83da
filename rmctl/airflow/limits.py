"""Airflow's pools, limits, weights, deadlines and callbacks, as far as a definition has words for them."""

from collections.abc import Mapping
from typing import Any

from rmctl.spec.kinds import JOBLESS
from rmctl.spec.limits import MAX_WEIGHT
from rmctl.spec.quantities import format_duration

from .dag import Dag, identifier

# What to do in place of a function that Airflow calls.
INSTEAD = (
    "nothing is called: name destinations in notify to tell somebody, or add a task with trigger_rule one_failed to do "
    "something (docs/notifications.md)"
)
# Airflow's classes of rules, or their names in its older versions.
_WEIGHT_RULES = {
    "_UpstreamPriorityWeightStrategy": "upstream", "_AbsolutePriorityWeightStrategy": "absolute",
    "_DownstreamPriorityWeightStrategy": "downstream", "upstream": "upstream", "absolute": "absolute",
    "downstream": "downstream",
}  # fmt: skip
_LIMITS = {"max_active_tis_per_dag": "max_active", "max_active_tis_per_dagrun": "max_active_per_run"}
# What a deadline of Airflow 3 counts from.
_SINCE = {"DagRunQueuedAtDeadline": "scheduled", "DagRunLogicalDateDeadline": "scheduled"}


def of_dag(dag: Dag) -> dict[str, Any]:
    """Limits, time limit and deadline of the workflow."""
    facts = dag.facts
    made: dict[str, Any] = {}
    if facts["max_active_tasks"] not in (None, 16):
        # Airflow 2 counts the tasks of all runs of a DAG, Airflow 3 those of each.
        over_runs = dag.airflow.partition(".")[0] == "2" and facts["max_active_tasks"] > 0
        made["max_active_tasks_all_runs" if over_runs else "max_active_tasks"] = facts["max_active_tasks"]
    if facts["dagrun_timeout"]:
        made["time_limit"] = _span(facts["dagrun_timeout"])
    found = []
    for deadline in facts.get("deadlines") or ():
        since = _SINCE.get(deadline["reference"])
        if since is None or deadline["seconds"] is None or deadline["seconds"] <= 0:
            dag.note("lost", f"a deadline from {deadline['reference']}: it counts from when a run starts or is due")
        else:
            found.append((deadline["seconds"], since))
    for seconds, since in sorted(found)[:1]:
        made["deadline"] = {"after": format_duration(max(1, round(seconds))), "from": since}
        dag.note("changed", "deadline: name destinations in notify for it, its callback is not called")
    if len(found) > 1:
        dag.note("lost", "further deadlines: a workflow has one")
    return made


def of_task(dag: Dag, task: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Slots, limits, weight and deadline of a task."""
    common, name = task["common"], task["id"]
    made: dict[str, Any] = {}
    if kind not in JOBLESS:
        made |= _slots(dag, task)
        made |= {ours: common[theirs] for theirs, ours in _LIMITS.items() if common.get(theirs)}
    elif common["pool"] not in (None, "default_pool"):
        dag.note("changed", f"pool {common['pool']}: a task without a job takes no slots", name)
    weight = common["priority_weight"]
    if weight not in (None, 1):
        made["weight"] = max(0, min(MAX_WEIGHT, weight))
        if made["weight"] != weight:
            dag.note("changed", f"priority_weight {weight}: weights are 0 to {MAX_WEIGHT:,}", name)
    rule = _WEIGHT_RULES.get(task["weight_rule"])
    if rule is None:
        dag.note("lost", f"the weight rule {task['weight_rule']}: downstream stands in its place", name)
    elif rule != "downstream":
        made["weight_rule"] = rule
    if common["sla"] is not None:
        made["deadline"] = {"after": _span(common["sla"]), "from": "scheduled"}
        dag.note("changed", "sla: a deadline; name destinations in notify for it, no mail is sent by itself", name)
    return made


def _slots(dag: Dag, task: Mapping[str, Any]) -> dict[str, Any]:
    pool, count = task["common"]["pool"], task["common"]["pool_slots"] or 1
    if pool in (None, "default_pool"):
        if count != 1:
            dag.note("lost", "pool_slots of default_pool: there is no slot pool that all tasks share", task["id"])
        return {}
    slots = identifier(pool)
    dag.pools.setdefault(slots, {})[task["id"]] = count
    return {"slots": {"name": slots, "count": count} if count != 1 else slots}


def note_pools(dag: Dag) -> None:
    """List the slot pools that the tenant must have; Airflow's DAG files do not say how many slots they have."""
    for name, takers in sorted(dag.pools.items()):
        least = max(takers.values())
        more = f", at least {least}" if least > 1 else ""
        said = f"the slot pool {name} with as many slots as in Airflow{more}: rmctl slots create {name} …"
        for task in takers:
            dag.note("needed", said, task)


def _span(value: Any) -> str:
    seconds = value["$seconds"] if isinstance(value, Mapping) else value
    return format_duration(max(1, round(seconds)))
