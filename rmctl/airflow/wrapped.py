"""Tasks that execute Airflow's operator itself, in an environment of the node that has Airflow and its provider.

The bundle has the DAG file, the modules that it imports, and `airflow_task.py`, which loads it there, takes the task by
its id and calls what Airflow would call.
"""

import ast
from collections.abc import Iterator, Mapping
from typing import Any

from rmctl.spec.templates import texts

from . import checks, waiting
from .dag import Dag, identifier
from .findings import NotCarried, Unportable
from .mapping import MAX_MAP, listed, pairs, product
from .schedule import holds_objects

RUNNER_FILE = "airflow_task.py"
DAGS_FOLDER = "dags"
SCRIPT = f'exec "$AIRFLOW_PYTHON" {RUNNER_FILE}'
# Operators that ask or change Airflow's own database, which is not there.
DATABASE = {"ExternalTaskSensor", "TriggerDagRunOperator", "SubDagOperator", "HITLOperator"}
# Airflow itself takes 100 to 250 MB; a task of the portal gets 128 MiB where it says nothing.
MEMORY = "512Mi"
ITEM, PULLED = "map_item", "xcom"


def wrapped(dag: Dag, task: Mapping[str, Any]) -> dict[str, Any]:
    """The task as one that executes the operator. Raises NotCarried."""
    found = sorted(DATABASE.intersection(task["bases"]))
    if found:
        raise NotCarried(f"{found[0]} works on Airflow's own database")
    group = task["group"]
    mapped_groups = {one["id"] for one in dag.facts["groups"] if one["mapped"]}
    parents = {one["id"]: one["parent"] for one in dag.facts["groups"]}
    while group is not None:
        if group in mapped_groups:
            raise NotCarried(f"the group {group} is mapped: groups cannot be expanded")
        group = parents.get(group)
    env = {} if identifier(task["id"]) == task["id"] else {"AIRFLOW_TASK": task["id"]}
    made: dict[str, Any] = {"kind": "bash", "script": SCRIPT, "resources": {"memory": MEMORY}}
    arguments = _inputs(dag, task)
    if "map" in task:
        env["AIRFLOW_MAP"], made["map"] = _map(dag, task)
    connections, variables = needs(dag, task)
    made |= {"connections": connections} if connections else {}
    made |= {"variables": variables} if variables else {}
    if task["branches"] or "_BranchPythonDecoratedOperator" in task["bases"]:
        made["decides"] = "branch"
    elif "ShortCircuitOperator" in task["bases"]:
        made["decides"] = "short_circuit"
        if task["arguments"].get("ignore_downstream_trigger_rules") is False:
            made["ignore_downstream_trigger_rules"] = False
    elif "SkipMixin" in task["bases"] and "BaseSensorOperator" not in task["bases"]:
        dag.note("changed", f"{task['type']}: tasks that it would skip by itself are not skipped", task["id"])
    if "map" in task and "decides" in made:
        raise NotCarried("a mapped task that decides the way")
    if "BaseSensorOperator" in task["bases"] and task["pokes"]:
        del made["script"]
        made |= {"kind": "python", "file": RUNNER_FILE, "function": "poke", "poke": waiting.poke(dag, task)}
    if arguments:
        made["arguments"] = arguments
    return {**made, **({"env": env} if env else {})}


def _inputs(dag: Dag, task: Mapping[str, Any]) -> dict[str, Any]:
    """What the task may pull: results of what is directly before it, and of what it names.

    They come by templates, which add no edge to the graph.
    """
    before = dag.before(task["id"])
    named = checks.pulled([task["arguments"], task.get("map")]) | _texts_of(dag, task)
    for name in sorted(checks.pulled(task["arguments"]) - before):
        if name in dag.tasks:
            dag.note("lost", f"it pulls the result of {name}, which does not come before it, and gets none", task["id"])
    wanted = sorted({*task["upstream"], *(named & before)})
    readable = [name for name in wanted if dag.tasks[name]["type"] not in ("EmptyOperator", "DummyOperator")]
    arguments: dict[str, Any] = {}
    if readable:
        # One text with the results of all, as JSON.
        inner = ", ".join(f'"{name}": ti.xcom_pull(task_ids="{identifier(name)}")' for name in readable)
        arguments[PULLED] = {"value": f"{{{{ {{{inner}}} | tojson }}}}"}
    return arguments


def _texts_of(dag: Dag, task: Mapping[str, Any]) -> set[str]:
    """Texts in the task's function: the ids that it gives to `xcom_pull` are among them."""
    node = _function(dag, task)
    if node is None:
        return set()
    return {inner.value for inner in ast.walk(node) if isinstance(inner, ast.Constant) and isinstance(inner.value, str)}


