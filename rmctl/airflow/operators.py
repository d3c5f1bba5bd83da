"""Airflow's operators that are native tasks here. What cannot be one raises Unportable, with the reason."""

import re
import shlex
from collections.abc import Callable, Mapping
from typing import Any

from . import approvals, mapping, waiting
from .dag import Dag
from .findings import Unportable
from .functions import parameters
from .mapping import argument

Facts = Mapping[str, Any]

FUNCTIONS_FILE = "tasks.py"
NATIVE_FILE = "airflow_native.py"
# Names under which Airflow gives a function its context; those that are texts come from templates here.
TEXTS = (
    "ds", "ds_nodash", "ts", "ts_nodash", "ts_nodash_with_tz", "run_id", "yesterday_ds", "yesterday_ds_nodash",
    "tomorrow_ds", "tomorrow_ds_nodash",
)  # fmt: skip
CONTEXT = {
    *TEXTS, "conf", "conn", "context", "dag", "dag_run", "data_interval_start", "data_interval_end", "execution_date",
    "expanded_ti_count", "inlets", "inlet_events", "logical_date", "macros", "map_index_template", "next_ds",
    "next_ds_nodash", "next_execution_date", "outlets", "outlet_events", "params", "prev_data_interval_end_success",
    "prev_data_interval_start_success", "prev_ds", "prev_ds_nodash", "prev_end_date_success", "prev_execution_date",
    "prev_execution_date_success", "prev_start_date_success", "reason", "start_date", "task", "task_instance",
    "task_instance_key_str", "task_reschedule_count", "templates_dict", "test_mode", "ti", "triggering_asset_events",
    "triggering_dataset_events", "try_number", "var",
}  # fmt: skip


def empty(dag: Dag, task: Facts) -> dict[str, Any]:
    """EmptyOperator."""
    return {"kind": "empty"}


def marker(dag: Dag, task: Facts) -> dict[str, Any]:
    """ExternalTaskMarker: it does nothing but take along a clear."""
    dag.note("lost", "clearing it does not clear the task of the other DAG that it marks", task["id"])
    return {"kind": "empty"}


def bash(dag: Dag, task: Facts) -> dict[str, Any]:
    """BashOperator: the command, with its environment and folder; its last line where it is read as XCom."""
    given = task["arguments"]
    _plain_output(given)
    command = given.get("bash_command")
    made: dict[str, Any] = {"kind": "bash"}
    if "map" in task:
        over = mapping.plain(mapping.product(task["map"]["value"])) if task["map"]["kind"] == "lists" else {}
        if over.get("over", {}).keys() != {"bash_command"} or "value" not in over["over"]["bash_command"]:
            raise Unportable("it is mapped over something else than literal commands")
        made["map"] = over
        command = 'eval "$RM_ARG_BASH_COMMAND"'
    if not isinstance(command, str):
        raise Unportable("its command is not a text")
    if "AIRFLOW_CTX_" in command:
        raise Unportable("its command reads variables AIRFLOW_CTX_…")
    env = {name: _text(name, value) for name, value in (given.get("env") or {}).items()}
    if any(name.startswith("RM_") or not re.fullmatch(r"[A-Za-z_]\w*", name) for name in env):
        raise Unportable("it sets variables with names that are not for tasks here")
    if given.get("cwd"):
        command = f"cd {shlex.quote(_text('cwd', given['cwd']))}\n{command}"
    if task["common"]["do_xcom_push"] is not False and dag.is_read(task["id"]):
        command = LAST_LINE.format(command=command)
    return dag.checked(task, {**made, "script": command, **({"env": env} if env else {})})


# As in Airflow, standard error belongs to the output whose last line is the result.
LAST_LINE = """\
output=$(mktemp)
(
{command}
) 2>&1 | tee "$output"
status=${{PIPESTATUS[0]}}
tail -n 1 "$output" | python -c 'import json, sys; print(json.dumps(sys.stdin.read().rstrip()))' > "$RM_RESULT"
exit $status"""


