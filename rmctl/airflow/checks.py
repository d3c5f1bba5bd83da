"""Whether a template written for Airflow renders here too, and what of XCom a text asks for."""

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from rmctl.render import Macros, Moment
from rmctl.spec.templates import MARK, templates_of, texts

from .findings import Unportable

# What the objects of a template have here (rmctl.render).
_INSTANCE = {"dag_id", "task_id", "run_id", "map_index", "try_number", "xcom_pull"}
_MOMENT = {name for name in dir(Moment) if not name.startswith("_")}
KNOWN: Mapping[str, Collection[str]] = {
    "ti": _INSTANCE,
    "task_instance": _INSTANCE,
    "dag": {"dag_id", "timezone"},
    "task": {"task_id"},
    "dag_run": {"run_id", "dag_id", "conf", "logical_date"},
    "macros": {name for name in dir(Macros) if not name.startswith("_")},
    **dict.fromkeys(("logical_date", "execution_date", "data_interval_start", "data_interval_end"), _MOMENT),
}
_PULL = re.compile(r"xcom_pull\(([^)]*)\)")
_TEXT = re.compile(r"""["']([\w.-]+)["']""")


def check_templates(task: Mapping[str, Any], before: Collection[str], params: Mapping[str, Any]) -> None:
    """Raises Unportable for a template that would not render here as it does in Airflow."""
    found = templates_of(task, task.get("env") or {})
    if found is None:
        return
    if found.faults:
        raise Unportable(f"its template: {found.faults[0]['message']}")
    for name in sorted(found.needs.results):
        if name not in before:
            raise Unportable(f"its template reads the result of {name}, which does not come before it")
    for name in sorted(found.needs.parameters):
        if name not in params:
            raise Unportable(f"its template reads params.{name}, which the DAG does not declare")
    literals = [argument["value"] for argument in (task.get("arguments") or {}).values() if "value" in argument]
    for text in texts([task.get("script"), *(task.get("env") or {}).values(), *literals]):
        for owner, name in _attributes(text):
            if owner in KNOWN and name not in KNOWN[owner]:
                raise Unportable(f"its template reads {owner}.{name}, which is not there here")


def _attributes(text: str) -> Iterator[tuple[str, str]]:
    from jinja2 import nodes
    from jinja2.sandbox import SandboxedEnvironment

    for node in SandboxedEnvironment().parse(text).find_all(nodes.Getattr):
        if isinstance(node.node, nodes.Name):
            yield node.node.name, node.attr


def is_template(value: Any) -> bool:
    """Whether a value has a text in it that Jinja would render."""
    return next(texts(value), None) is not None


def conf_names(value: Any) -> set[str]:
    """Names that templates read from `dag_run.conf`, which are parameters here."""
    found: set[str] = set()
    for text in texts(value):
        found.update(re.findall(r"""dag_run\.conf(?:\.get\(|\[)\s*["']([A-Za-z_]\w*)["']""", text))
    return found


def pulled(value: Any) -> set[str]:
    """Ids of tasks whose XCom a value refers to: as it is, in templates, or in lists and objects of them."""
    found: set[str] = set()
    if isinstance(value, Mapping):
        if "$xcom" in value:
            found.add(value["$xcom"])
        found.update(value.get("tasks", ()) if "$object" in value else ())
        for item in value.values():
            found |= pulled(item)
    elif isinstance(value, list):
        for item in value:
            found |= pulled(item)
    elif isinstance(value, str) and MARK.search(value):
        found |= pulled_in_text(value)
    return found


def pulled_in_text(text: str) -> set[str]:
    """Texts in the parentheses of calls of `xcom_pull`; ids of tasks are among them."""
    return {name for call in _PULL.findall(text) for name in _TEXT.findall(call)}


def stored_names(template: str) -> tuple[set[str], set[str]]:
    """Connections and variables that a template reads; none where it cannot be read here."""
    found = templates_of({"kind": "bash", "script": template}, {})
    if found is None:
        return set(), set()
    return set(found.needs.connections), set(found.needs.variables)
