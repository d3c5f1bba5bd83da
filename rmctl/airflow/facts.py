"""What Airflow's own parser says about DAG files, as JSON. Runs with the Python of an environment that has Airflow.

    python facts.py OUTPUT ROOT FILE…

ROOT is the folder that the author's modules are imported from besides that of each file; empty for none.

Standard library and Airflow only: nothing of RMPortal is installed there. Written for Python 3.8 and newer, Airflow 2.x
and 3.x. Values that are not JSON are objects with one key that begins with `$`: `$seconds`, `$time`, `$xcom`,
`$zip`, `$callable`, `$asset`, `$object` (its repr; it cannot be carried as data).
"""

import ast
import contextlib
import datetime
import importlib
import inspect
import json
import os
import sys

MAX_DEPTH = 20
# Larger files beside a DAG file are no templates.
MAX_DATA = 2**20
# Arguments that say where a task stands, which are read as such and not as arguments of the operator.
STRUCTURE = {"self", "args", "kwargs", "dag", "task_group", "task_id", "default_args", "map_index_template"}
COMMON = (
    "retries", "retry_delay", "retry_exponential_backoff", "max_retry_delay", "execution_timeout", "depends_on_past",
    "wait_for_downstream", "ignore_first_depends_on_past", "pool", "pool_slots", "priority_weight", "queue",
    "run_as_user", "executor_config", "executor", "max_active_tis_per_dag", "max_active_tis_per_dagrun", "sla", "email",
    "email_on_failure", "email_on_retry", "owner", "doc", "doc_md", "doc_json", "doc_yaml", "doc_rst",
    "task_display_name", "is_setup", "is_teardown", "on_failure_fail_dagrun", "outlets", "inlets", "start_date",
    "end_date", "multiple_outputs", "do_xcom_push", "deferrable", "resources", "start_from_trigger",
)  # fmt: skip
CALLBACKS = (
    "on_failure_callback", "on_success_callback", "on_retry_callback", "on_execute_callback", "on_skipped_callback",
    "sla_miss_callback",
)  # fmt: skip


def main(arguments):
    """Read the files and write the facts."""
    output, root, files = arguments[0], arguments[1], arguments[2:]
    # Python puts the folder of a script first: no module beside this one stands in for one of Airflow's packages.
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path = [folder for folder in sys.path if os.path.abspath(folder or ".") != here]
    import airflow

    make_tables()
    reader = Reader(os.path.abspath(root) if root else None)
    facts = {
        "airflow": airflow.__version__,
        "python": ".".join(str(part) for part in sys.version_info[:2]),
        "root": reader.root,
        "files": [reader.file(os.path.abspath(name)) for name in files],
    }
    facts["sources"] = reader.sources
    with open(output, "w", encoding="utf-8") as stream:
        json.dump(facts, stream)


def make_tables():
    """Airflow's tables in its database, which some of its classes ask as soon as they are made; it is a new one."""
    from airflow import models, settings
    from airflow.models.base import Base

    models.import_all_models()
    with contextlib.suppress(ImportError):
        # Where users are kept by this provider, a table of Airflow's own refers to theirs.
        importlib.import_module("airflow.providers.fab.auth_manager.models")
    Base.metadata.create_all(settings.engine)


def dag_bag():
    """An empty bag of DAGs."""
    try:
        from airflow.dag_processing.dagbag import DagBag
    except ImportError:
        from airflow.models.dagbag import DagBag
    return DagBag(dag_folder=os.devnull, collect_dags=False)