def _function(dag: Dag, task: Mapping[str, Any]) -> ast.AST | None:
    function = task["arguments"].get("python_callable")
    if not isinstance(function, Mapping) or function.get("file") != dag.path:
        return None
    if "<lambda>" in function["$callable"]:
        found = (node for node in ast.walk(dag.module.tree) if isinstance(node, ast.Lambda))
        return next((node for node in found if node.lineno == function["line"]), None)
    return dag.module.functions.get(function["line"])


def _map(dag: Dag, task: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """What airflow_task.py is told of an instance, and the `map`. Raises NotCarried.

    It is told the argument that an item is, `*` where an item is an object of arguments, several arguments with commas
    between, each of which comes by itself, or one argument and `=zip` where that is a tuple of what comes by itself.
    """
    mapping = task["map"]
    value = mapping["value"]
    try:
        if mapping["kind"] == "objects":
            return "*", {"over": {ITEM: listed(ITEM, pairs(value))}, "limit": MAX_MAP}
        if len(value) == 1:
            [(name, only)] = value.items()
            if isinstance(only, Mapping) and "$zip" in only:
                return f"{name}=zip", _zip(dag, task["id"], only)
            return name, {"over": {ITEM: listed(ITEM, pairs(only))}, "limit": MAX_MAP}
        return ",".join(value), product({f"map_{name}": pairs(items) for name, items in value.items()})
    except Unportable as error:
        raise NotCarried(str(error)) from None


def _zip(dag: Dag, task: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The `map` of results that are zipped. Raises Unportable."""
    lists = {f"map_{number}": listed("zip", value) for number, value in enumerate(given["$zip"])}
    if "fill" not in given:
        dag.note("changed", "zip(): results of different lengths fail the task, Airflow leaves out the rest", task)
        return {"zip": lists, "limit": MAX_MAP}
    if holds_objects(given["fill"]):
        raise Unportable("what fills up shorter lists is not JSON")
    return {"zip": lists, "fill": given["fill"], "limit": MAX_MAP}


def needs(dag: Dag, task: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Connections and variables that the task asks for, as far as its arguments, templates and code name them."""
    connections = {
        value for name, value in task["arguments"].items() if name.endswith("conn_id") and isinstance(value, str)
    }
    variables: set[str] = set()
    for text in texts(_plain_texts(task["arguments"])):
        found = checks.stored_names(text)
        connections |= found[0]
        variables |= found[1]
    for kind, name, optional in _calls(dag, task):
        if not optional:
            (connections if kind == "connection" else variables).add(name)
        else:
            dag.note(
                "changed", f"the variable {name} has its default: list it in variables of the task once it is set",
                task["id"],
            )  # fmt: skip
    connections = {name for name in connections if not checks.is_template(name)}
    for kind, names in (("connection", connections), ("variable", variables)):
        for name in sorted(names):
            dag.note("needed", f"the {kind} {name}: rmctl {kind} set {name} …", task["id"])
    return sorted(connections), sorted(variables)


def _plain_texts(value: Any) -> Any:
    return value if not isinstance(value, Mapping) else [_plain_texts(item) for item in value.values()]


def _calls(dag: Dag, task: Mapping[str, Any]) -> Iterator[tuple[str, str, bool]]:
    """`Variable.get("x")`, `BaseHook.get_connection("x")` and `…conn_id="x"` in the function of the task, and what of
    it stands outside of functions and so runs when the file is loaded."""
    bodies: list[ast.AST] = [part for node in dag.module.functions.values() for part in node.body]
    bodies += [node.body for node in ast.walk(dag.module.tree) if isinstance(node, ast.Lambda)]
    inside = {id(inner) for body in bodies for inner in ast.walk(body)}
    function = _function(dag, task)
    nodes = [node for node in ast.walk(dag.module.tree) if id(node) not in inside]
    nodes += list(ast.walk(function)) if function is not None else []
    for node in nodes:
        if not isinstance(node, ast.Call):
            continue
        first = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else None
        if isinstance(node.func, ast.Attribute) and isinstance(first, str):
            owner = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
            if owner == "Variable" and node.func.attr == "get":
                defaults = {"default_var", "default"}.intersection(word.arg or "" for word in node.keywords)
                yield "variable", first, bool(defaults) or len(node.args) > 1
            if node.func.attr == "get_connection" or (owner == "Connection" and node.func.attr == "get"):
                yield "connection", first, False
        if function is not None and id(node) in inside:
            for word in node.keywords:
                if (word.arg or "").endswith("conn_id") and isinstance(word.value, ast.Constant):
                    yield "connection", str(word.value.value), False
