"""Executes one task of an Airflow DAG file, as a task of a workflow.

Runs with an interpreter that has Airflow (2.x or 3.x) and the provider of the operator; `AIRFLOW_PYTHON` names it. It
loads `AIRFLOW_DAG_FILE`, takes the task of `AIRFLOW_DAG`, renders its templates and calls its `execute`. There is no
database and no scheduler of Airflow: results of other tasks come in the inputs, connections and variables come from the
tenant, and what the operator returns or pushes is the result. Exit status 99: skipped; 98: failed, no use trying again.

As a sensor (`--poke`) it calls the operator's `poke` once. `poke` below runs in the node's own Python and calls that.
"""

import asyncio
import contextlib
import importlib
import json
import os
import re
import subprocess
import sys
import tempfile
from datetime import UTC, datetime

SKIPPED, FAILED = 99, 98
RESULT_BYTES = 256 * 1024


def poke(**inputs):
    """Whether the sensor is done; called by rmctl in the node's own Python."""
    import rmctl

    with tempfile.NamedTemporaryFile("r", suffix=".json") as answer:
        environment = {**os.environ, "RM_RESULT": answer.name}
        command = [os.environ["AIRFLOW_PYTHON"], os.path.abspath(__file__), "--poke"]
        done = subprocess.run(command, env=environment, check=False)
        if done.returncode == SKIPPED:
            raise rmctl.TaskSkipped("the sensor says that there is nothing to wait for")
        if done.returncode == FAILED:
            raise rmctl.TaskFailed("the sensor says that waiting is of no use")
        if done.returncode:
            raise SystemExit(done.returncode)
        with open(answer.name, encoding="utf-8") as stream:
            found = json.load(stream)
    return rmctl.Poked(found["done"], found["value"])


def main(as_sensor):
    """Execute the task; returns the exit status."""
    prepare()
    dag = load_dag()
    inputs = read_inputs()
    name = os.environ.get("AIRFLOW_TASK") or os.environ["RM_TASK_ID"]
    task = dag.get_task(name)
    if "AIRFLOW_MAP" in os.environ:
        task = unmapped(task, os.environ["AIRFLOW_MAP"], inputs)
    pulled = json.loads(inputs.get("xcom") or "{}")
    # A copy on which setting attributes no longer changes the graph.
    task = task.prepare_for_execution()
    context, instance = make_context(dag, task, pulled)
    try:
        with current(context):
            result = run(task, context, as_sensor)
    except exception("AirflowSkipException") as error:
        print(f"skipped: {error}", file=sys.stderr)
        return SKIPPED
    except (exception("AirflowFailException"), exception("AirflowSensorTimeout")) as error:
        print(f"failed: {error}", file=sys.stderr)
        return FAILED
    write(result if as_sensor else instance.result(result, task))
    return 0


def prepare():
    """Airflow's settings for this one task: a home of its own, connections and variables of the tenant."""
    home = os.environ.setdefault("AIRFLOW_HOME", os.path.join(tempfile.gettempdir(), "airflow"))
    os.makedirs(home, exist_ok=True)
    dags = os.path.dirname(os.path.abspath(os.environ["AIRFLOW_DAG_FILE"]))
    os.environ.setdefault("AIRFLOW__CORE__DAGS_FOLDER", dags)
    os.environ.setdefault("AIRFLOW__CORE__LOAD_EXAMPLES", "False")
    # The time limit of the task counts, not one of reading files.
    os.environ.setdefault("AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT", "0")
    sys.path[:0] = [os.path.abspath(os.environ["AIRFLOW_DAG_FILE"].split("/")[0]), dags]
    for name in filter(None, os.environ.get("RM_CONNECTIONS", "").split(",")):
        given = json.loads(os.environ[stored("CONNECTION", name)])
        fields = {"conn_type": given.get("type") or name}
        for field in ("host", "login", "password", "port", "schema", "extra"):
            if given.get(field):
                fields[field] = given[field]
        os.environ["AIRFLOW_CONN_" + name.upper()] = json.dumps(fields)
    for name, value in list(os.environ.items()):
        if name.startswith("RM_VARIABLE_"):
            plain = re.sub("_([0-9a-f]{2})", lambda code: chr(int(code[1], 16)), name[len("RM_VARIABLE_") :])
            os.environ["AIRFLOW_VAR_" + plain.upper()] = value


def stored(kind, name):
    """The variable that a connection or variable of the tenant comes in."""
    plain = "".join(c if c.isascii() and c.isalnum() else f"_{ord(c):02x}" for c in name)
    return f"RM_{kind}_{plain}"


