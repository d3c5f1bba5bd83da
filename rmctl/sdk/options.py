"""What an author may give to DAGs and tasks, under the names of a definition. Like dag.py it imports nothing heavy."""

from rmctl.sdk.airflow_names import OF_TASKS, told
from rmctl.sdk.alerts import OCCASIONS, read_alerts
from rmctl.sdk.caching import cache_fields

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import date
    from typing import Any

OPTIONS = (
    "resources", "env", "secrets", "labels", "retries", "time_limit", "intent", "priority", "on_preempt", "notice",
    "image", "count", "min_count", "trigger_rule", "map_limit", "map_index_template", "depends_on_past",
    "wait_for_downstream", "template", "variables", "connections", "outlets", "slots", "max_active",
    "max_active_per_run", "weight", "weight_rule", "cache", "state", "notify", "deadline", *OCCASIONS,
)  # fmt: skip
DAG_OPTIONS = (
    "description", "schedule", "datasets", "timezone", "catchup", "start_date", "end_date", "max_active_runs",
    "max_active_tasks", "max_active_tasks_all_runs", "weight_rule", "params", "defaults", "files", "bundle", "deadline",
    "time_limit", "notify", *OCCASIONS,
)  # fmt: skip


class SdkError(ValueError):
    """A DAG is written in a way that cannot work; the message names the task and what to do, `line` is where, if that
    is known."""

    def __init__(self, message: str, line: "int | None" = None) -> None:
        super().__init__(message)
        self.line = line


def read_schedule(schedule: "Any") -> "tuple[Any, Any]":
    """The times and the datasets of a schedule: a timedelta is a fixed interval, a list of datasets means all."""
    parts = list(schedule) if isinstance(schedule, list | tuple) else [schedule]
    waits = [part.expression() for part in parts if hasattr(part, "expression")]
    times = [_every(part) for part in parts if part is not None and not hasattr(part, "expression")]
    return times or None, None if not waits else waits[0] if len(waits) == 1 else {"all": waits}


def _every(part: "Any") -> "Any":
    return f"every {part.total_seconds():g}s" if hasattr(part, "total_seconds") else part


def read_date(given: "str | date | None") -> "str | None":
    return given if given is None or isinstance(given, str) else given.isoformat()


def read_options(where: str, options: "Mapping[str, Any]") -> "dict[str, Any]":
    """Options under their names of the definition; `retries=3` means `{"limit": 3}`. Raises SdkError."""
    fields = {}
    for name, value in options.items():
        if name not in OPTIONS:
            raise SdkError(f"{where}: {told(name, OF_TASKS, OPTIONS)}")
        if value is None or name == "notify" or name in OCCASIONS:
            continue
        if name == "outlets":
            value = [getattr(outlet, "uri", outlet) for outlet in value]
        if name == "cache":
            value = cache_fields(value)
        fields[name] = {"limit": value} if name == "retries" and isinstance(value, int) else value
    return fields | read_alerts(where, options)


def params_schema(params: "Mapping[str, Any]") -> "dict[str, Any]":
    """`{"limit": 5}` as JSON Schema; a value that is a schema already (it has a type) stays, and so does a schema of
    all parameters (an object with properties)."""
    if not params:
        return {}
    if params.get("type") == "object" and isinstance(params.get("properties"), dict):
        return dict(params)
    properties = {}
    for name, value in params.items():
        if isinstance(value, dict) and "type" in value:
            properties[name] = value
        else:
            properties[name] = {"type": _type_name(name, value), "default": value}
    return {"type": "object", "properties": properties}


def _type_name(name: str, value: object) -> str:
    if isinstance(value, bool):
        return "boolean"
    names = ((int, "integer"), (float, "number"), (str, "string"), (list, "array"), (dict, "object"))
    for kind, text in names:
        if isinstance(value, kind):
            return text
    raise SdkError(
        f'Parameter {name}: give a default value or a schema such as {{"type": "string"}}, not {value!r}.'
    )
