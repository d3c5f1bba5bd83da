"""JSON Schemas for editors: of workflows as people write them in YAML, and of jobs.

They accept whatever the parser accepts, and refuse what a schema can: unknown fields, wrong types, missing fields. What
lies between fields (edges, cycles, templates) is for `rmctl push --check`.
"""

from copy import deepcopy
from functools import cache
from typing import Any

from .descriptions import DESCRIPTIONS
from .job import JobSpec, job_schema
from .kinds import NEEDED, OPTIONAL
from .workflow import WorkflowSpec, workflow_schema

DIALECT = "https://json-schema.org/draft/2020-12/schema"
# In YAML a task may say its kind by one of these fields alone, see rmctl/sdk/yaml_loader.py.
SAID_BY = {"script": "bash", "function": "python"} | {
    kind: kind
    for kind in ("wait_until", "wait_for", "wait_for_run", "wait_for_dataset", "trigger_run", "approval", "service")
}


@cache
def schema(name: str) -> dict[str, Any]:
    """The schema `workflow` or `job`; shared, not to be changed. Raises KeyError for any other."""
    made = {"workflow": _workflow, "job": _job}[name]()
    return {"$schema": DIALECT, **made}


def _job() -> dict[str, Any]:
    made = deepcopy(job_schema())
    _describe(made, JobSpec.__name__)
    return {**made, "title": "RMPortal job"}


def _workflow() -> dict[str, Any]:
    made = deepcopy(workflow_schema())
    parts = made["$defs"]
    made["properties"] |= {
        "files": {"type": "array", "items": {"type": "string"}},
        "tasks": _list_or_mapping(made["properties"]["tasks"], "TaskSpec"),
        "groups": _list_or_mapping(made["properties"]["groups"], "TaskGroupSpec"),
    }
    parts["TaskGroupSpec"]["properties"]["upstream"] = parts["TaskSpec"]["properties"]["upstream"].copy()
    _kinds(parts["TaskSpec"])
    _describe(made, WorkflowSpec.__name__)
    for name in ("TaskSpec", "TaskGroupSpec"):
        # The same with the id as the key of the mapping.
        without = deepcopy(parts[name])
        without["required"] = [field for field in without.get("required", ()) if field != "id"]
        parts[f"{name}WithoutId"] = without
    return {**made, "title": "RMPortal workflow"}


def _list_or_mapping(plain: dict[str, Any], part: str) -> dict[str, Any]:
    """A list of parts, or a mapping id → part; an entry of the mapping may be empty."""
    entry = {"anyOf": [{"$ref": f"#/$defs/{part}WithoutId"}, {"type": "null"}]}
    mapping = {"type": "object", "additionalProperties": entry, "minProperties": plain.get("minItems", 0)}
    return {"anyOf": [plain, mapping]}


def _kinds(task: dict[str, Any]) -> None:
    """The short forms, and which fields belong to which kind."""
    fields = task["properties"]
    fields["wait_until"] = {"anyOf": [{"type": "string"}, {"$ref": "#/$defs/Argument"}]}
    fields["wait_for"] = {"anyOf": [*fields["time_limit"]["anyOf"], {"$ref": "#/$defs/Argument"}]}
    task["required"] = [field for field in task["required"] if field != "kind"]
    task["anyOf"] = [{"required": ["kind"]}, *({"required": [field]} for field in SAID_BY)]
    own = {field for table in (NEEDED, OPTIONAL) for names in table.values() for field in names}
    rules = []
    for kind, needed in NEEDED.items():
        foreign = sorted(own - {*needed, *OPTIONAL.get(kind, ())})
        rules.append(
            {
                "if": {"properties": {"kind": {"const": kind}}, "required": ["kind"]},
                "then": {"required": list(needed), "properties": {field: {"type": "null"} for field in foreign}},
            }
        )
    task["allOf"] = rules


def _describe(made: dict[str, Any], top: str) -> None:
    """Give every field its description, and take away the titles that only repeat names."""
    for name, part in ((top, made), *made["$defs"].items()):
        known = DESCRIPTIONS.get(name, {})
        for field, given in part.get("properties", {}).items():
            given.pop("title", None)
            if "description" not in given and field in known:
                given["description"] = known[field]