class Reader:
    """Reads files one after the other and keeps the text of every module of the author that they use."""

    def __init__(self, root):
        self.root, self.sources = root, {}
        if root:
            sys.path.insert(0, root)

    def file(self, path):
        """The DAGs of one file, or why there are none."""
        folder = os.path.dirname(path)
        before = set(sys.modules)
        sys.path.insert(0, folder)
        self.keep(path)
        found = {"file": path, "error": None, "dags": []}
        try:
            bag = dag_bag()
            bag.process_file(path, only_if_updated=False, safe_mode=False)
            if bag.import_errors:
                found["error"] = "\n".join(str(text).rstrip() for text in bag.import_errors.values())
            for dag in sorted(bag.dags.values(), key=lambda dag: dag.dag_id):
                if not getattr(dag, "is_subdag", False):
                    found["dags"].append(self.dag(dag))
        except (Exception, SystemExit) as error:
            found["error"] = f"{type(error).__name__}: {error}"
        finally:
            sys.path.remove(folder)
        found["modules"] = self.modules(folder, path, before)
        found["data"] = self.data(folder, path)
        return found

    def modules(self, folder, path, before):
        """Modules of the author that the file imported, as paths; they are forgotten for the next file."""
        names = []
        folders = tuple(one + os.sep for one in (folder, self.root) if one)
        for name in sorted(set(sys.modules) - before):
            source = getattr(sys.modules[name], "__file__", None) or ""
            if source.startswith(folders) and source.endswith(".py") and "site-packages" not in source:
                if source != path and self.keep(source):
                    names.append(source)
                del sys.modules[name]
        return names

    def data(self, folder, path):
        """Texts in the file that name other files in its folder, such as templates of SQL: paths, by that text."""
        named = {}
        try:
            tree = ast.parse(self.sources.get(path, ""))
        except SyntaxError:
            return named
        for node in ast.walk(tree):
            value = getattr(node, "value", None) if isinstance(node, ast.Constant) else None
            if isinstance(value, str) and 0 < len(value) < 200 and not value.startswith("/") and "\0" not in value:
                other = os.path.normpath(os.path.join(folder, value))
                inside = other.startswith(folder + os.sep) and other != path
                if inside and os.path.isfile(other) and os.path.getsize(other) <= MAX_DATA and self.keep(other):
                    named[os.path.relpath(other, folder)] = other
        return named

    def keep(self, path):
        """Keep the text of a file; says whether it could be read."""
        if path not in self.sources:
            try:
                with open(path, encoding="utf-8") as stream:
                    self.sources[path] = stream.read()
            except (OSError, UnicodeDecodeError):
                return False
        return True

    def dag(self, dag):
        """Everything about a DAG that has a meaning when it runs."""
        facts = {"id": dag.dag_id}
        for name in (
            "description", "doc_md", "catchup", "max_active_runs", "max_active_tasks", "dagrun_timeout", "fail_stop",
            "fail_fast", "start_date", "end_date", "is_paused_upon_creation", "render_template_as_native_obj",
            "access_control", "dag_display_name",
        ):  # fmt: skip
            facts[name] = self.plain(getattr(dag, name, None))
        facts["tags"] = sorted(getattr(dag, "tags", None) or ())
        facts["timezone"] = str(getattr(dag.timezone, "name", dag.timezone))
        facts["owner_macros"] = sorted(
            [*(getattr(dag, "user_defined_macros", None) or ()), *(getattr(dag, "user_defined_filters", None) or ())]
        )
        facts["callbacks"] = [name for name in CALLBACKS if getattr(dag, name, None)]
        facts["deadlines"] = [
            {"reference": type(alert.reference).__name__, "seconds": seconds_of(alert.interval)}
            for alert in listed(getattr(dag, "deadline", None))
        ]
        facts["schedule"] = self.schedule(dag)
        facts["params"] = {name: self.param(dag.params, name) for name in dag.params}
        facts["groups"] = self.groups(dag)
        facts["tasks"] = [self.task(dag, task) for task in in_order(dag.task_dict)]
        return facts

    def schedule(self, dag):
        """The timetable in Airflow's serialised form: its class, its fields, and the condition over assets."""
        table = dag.timetable
        try:
            if hasattr(table, "serialize"):
                fields = table.serialize()
            else:
                from airflow.serialization.encoders import encode_timetable

                fields = encode_timetable(table)["__var"]
        except Exception:
            # One of the author's own, which nobody but Airflow could read anyway.
            fields = {}
        return {"type": type(table).__name__, "fields": self.plain(unwrapped(fields))}

    def param(self, params, name):
        param = params.get_param(name) if hasattr(params, "get_param") else None
        if param is None:
            return {"value": self.plain(params[name])}
        value = getattr(param, "value", None)
        known = type(value).__name__ not in ("ArgNotSet", "NOTSET")
        found = {"schema": self.plain(dict(getattr(param, "schema", None) or {}))}
        if known:
            found["value"] = self.plain(value)
        if getattr(param, "description", None):
            found["description"] = param.description
        return found

    def groups(self, dag):
        root = dag.task_group
        found, waiting = [], list(root.children.values())
        while waiting:
            node = waiting.pop(0)
            if not hasattr(node, "children"):
                continue
            parent = getattr(node, "task_group", None) or getattr(node, "parent_group", None)
            found.append(
                {
                    "id": node.group_id,
                    "parent": parent.group_id if parent is not None and parent.group_id else None,
                    "tooltip": node.tooltip or "",
                    "mapped": type(node).__name__ == "MappedTaskGroup",
                }
            )
            waiting += node.children.values()
        return found

    def task(self, dag, task):
        """A task: what it is, its arguments, and what Airflow lets one say about any task."""
        mapped = hasattr(task, "partial_kwargs")
        kind = task.operator_class if mapped else type(task)
        group = getattr(task, "task_group", None)
        facts = {
            "id": task.task_id,
            "type": kind.__name__,
            "module": kind.__module__,
            "bases": [base.__name__ for base in kind.__mro__],
            "upstream": sorted(task.upstream_task_ids),
            "trigger_rule": str(getattr(task.trigger_rule, "value", task.trigger_rule)),
            "group": group.group_id if group is not None and group.group_id else None,
            "weight_rule": rule_name(getattr(task, "weight_rule", "downstream")),
            "callbacks": [name for name in CALLBACKS if getattr(task, name, None)],
            "hooked": bool(getattr(task, "_pre_execute_hook", None) or getattr(task, "_post_execute_hook", None)),
            "pokes": own_method(kind, "poke"),
            "branches": any(base.__name__ in ("BranchMixIn", "BaseBranchOperator") for base in kind.__mro__),
            "templated": sorted(getattr(kind, "template_fields", ()) or ()),
        }
        facts["common"] = {name: self.plain(getattr(task, name, None)) for name in COMMON}
        own = getattr(task, "params", None) or {}
        facts["params"] = sorted(
            name for name in own if name not in dag.params or self.value(own, name) != self.value(dag.params, name)
        )
        if mapped:
            facts["map"] = self.mapping(task)
            template = getattr(task, "map_index_template", None)
            if template:
                facts["map"]["label"] = self.plain(template)
            facts["arguments"] = {
                name: self.plain(value) for name, value in task.partial_kwargs.items() if name not in STRUCTURE
            }
            if hasattr(task, "python_callable"):
                facts["arguments"]["python_callable"] = self.plain(task.python_callable)
        else:
            facts["arguments"] = self.arguments(task, kind)
        return facts

    @staticmethod
    def value(params, name):
        try:
            return params[name]
        except Exception:
            return None

    def mapping(self, task):
        """How a mapped task is expanded: over lists by argument, or over a list of arguments."""
        given = task._get_specified_expand_input()
        value = given.value
        if isinstance(value, dict):
            return {"kind": "lists", "value": {name: self.plain(item) for name, item in value.items()}}
        return {"kind": "objects", "value": self.plain(value)}

    def arguments(self, task, kind):
        """The arguments of the operator's own classes, below Airflow's base, as the task has them now."""
        found = {}
        for base in kind.__mro__:
            if base.__name__ in ("BaseOperator", "AbstractOperator", "object"):
                break
            made = base.__dict__.get("__init__")
            if made is None:
                continue
            for name in inspect.signature(inspect.unwrap(made)).parameters:
                if name not in STRUCTURE and name not in found and name in vars(task):
                    found[name] = self.plain(getattr(task, name))
        return found

    def plain(self, value, depth=0):
        """A value as JSON; see the top of this file."""
        if value is None or isinstance(value, (bool, int)):
            return value
        if isinstance(value, float):
            return value if value == value and abs(value) != float("inf") else {"$object": repr(value)}
        if isinstance(value, str):
            return str(value.value) if hasattr(value, "value") and not isinstance(value.value, str) else str(value)
        if depth > MAX_DEPTH:
            return {"$object": "nested too deeply"}
        if isinstance(value, datetime.timedelta):
            return {"$seconds": value.total_seconds()}
        if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
            return {"$time": value.isoformat()}
        if isinstance(value, dict) or (hasattr(value, "keys") and hasattr(value, "__getitem__")):
            return {str(key): self.plain(value[key], depth + 1) for key in value}
        if isinstance(value, (list, tuple)):
            return [self.plain(item, depth + 1) for item in value]
        return self.special(value)

    def special(self, value):
        name = type(value).__name__
        if name == "PlainXComArg":
            return {"$xcom": value.operator.task_id, "key": value.key}
        if name == "ZipXComArg":
            fill = getattr(value, "fillvalue", None)
            known = type(fill).__name__ not in ("ArgNotSet", "NOTSET")
            return {"$zip": [self.plain(one) for one in value.args], **({"fill": self.plain(fill)} if known else {})}
        if hasattr(value, "iter_references"):
            return {"$object": name, "tasks": sorted({ref[0].task_id for ref in value.iter_references()})}
        if hasattr(value, "uri") and hasattr(value, "extra"):
            return {"$asset": value.uri}
        if callable(value):
            return self.function(value)
        return {"$object": f"{type(value).__module__}.{name}"}

    def function(self, value):
        """A function: where it stands and what it would need that is not in a module."""
        code = getattr(value, "__code__", None)
        if code is None:
            return {"$object": "callable " + type(value).__name__}
        # Of Airflow's own functions, such as defaults of arguments, the name is enough.
        installed = code.co_filename.startswith((sys.prefix + os.sep, sys.base_prefix + os.sep))
        own = code.co_filename in self.sources or (not installed and self.keep(code.co_filename))
        return {
            "$callable": value.__qualname__,
            "file": code.co_filename if own else "",
            "line": code.co_firstlineno,
            "free": list(code.co_freevars),
            "decorated": hasattr(value, "__wrapped__"),
        }


