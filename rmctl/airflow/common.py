"""What Airflow lets one say about any task: retries, timeouts, rules, and what there is no place for here."""

from collections.abc import Mapping
from typing import Any

from rmctl.spec.datasets import check_uri
from rmctl.spec.errors import BadValue
from rmctl.spec.kinds import JOBLESS
from rmctl.spec.quantities import format_duration

from . import limits
from .dag import Dag, identifier

RULES = {
    "all_success", "all_failed", "all_done", "all_skipped", "one_success", "one_failed", "one_done", "none_failed",
    "none_failed_min_one_success", "none_skipped", "all_done_setup_success", "always",
}  # fmt: skip
OLD_RULES = {"none_failed_or_skipped": "none_failed_min_one_success", "dummy": "always"}
# Airflow has no time limit where none is given; said once, in the defaults of the workflow.
NO_LIMIT = "7d"
# Fields that have no counterpart, with what they are for; reported where they differ from Airflow's default.
NO_PLACE: Mapping[str, tuple[Any, str]] = {
    "queue": ("default", "queue {value}: choose nodes with intent"),
    "run_as_user": (None, "run_as_user {value}"),
    "executor": (None, "executor {value}"),
    "executor_config": ({}, "executor_config: say it with resources, image and intent"),
    "inlets": ([], "inlets: what a task reads is not recorded"),
    "start_from_trigger": (False, "start_from_trigger: it begins with a job"),
}
DOCS = ("doc", "doc_md", "doc_json", "doc_yaml", "doc_rst")


def fields(dag: Dag, task: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """The fields that any task of this kind may have."""
    common = task["common"]
    made: dict[str, Any] = {"upstream": [identifier(name) for name in task["upstream"]]}
    if task["group"]:
        made["group"] = identifier(task["group"])
    made |= _rule(dag, task)
    for name in ("depends_on_past", "wait_for_downstream"):
        if common[name]:
            made[name] = True
    if common["wait_for_downstream"]:
        made["depends_on_past"] = True
    if outlets := _outlets(dag, task):
        made["outlets"] = outlets
    if kind not in JOBLESS:
        made |= _job(task)
    made |= limits.of_task(dag, task, kind)
    _report(dag, task)
    return made


def _rule(dag: Dag, task: Mapping[str, Any]) -> dict[str, Any]:
    """Setup, teardown and trigger rule."""
    common, rule = task["common"], task["trigger_rule"]
    if common["is_teardown"]:
        setups = [identifier(name) for name in task["upstream"] if dag.tasks[name]["common"]["is_setup"]]
        return {"teardown": {"setups": setups, **({"fails_run": True} if common["on_failure_fail_dagrun"] else {})}}
    made: dict[str, Any] = {"setup": True} if common["is_setup"] else {}
    rule = OLD_RULES.get(rule, rule)
    if rule not in RULES:
        dag.note("lost", f"trigger rule {rule}: all_done stands in its place", task["id"])
        rule = "all_done"
    return made if rule == "all_success" else {**made, "trigger_rule": rule}


def _outlets(dag: Dag, task: Mapping[str, Any]) -> list[str]:
    found = []
    for outlet in task["common"]["outlets"] or []:
        try:
            found.append(check_uri(outlet.get("$asset") if isinstance(outlet, Mapping) else None))
        except BadValue:
            what = outlet.get("$object", outlet.get("$asset")) if isinstance(outlet, Mapping) else outlet
            dag.note("lost", f"outlet {what}: it is not a dataset with a URI", task["id"])
    return found


def _job(task: Mapping[str, Any]) -> dict[str, Any]:
    """Retries and the time limit."""
    common = task["common"]
    made: dict[str, Any] = {}
    if common["retries"]:
        retries = {"limit": min(common["retries"], 100), "delay": _span(common["retry_delay"], 300), "jitter": 0.0}
        factor = common["retry_exponential_backoff"]
        retries["factor"] = 2.0 if factor is True else max(1.0, float(factor or 1))
        retries["max_delay"] = _span(common["max_retry_delay"], 86400)
        made["retries"] = retries
    if common["execution_timeout"] is not None:
        made["time_limit"] = _span(common["execution_timeout"], 0)
    return made


def _span(value: Any, default: float) -> str:
    seconds = value.get("$seconds") if isinstance(value, Mapping) else value
    return format_duration(max(1, round(default if seconds is None else seconds)))


def _report(dag: Dag, task: Mapping[str, Any]) -> None:
    """Note what there is no place for."""
    common, name = task["common"], task["id"]
    for field, (default, message) in NO_PLACE.items():
        value = common.get(field)
        if value is not None and value != default:
            dag.note("lost", message.format(value=value), name)
    for callback in task["callbacks"]:
        dag.note("lost", f"{callback}: {limits.INSTEAD}", name)
    wanted = [field for field in ("email_on_failure", "email_on_retry") if common.get(field)]
    if common["email"] and wanted:
        dag.note("lost", f"{', '.join(wanted)}: name a destination of kind email in notify", name)
    if any(common.get(field) for field in DOCS):
        dag.note("changed", "its documentation stays in the DAG file: tasks have no description", name)
    if common["task_display_name"] not in (None, name):
        dag.note("changed", "it is shown by its id, not by task_display_name", name)
    if common["retries"] and common["retries"] > 100:
        dag.note("lost", "more than 100 retries", name)
    own = (common["start_date"] or {}).get("$time"), (common["end_date"] or {}).get("$time")
    whole = tuple((dag.facts[field] or {}).get("$time") for field in ("start_date", "end_date"))
    if own != whole and any(mine and mine != other for mine, other in zip(own, whole, strict=True)):
        dag.note("lost", "start_date or end_date of a task", name)
