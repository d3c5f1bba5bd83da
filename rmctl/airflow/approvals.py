"""Airflow's operators that ask people (3.1 and newer) as approvals."""

from collections.abc import Mapping
from typing import Any

from rmctl.spec.quantities import format_duration

from .checks import is_template
from .dag import Dag
from .findings import NotCarried
from .schedule import params


def ask(dag: Dag, task: Mapping[str, Any]) -> dict[str, Any]:
    """HITLOperator, ApprovalOperator and HITLEntryOperator: a question with options, and a form of its params."""
    given, name = task["arguments"], task["id"]
    made: dict[str, Any] = {"subject": given.get("subject"), "text": given.get("body") or ""}
    if not isinstance(made["subject"], str) or is_template([made["subject"], made["text"]]):
        raise NotCarried("its question is a template, which a task without a job cannot render")
    made["options"] = given.get("options")
    approves = task["type"] == "ApprovalOperator"
    made["reject"] = ["Reject"] if approves else []
    if given.get("multiple"):
        dag.note("lost", "multiple: one option is chosen", name)
    chosen = given.get("defaults")
    if chosen:
        made["default"] = chosen if isinstance(chosen, str) else chosen[0]
    form = given.get("params") or {}
    if form:
        declared = {key: _param(value) for key, value in form.items()}
        made["form"] = params(declared, lambda level, message: dag.note(level, message, name))
    timeout = given.get("response_timeout") or task["common"]["execution_timeout"]
    if isinstance(timeout, Mapping):
        made["timeout"] = format_duration(max(1, round(timeout["$seconds"])))
    for field in ("notifiers", "assigned_users", "fail_on_reject"):
        if given.get(field):
            dag.note("lost", f"{field} of a question to people", name)
    if approves and not given.get("ignore_downstream_trigger_rules"):
        dag.note("changed", "Reject skips everything behind it, whatever the trigger rules say", name)
    dag.note("changed", "its result is option, values and by, not chosen_options and params_input", name)
    return {"kind": "approval", "approval": made}


def _param(value: Any) -> dict[str, Any]:
    """A parameter of the form, which the facts have as its value or as what Airflow writes of it."""
    if isinstance(value, Mapping) and {"value", "schema"} <= value.keys():
        return dict(value)
    return {"value": value}