def load_dag():
    """The DAG. Raises SystemExit where the file cannot be loaded; the log says why."""
    try:
        from airflow.dag_processing.dagbag import DagBag
    except ImportError:
        from airflow.models.dagbag import DagBag

    for again in (False, True):
        bag = DagBag(dag_folder=os.devnull, collect_dags=False)
        bag.process_file(os.path.abspath(os.environ["AIRFLOW_DAG_FILE"]), only_if_updated=False, safe_mode=False)
        faults = "\n".join(str(text) for text in bag.import_errors.values())
        if again or "no such table" not in faults:
            break
        make_tables()
    dag = bag.dags.get(os.environ["AIRFLOW_DAG"])
    if dag is None:
        print(faults or "there is no DAG {} in the file".format(os.environ["AIRFLOW_DAG"]), file=sys.stderr)
        raise SystemExit(2)
    return dag


def make_tables():
    """Airflow's tables in a database of its own, for classes that ask it as soon as they are made."""
    from airflow import models, settings
    from airflow.models.base import Base

    models.import_all_models()
    with contextlib.suppress(ImportError):
        importlib.import_module("airflow.providers.fab.auth_manager.models")
    Base.metadata.create_all(settings.engine)


def read_inputs():
    with open(os.environ["RM_INPUTS"], encoding="utf-8") as stream:
        return json.load(stream)


def unmapped(task, names, inputs):
    """The operator of one instance: of an item of an argument or of several, of a tuple of items (`x=zip`), or of an
    object of arguments (`*`)."""
    name, _, how = names.partition("=")
    if how == "zip":
        count = sum(1 for one in inputs if one.startswith("map_"))
        given = {name: tuple(inputs[f"map_{number}"] for number in range(count))}
    elif "," in names:
        given = {name: inputs[f"map_{name}"] for name in names.split(",")}
    else:
        given = inputs["map_item"] if names == "*" else {names: inputs["map_item"]}
    if hasattr(task, "python_callable"):
        given = {"op_kwargs": given}
    return task.unmap(given)


def current(context):
    """Airflow's `get_current_context()` answers with the context inside of this."""
    try:
        from airflow.sdk.execution_time.context import set_current_context
    except ImportError:
        from airflow.models.taskinstance import set_current_context
    return set_current_context(context)


def run(task, context, as_sensor):
    """Render and execute the operator, deferred parts included; returns what it returns."""
    unlock(task)
    task.render_template_fields(context)
    context["ti"].task = context["task"] = task
    if as_sensor:
        found = task.poke(context)
        return {"done": bool(found), "value": getattr(found, "xcom_value", None)}
    task.pre_execute(context)
    result = finish(task, context)
    task.post_execute(context, result)
    return result


def unlock(task):
    """Let `execute` be called from here, and let a task that skips others only say which; the portal skips them."""
    try:
        from airflow.sdk.bases.operator import ExecutorSafeguard
    except ImportError:
        try:
            from airflow.models.baseoperator import ExecutorSafeguard
        except ImportError:
            ExecutorSafeguard = None
    if ExecutorSafeguard is not None:
        ExecutorSafeguard.test_mode = True
    with contextlib.suppress(ImportError, AttributeError):
        # Results of mapped tasks, which Airflow 3 asks its supervisor for one by one, are all there.
        module = importlib.import_module("airflow.sdk.definitions.xcom_arg")
        module.LazyXComSequence = lambda xcom_arg, ti: ti.xcom_pull(xcom_arg.operator.task_id, key=xcom_arg.key)
    for name in ("skip", "skip_all_except"):
        if hasattr(task, name):
            object.__setattr__(task, name, lambda *_, **__: None)


def finish(task, context):
    """Call `execute`; where it defers, wait for the trigger and go on as it says."""
    method, arguments = task.execute, {}
    while True:
        try:
            return method(context, **arguments)
        except exception("TaskDeferred") as deferred:
            limit = deferred.timeout.total_seconds() if deferred.timeout else None
            event = asyncio.run(asyncio.wait_for(first_event(deferred.trigger), limit))
            method = getattr(task, deferred.method_name)
            arguments = {**(deferred.kwargs or {}), "event": event.payload}


def exception(name):
    """One of Airflow's exceptions, which have moved between its versions."""
    for module in ("airflow.sdk.exceptions", "airflow.exceptions"):
        with contextlib.suppress(ImportError, AttributeError):
            return getattr(importlib.import_module(module), name)
    raise ImportError(name)