def listed(value):
    """One thing or several, as a list."""
    return [] if value is None else list(value) if isinstance(value, (list, tuple)) else [value]


def seconds_of(interval):
    """A fixed time; None for one that is known only when it is asked for."""
    return interval.total_seconds() if isinstance(interval, datetime.timedelta) else None


def rule_name(rule):
    """The weight rule: the name of a rule of Airflow before 2.9, or the class of one since."""
    return str(getattr(rule, "value", rule)) if isinstance(rule, str) else type(rule).__name__


def in_order(tasks):
    """The tasks, each behind those that it waits for, and else by id."""
    left = {name: set(task.upstream_task_ids) for name, task in tasks.items()}
    while left:
        ready = sorted(name for name, waits in left.items() if not waits & left.keys())
        for name in ready:
            yield tasks[name]
            del left[name]


def own_method(kind, name):
    """Whether a class below Airflow's base of sensors defines the method."""
    owners = [base.__name__ for base in kind.__mro__ if name in base.__dict__]
    return bool(owners) and owners[0] != "BaseSensorOperator"


def unwrapped(value):
    """Airflow's serialised values without their tags where the tag only says `dict` or `list`."""
    if isinstance(value, dict) and set(value) == {"__type", "__var"}:
        kind = str(value["__type"])
        if kind in ("dict", "list", "tuple", "set"):
            return unwrapped(value["__var"])
        if kind == "timedelta":
            return datetime.timedelta(seconds=value["__var"])
        return {"type": kind.rsplit(".", 1)[-1], "value": unwrapped(value["__var"])}
    if isinstance(value, dict):
        return {key: unwrapped(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [unwrapped(item) for item in value]
    return value


if __name__ == "__main__":
    main(sys.argv[1:])
