"""Airflow's sensors and triggers of runs that are tasks without a job here, and how sensors are poked."""

import re
from collections.abc import Mapping
from typing import Any

from rmctl.spec.quantities import format_duration

from .checks import is_template
from .dag import Dag, identifier
from .findings import NotCarried, Unportable
from .mapping import MAX_MAP, listed, plain
from .schedule import holds_objects

STATES = {"success": "succeeded", "failed": "failed"}
_PARAM = re.compile(r"""\{\{\s*(?:params\.|params\[["']|dag_run\.conf\[["'])(\w+)(?:["']\])?\s*\}\}""")
_RESULT = re.compile(
    r"""\{\{\s*(?:ti|task_instance)\.xcom_pull\(\s*(?:task_ids\s*=\s*)?["']([\w.-]+)["']\s*\)\s*\}\}"""
)


def poke(dag: Dag, task: Mapping[str, Any]) -> dict[str, Any]:
    """How a sensor is poked."""
    given = task["arguments"]
    made: dict[str, Any] = {"interval": _duration(given.get("poke_interval"), 60)}
    factor = given.get("exponential_backoff")
    if factor:
        made["factor"] = 2.0 if factor is True else float(factor)
    if given.get("max_wait"):
        made["max_interval"] = _duration(given["max_wait"], 3600)
    made |= ends(dag, task)
    return made


def ends(dag: Dag, task: Mapping[str, Any]) -> dict[str, Any]:
    """When a sensor gives up, and how."""
    given = task["arguments"]
    for name in ("silent_fail", "never_fail"):
        if given.get(name):
            dag.note("lost", f"{name} of sensors", task["id"])
    made: dict[str, Any] = {}
    if given.get("timeout") is not None:
        made["timeout"] = _duration(given["timeout"], 7 * 86400)
    if given.get("soft_fail"):
        made["soft_fail"] = True
    return made


def _duration(value: Any, default: float) -> str:
    seconds = value.get("$seconds") if isinstance(value, Mapping) else value
    return format_duration(max(1, round(seconds if isinstance(seconds, int | float) else default)))


def time_delta(dag: Dag, task: Mapping[str, Any]) -> dict[str, Any]:
    """TimeDeltaSensor and WaitSensor: both wait from when the run gets there."""
    given = task["arguments"].get("delta") or task["arguments"].get("time_to_wait")
    seconds = given.get("$seconds") if isinstance(given, Mapping) else given
    if not isinstance(seconds, int | float) or seconds <= 0:
        raise Unportable("how long it waits is not a fixed time")
    if task["type"] != "WaitSensor":
        dag.note(
            "changed", "it waits from when the run gets there, Airflow from the end of the data interval", task["id"]
        )
    return {"kind": "wait_for", "arguments": {"duration": {"value": format_duration(max(1, round(seconds)))}}}


def date_time(dag: Dag, task: Mapping[str, Any]) -> dict[str, Any]:
    """DateTimeSensor with a fixed time."""
    given = task["arguments"].get("target_time")
    value = given.get("$time") if isinstance(given, Mapping) else given
    if not isinstance(value, str) or is_template(value):
        raise Unportable("the time that it waits for is known only when it runs")
    return {"kind": "wait_until", "arguments": {"time": {"value": value}}}


def time_of_day(dag: Dag, task: Mapping[str, Any]) -> dict[str, Any]:
    """TimeSensor: a time of the day on which the run gets there."""
    given = task["arguments"].get("target_time")
    value = given.get("$time") if isinstance(given, Mapping) else None
    if value is None:
        raise Unportable("the time that it waits for is known only when it runs")
    if not re.fullmatch(r"\d\d:\d\d(:\d\d)?", value):
        raise Unportable("the time of day that it waits for has a zone of its own or parts of seconds")
    return {"kind": "wait_until", "arguments": {"time": {"value": value}}}