def _plain_output(given: Facts) -> None:
    codes = given.get("skip_on_exit_code", 99)
    if codes not in ([99], 99, None, []):
        raise Unportable("it is skipped by another exit status than 99")
    processor = given.get("output_processor")
    if isinstance(processor, Mapping) and not str(processor.get("$callable", "")).startswith("BashOperator."):
        raise Unportable("it has an output_processor")


def _text(name: str, value: Any) -> str:
    if isinstance(value, Mapping) and "$xcom" in value:
        key = "" if value["key"] == "return_value" else f", key={value['key']!r}"
        return f"{{{{ ti.xcom_pull(task_ids={value['$xcom']!r}{key}) }}}}"
    if not isinstance(value, str):
        raise Unportable(f"{name} is not a text")
    return value


def python(dag: Dag, task: Facts) -> dict[str, Any]:
    """PythonOperator and @task: the function, taken out of the file, with its arguments by name."""
    given = task["arguments"]
    function = given.get("python_callable")
    if not isinstance(function, Mapping) or "$callable" not in function:
        raise Unportable("what it calls is not a function")
    if function["file"] != dag.path:
        raise Unportable("its function comes from another file")
    if given.get("templates_dict") or given.get("templates_exts"):
        raise Unportable("it has a templates_dict")
    mapped = {"map": mapping.of_function(task)} if "map" in task else {}
    if task["common"]["do_xcom_push"] is False:
        raise Unportable("what its function returns is not to be kept")
    node = dag.module.functions.get(function["line"])
    if node is None or "<lambda>" in function["$callable"]:
        raise Unportable("its function is a lambda")
    arguments = _arguments(node, given, mapped.get("map", {}))
    dag.taken.take(function)
    definition = {"kind": "python", "file": FUNCTIONS_FILE, "function": node.name, **mapped}
    return dag.checked(task, {**definition, **({"arguments": arguments} if arguments else {})})


def _arguments(node: Any, given: Facts, mapped: Facts) -> dict[str, Any]:
    """The arguments of a function as Airflow would give them besides those of its `map`. Raises Unportable."""
    names, optional, keywords = parameters(node)
    op_args, op_kwargs = given.get("op_args") or [], given.get("op_kwargs") or {}
    if keywords:
        raise Unportable(f"{node.name} reads Airflow's context from **{node.args.kwarg.arg}")
    if not isinstance(op_args, list) or not isinstance(op_kwargs, Mapping) or "$xcom" in op_kwargs:
        raise Unportable("its arguments are known only when it runs")
    if len(op_args) > len(names):
        raise Unportable(f"{node.name} is given more arguments than it takes")
    values = {**dict(zip(names, op_args, strict=False)), **op_kwargs}
    some = mapping.taken(mapped)
    every, unknown = mapping.given(mapped) if mapped else (set(), False)
    if some & values.keys():
        raise Unportable(f"{node.name} is given {', '.join(sorted(some & values.keys()))} by both partial and expand")
    if (extra := sorted(some.difference(names))) and node.args.kwarg is None:
        raise Unportable(f"{node.name} does not take {', '.join(extra)}")
    arguments = {name: argument(name, value) for name, value in values.items() if name in names}
    if extra := sorted(values.keys() - arguments.keys()):
        if node.args.kwarg is None:
            raise Unportable(f"{node.name} does not take {', '.join(extra)}")
        arguments |= {name: argument(name, values[name]) for name in extra}
    for name in names:
        if name in arguments or name in every:
            continue
        if name in some:
            if name not in optional:
                raise Unportable(f"{node.name} is not given {name} by all that it is mapped over")
        elif name in TEXTS:
            arguments[name] = {"value": f"{{{{ {name} }}}}"}
        elif name in CONTEXT:
            raise Unportable(f"{node.name} takes {name} of Airflow's context")
        elif name not in optional and not unknown:
            raise Unportable(f"{node.name} is not given {name}")
    return arguments


def branch(dag: Dag, task: Facts) -> dict[str, Any]:
    """BranchPythonOperator and @task.branch."""
    return {**python(dag, task), "decides": "branch"}