async def first_event(trigger):
    async for event in trigger.run():
        return event
    raise RuntimeError("the trigger ended without an event")


class Instance:
    """`ti`: what operators and templates ask of the running task."""

    def __init__(self, task, run, pulled):
        self.task, self.dag_run = task, run
        self.task_id, self.dag_id, self.run_id = task.task_id, run.dag_id, run.run_id
        index = os.environ.get("RM_MAP_INDEX", "")
        self.map_index = int(index) if index else -1
        self.try_number = int(os.environ.get("RM_ATTEMPT", "1"))
        self.max_tries = int(getattr(task, "retries", 0) or 0)
        self.execution_date = self.logical_date = run.logical_date
        self.start_date = datetime.now(UTC)
        self.end_date = self.duration = None
        self.state = "running"
        self.operator = type(task).__name__
        self.hostname = os.uname().nodename
        self.log_url = self.mark_success_url = ""
        self.queue, self.pool, self.job_id = "default", "default_pool", os.environ.get("RM_JOB_ID")
        self.id = os.environ.get("RM_JOB_ID")
        self.rendered_map_index = None
        self.pulled, self.pushed = pulled, {}

    @property
    def log(self):
        return self.task.log

    def get_dagrun(self, *_, **__):
        return self.dag_run

    def render_templates(self, context=None, **_):
        self.task.render_template_fields(context or self.context)
        return self.task

    def get_template_context(self, *_, **__):
        return self.context

    def get_relevant_upstream_map_indexes(self, *_, **__):
        return None

    def xcom_push(self, key, value, *_, **__):
        if not key.startswith("skipmixin"):
            self.pushed[key] = value

    def xcom_pull(self, task_ids=None, dag_id=None, key="return_value", default=None, map_indexes=None, **_):
        """The result of a task, or a list of those of several; with a key, that part of it."""
        if dag_id not in (None, self.dag_id):
            raise LookupError(f"results of other DAGs ({dag_id}) are not there")
        if task_ids is None:
            task_ids = sorted(self.task.upstream_task_ids)
            task_ids = task_ids[0] if len(task_ids) == 1 else task_ids
        if not isinstance(task_ids, str):
            return [self.xcom_pull(name, key=key, default=default) for name in task_ids]
        if task_ids == self.task_id:
            return decoded(self.pushed.get(key, default))
        if task_ids not in self.pulled:
            raise LookupError(
                f"the result of {task_ids} is not among the inputs: add it to the argument xcom of this task"
            )
        found = self.pulled[task_ids]
        if isinstance(map_indexes, int) and isinstance(found, list):
            found = found[map_indexes]
        if isinstance(found, list) and key != "return_value":
            # Of a mapped task: that part of each of its results.
            return [decoded(item.get(key, default)) if isinstance(item, dict) else default for item in found]
        if isinstance(found, dict) and key in found:
            return decoded(found[key])
        if key == "return_value":
            return default if found is None else decoded(found)
        return default

    def result(self, returned, task):
        """The one result of a task here, of what it returned and pushed."""
        if getattr(task, "do_xcom_push", True) is False:
            returned = None
        pushed = {key: value for key, value in self.pushed.items() if key != "return_value"}
        returned = self.pushed.get("return_value", returned)
        if not pushed:
            return returned
        if returned is None:
            return pushed
        return {**(returned if isinstance(returned, dict) else {"return_value": returned}), **pushed}


class Facts:
    """An object of a few named values."""

    def __init__(self, **values):
        self.__dict__.update(values)

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        raise AttributeError(f"{name} is known to Airflow's scheduler only, which there is not here")


class Stored:
    """`var.value`, `var.json` and `conn`."""

    def __init__(self, get):
        self._get = get

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return self._get(name)

    __getitem__ = get = lambda self, name, default=None: self._get(name, default)