def other_run(dag: Dag, task: Mapping[str, Any]) -> dict[str, Any]:
    """ExternalTaskSensor: waits for the run, there is no waiting for one task of it."""
    given = task["arguments"]
    workflow = given.get("external_dag_id")
    if not isinstance(workflow, str) or is_template(workflow):
        raise NotCarried("which DAG it waits for is known only when it runs")
    if given.get("execution_date_fn"):
        raise NotCarried("which run it waits for is computed by a function (execution_date_fn)")
    if any(given.get(name) for name in ("external_task_id", "external_task_ids", "external_task_group_id")):
        dag.note("changed", f"it waits for the whole run of {workflow}, not for one task of it", task["id"])
    if given.get("check_existence"):
        dag.note("lost", "check_existence: it waits for a workflow that does not exist until its timeout", task["id"])
    made = {"workflow": identifier(workflow), **_states(given), **ends(dag, task)}
    delta = given.get("execution_delta")
    before = {"before": {"value": _duration(delta, 0)}} if delta else {}
    dag.note("needed", f"the workflow {identifier(workflow)}, which is waited for", task["id"])
    return {"kind": "wait_for_run", "wait_for_run": made, **({"arguments": before} if before else {})}


def _states(given: Mapping[str, Any]) -> dict[str, Any]:
    """Which ends of the other run are good and bad; Airflow waits on where neither says so."""
    allowed = [STATES[state] for state in given.get("allowed_states") or ["success"] if state in STATES]
    failed = [STATES[state] for state in given.get("failed_states") or [] if state in STATES]
    if "failed" in failed:
        failed.append("cancelled")
    return {"allowed": allowed or ["succeeded"], "failed": [state for state in failed if state not in allowed]}


def trigger(dag: Dag, task: Mapping[str, Any]) -> dict[str, Any]:
    """TriggerDagRunOperator: its conf are the parameters of the run."""
    given = task["arguments"]
    workflow = given.get("trigger_dag_id")
    if not isinstance(workflow, str) or is_template(workflow):
        raise NotCarried("which DAG it triggers is known only when it runs")
    conf = given.get("conf") or {}
    if not isinstance(conf, Mapping) or "$xcom" in conf:
        raise NotCarried("its conf is known only when it runs")
    arguments = {name: _value(dag, task, name, value) for name, value in conf.items()}
    moment = given.get("logical_date", given.get("execution_date"))
    own = isinstance(moment, str) and re.fullmatch(r"\{\{\s*(logical_date|execution_date|ts)\s*\}\}", moment.strip())
    if isinstance(moment, Mapping) or (moment and not own):
        dag.note("lost", "the logical date that it gives the run: it is that of the start", task["id"])
    for name in ("trigger_run_id", "reset_dag_run", "skip_when_already_exists", "note"):
        if given.get(name):
            dag.note("lost", f"{name} of runs that are triggered", task["id"])
    made: dict[str, Any] = {"workflow": identifier(workflow), **({"logical_time": "own"} if own else {})}
    if given.get("wait_for_completion"):
        made |= {"wait": True, **_states({"failed_states": ["failed"], **_named(given)})}
    mapped = {"map": _runs(task["map"])} if "map" in task else {}
    dag.note("needed", f"the workflow {identifier(workflow)}, which is started", task["id"])
    return {"kind": "trigger_run", "trigger_run": made, **({"arguments": arguments} if arguments else {}), **mapped}


def _runs(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """The `map` of a mapped TriggerDagRunOperator: a run for each conf."""
    if mapping["kind"] != "lists" or set(mapping["value"]) != {"conf"}:
        raise NotCarried("runs that are started are mapped over conf alone")
    try:
        return plain({"kwargs": listed("conf", mapping["value"]["conf"]), "limit": MAX_MAP})
    except Unportable as error:
        raise NotCarried(str(error)) from None


def _named(given: Mapping[str, Any]) -> dict[str, Any]:
    return {name: given[name] for name in ("allowed_states", "failed_states") if given.get(name)}


def _value(dag: Dag, task: Mapping[str, Any], name: str, value: Any) -> dict[str, Any]:
    """A value of conf; a task without a job renders no template, but may name a parameter or a result."""
    if isinstance(value, Mapping) and "$xcom" in value:
        key = {} if value["key"] == "return_value" else {"key": value["key"]}
        return {"result": identifier(value["$xcom"]), **key}
    if isinstance(value, str) and (found := _PARAM.fullmatch(value.strip())) and found[1] in dag.params:
        return {"param": found[1]}
    if isinstance(value, str) and (found := _RESULT.fullmatch(value.strip())) and found[1] in task["upstream"]:
        return {"result": identifier(found[1])}
    if holds_objects(value) or is_template(value):
        raise NotCarried(f"conf has {name}, a template or an object that a task without a job cannot render")
    return {"value": value}
