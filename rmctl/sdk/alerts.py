"""`notify`, `on_failure` and their like, as the rules of a definition. Like dag.py it imports nothing heavy."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

# Options of DAGs and tasks that name the destinations of one occasion.
OCCASIONS = {f"on_{name}": name for name in ("failure", "success", "retry", "deadline", "approval")}


def read_alerts(where: str, options: "Mapping[str, Any]") -> "dict[str, Any]":
    """`{"notify": rules}` of the options `notify`, `on_failure`, …; empty when none is given. Raises SdkError."""
    from rmctl.sdk.options import SdkError

    rules = list(options.get("notify") or [])
    for option, occasion in OCCASIONS.items():
        to = options.get(option)
        if callable(to):
            raise SdkError(
                f"{where}: {option} names destinations such as ['oncall']; a function cannot run when the author's "
                "process is gone: make it a task with trigger_rule='one_failed' (docs/notifications.md)."
            )
        if to:
            rules.append({"on": [occasion], "to": [to] if isinstance(to, str) else list(to)})
    return {"notify": rules} if rules else {}


def read_dag_alerts(where: str, alerts: "Mapping[str, Any]", **times: "Any") -> "dict[str, Any]":
    """The same of a DAG, with its deadline and time limit as far as they are given. Raises SdkError."""
    from rmctl.sdk.airflow_names import OF_DAGS, told
    from rmctl.sdk.options import DAG_OPTIONS, SdkError

    for name in alerts:
        if name not in ("notify", *OCCASIONS):
            raise SdkError(f"{where}: {told(name, OF_DAGS, DAG_OPTIONS)}")
    return {name: value for name, value in times.items() if value is not None} | read_alerts(where, alerts)