def make_context(dag, task, pulled):
    """Airflow's context, as far as there is such a thing here."""
    import pendulum
    from airflow import macros

    def moment(name):
        text = os.environ.get(name) or os.environ["RM_LOGICAL_TIME"]
        return pendulum.instance(datetime.fromisoformat(text)).in_timezone("UTC")

    names = ("LOGICAL_TIME", "DATA_INTERVAL_START", "DATA_INTERVAL_END")
    logical, start, end = (moment("RM_" + name) for name in names)
    conf = json.loads(os.environ.get("RM_PARAMS") or "{}")
    declared = getattr(task, "params", None)
    params = {**(declared.dump() if hasattr(declared, "dump") else dict(declared or {})), **conf}
    run = Facts(
        run_id=os.environ["RM_RUN_ID"], dag_id=dag.dag_id, conf=conf, logical_date=logical, execution_date=logical,
        data_interval_start=start, data_interval_end=end, run_type="manual", external_trigger=False, run_after=end,
        start_date=datetime.now(UTC), end_date=None, state="running", is_backfill=False, dag=dag, id=None,
        clear_number=0, queued_at=None, triggering_user_name=None, note=None,
    )
    instance = Instance(task, run, pulled)
    day = "%Y-%m-%d"
    shifted = {"yesterday": logical.subtract(days=1), "tomorrow": logical.add(days=1)}
    context = {
        "dag": dag, "task": task, "ti": instance, "task_instance": instance, "dag_run": run, "run_id": run.run_id,
        "conf": None, "params": params, "logical_date": logical, "execution_date": logical,
        "data_interval_start": start, "data_interval_end": end, "ds": logical.strftime(day),
        "ds_nodash": logical.strftime("%Y%m%d"), "ts": logical.isoformat(),
        "ts_nodash": logical.strftime("%Y%m%dT%H%M%S"),
        "ts_nodash_with_tz": logical.isoformat().replace("-", "").replace(":", ""), "macros": macros,
        "var": {"value": Stored(variable), "json": Stored(lambda *a: loaded(variable(*a)))}, "conn": Stored(connection),
        "task_instance_key_str": "{}__{}__{}".format(dag.dag_id, task.task_id, logical.strftime("%Y%m%d")),
        "test_mode": False, "templates_dict": None, "expanded_ti_count": None, "triggering_dataset_events": {},
        "triggering_asset_events": {}, "inlets": getattr(task, "inlets", []), "outlets": getattr(task, "outlets", []),
        "prev_data_interval_start_success": None, "prev_data_interval_end_success": None,
        "prev_start_date_success": None, "prev_end_date_success": None, "map_index_template": None,
        "exception": None, "task_reschedule_count": 0,
        **{name + "_ds": value.strftime(day) for name, value in shifted.items()},
        **{name + "_ds_nodash": value.strftime("%Y%m%d") for name, value in shifted.items()},
    }  # fmt: skip
    context["outlet_events"] = outlet_events(context)
    instance.context = as_context(context)
    return instance.context, instance


def as_context(values):
    """Airflow 2 wants an object of a class of its own."""
    try:
        from airflow.utils.context import Context

        return Context(values) if isinstance(Context, type) and Context.__mro__[1] is not dict else values
    except ImportError:
        return values


def outlet_events(context):
    """What a task may write to about its outlets; it is not kept."""
    try:
        from airflow.sdk.execution_time.context import OutletEventAccessors
    except ImportError:
        try:
            from airflow.utils.context import OutletEventAccessors
        except ImportError:
            return {}
    return OutletEventAccessors()


def variable(name, default=None):
    value = os.environ.get(stored("VARIABLE", name))
    if value is None and default is None:
        raise KeyError(f"there is no variable {name}: list it in the task's variables, and set it for the tenant")
    return default if value is None else value


def loaded(value):
    return json.loads(value) if isinstance(value, str) else value


def connection(name, default=None):
    try:
        from airflow.hooks.base import BaseHook
    except ImportError:
        from airflow.sdk.bases.hook import BaseHook
    return BaseHook.get_connection(name)


def encoded(value):
    """A value that is not JSON in Airflow's own written form. Raises TypeError where there is none."""
    from airflow.serialization.serde import serialize

    return serialize(value)


def decoded(value):
    """The value of such a written form, also inside lists and objects."""
    if isinstance(value, dict) and "__classname__" in value:
        from airflow.serialization.serde import deserialize

        return deserialize(value)
    if isinstance(value, dict):
        return {key: decoded(item) for key, item in value.items()}
    return [decoded(item) for item in value] if isinstance(value, list) else value


def write(result):
    """The result where the portal reads it; whole or not at all."""
    try:
        text = json.dumps(result, allow_nan=False)
    except (TypeError, ValueError):
        text = json.dumps(encoded(result))
    if len(text) > RESULT_BYTES:
        print(f"the result has {len(text)} bytes; at most {RESULT_BYTES} can be kept", file=sys.stderr)
        raise SystemExit(1)
    path = os.environ["RM_RESULT"]
    with open(path + ".new", "w", encoding="utf-8") as stream:
        stream.write(text)
    os.replace(path + ".new", path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] == ["--poke"]))