def short_circuit(dag: Dag, task: Facts) -> dict[str, Any]:
    """ShortCircuitOperator and @task.short_circuit."""
    made = {**python(dag, task), "decides": "short_circuit"}
    if task["arguments"].get("ignore_downstream_trigger_rules") is False:
        made["ignore_downstream_trigger_rules"] = False
    return made


def bash_function(dag: Dag, task: Facts) -> dict[str, Any]:
    """@task.bash: the function returns the script."""
    given = task["arguments"]
    _plain_output(given)
    if given.get("env") or given.get("cwd"):
        raise Unportable("it sets variables or a folder for the script that its function returns")
    if task["common"]["do_xcom_push"] is not False and dag.is_read(task["id"]):
        raise Unportable("the last line of its script's output is read by other tasks")
    made = {**python(dag, task), "returns": "script"}
    if any("{{" in part or "{%" in part for part in dag.taken.parts.values()):
        raise Unportable("the script that its function returns may be a template")
    return made


def python_sensor(dag: Dag, task: Facts) -> dict[str, Any]:
    """PythonSensor and @task.sensor."""
    return {**python(dag, task), "poke": waiting.poke(dag, task)}


def file_sensor(dag: Dag, task: Facts) -> dict[str, Any]:
    """FileSensor."""
    given = task["arguments"]
    values = {"path": given.get("filepath"), "recursive": bool(given.get("recursive"))}
    if not isinstance(values["path"], str):
        raise Unportable("its path is not a text")
    made: dict[str, Any] = {"kind": "python", "file": NATIVE_FILE, "function": "file_exists"}
    if given.get("fs_conn_id") not in (None, "fs_default"):
        values["connection"] = given["fs_conn_id"]
        made["connections"] = [given["fs_conn_id"]]
    made["arguments"] = {name: {"value": value} for name, value in values.items()}
    return {**dag.checked(task, made), "poke": waiting.poke(dag, task)}


def latest_only(dag: Dag, task: Facts) -> dict[str, Any]:
    """LatestOnlyOperator: what is directly behind it runs only in the latest interval."""
    return {
        "kind": "python", "file": NATIVE_FILE, "function": "latest_only", "decides": "short_circuit",
        "ignore_downstream_trigger_rules": False,
    }  # fmt: skip


Handler = Callable[[Dag, Facts], dict[str, Any]]
HANDLERS: Mapping[str, Handler] = {
    "EmptyOperator": empty,
    "DummyOperator": empty,
    "ExternalTaskMarker": marker,
    "BashOperator": bash,
    "PythonOperator": python,
    "_PythonDecoratedOperator": python,
    "BranchPythonOperator": branch,
    "_BranchPythonDecoratedOperator": branch,
    "ShortCircuitOperator": short_circuit,
    "_ShortCircuitDecoratedOperator": short_circuit,
    "_BashDecoratedOperator": bash_function,
    "PythonSensor": python_sensor,
    "DecoratedSensorOperator": python_sensor,
    "FileSensor": file_sensor,
    "LatestOnlyOperator": latest_only,
    "TimeDeltaSensor": waiting.time_delta,
    "TimeDeltaSensorAsync": waiting.time_delta,
    "WaitSensor": waiting.time_delta,
    "DateTimeSensor": waiting.date_time,
    "DateTimeSensorAsync": waiting.date_time,
    "TimeSensor": waiting.time_of_day,
    "TimeSensorAsync": waiting.time_of_day,
    "ExternalTaskSensor": waiting.other_run,
    "TriggerDagRunOperator": waiting.trigger,
    "HITLOperator": approvals.ask,
    "ApprovalOperator": approvals.ask,
    "HITLEntryOperator": approvals.ask,
}


def native(dag: Dag, task: Facts) -> dict[str, Any]:
    """The task as a native one, without what any task may have. Raises Unportable, or NotCarried."""
    handler = HANDLERS.get(task["type"]) if task["module"].startswith("airflow.") else None
    if handler is None:
        raise Unportable(f"{task['type']} is an operator of its own")
    if task["hooked"]:
        raise Unportable("it has hooks that run before or after it")
    if "map" in task and handler not in (bash, python, waiting.trigger):
        raise Unportable(f"it is a mapped {task['type']}")
    return handler(dag, task)
