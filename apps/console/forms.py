"""The form of a job and that of a workflow's parameters, as data."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from apps.core.errors import DomainError, FieldError, Invalid

from . import group_fields, placement_fields
from .fields import Field, Form, Reader, owner, several

__all__ = [
    "JOB_PATHS", "Field", "Form", "JobForm", "Reader", "bounds_text", "job_data", "job_form", "job_paths", "job_values",
    "owner", "params_data", "params_form", "params_paths", "several",
]  # fmt: skip

# Form field → where the command names it; a longer path that begins with it belongs to it too.
JOB_PATHS = {
    **group_fields.paths(0),
    "name": "name",
    "tenant": "tenant",
    "pool": "intent.pool",
    "labels": "intent.require.labels",
    "gpu_compute": "intent.require.gpu_compute",
    "max_price": "intent.require.max_price",
    "architectures": "intent.require.architectures",
    "together": "intent.together.levels",
    "placement": "intent.placement",
    **placement_fields.PATHS,
    "priority": "priority",
    "time_limit": "time_limit",
    "on_preempt": "on_preempt",
    "notice": "notice",
    "retries": "retries.limit",
}


@dataclass(slots=True)
class JobForm(Form):
    """The fields of a job and of all its groups by name, and the same by group."""

    groups: list[group_fields.Group] = field(default_factory=list)

    def fill(self, values: Mapping[str, Any]) -> None:
        """Take over what was typed."""
        Form.fill(self, values)
        for group in self.groups:
            group.kind = "command" if values.get(f"{group.prefix}kind") == "command" else "script"

    def refuse(self, error: DomainError, paths: Mapping[str, str]) -> None:
        """Put each fault beside its field; what is wrong with a group as such stands at what it runs."""
        kinds = {group.path: group.kind for group in self.groups}
        for fault in error.errors:
            if (kind := kinds.get(fault["field"])) is not None:
                fault["field"] += ".min_count" if fault["code"] == "minimum_above_count" else f".{kind}"
        Form.refuse(self, error, paths)


def job_paths(groups: int) -> dict[str, str]:
    """JOB_PATHS with the fields of further groups."""
    paths = dict(JOB_PATHS)
    for place in range(1, groups):
        paths |= group_fields.paths(place)
    return paths


def job_form(tenants: Sequence[tuple[str, str]], pools: Sequence[str], groups: int = 1) -> JobForm:
    """The empty form of a job."""
    made = [group_fields.group(place) for place in range(groups)]
    fields = [
        Field("name", "Name", value="", placeholder="train-resnet"),
        Field("tenant", "Tenant", "select", choices=tenants),
        Field(
            "gpu_compute",
            "Capability",
            optional=True,
            mono=True,
            placeholder="8.0",
            help="The least compute capability of a card.",
        ),
        Field("pool", "Pool", "select", choices=[("", "The default"), *((name, name) for name in pools)]),
        Field("placement", "Placement", "select", choices=[("pack", "Pack"), ("spread", "Spread")], value="pack"),
        Field(
            "labels",
            "Required node labels",
            "textarea",
            optional=True,
            mono=True,
            rows=3,
            placeholder="zone=a,b\ndisk=ssd",
            help="One a line; several values mean any of them.",
        ),
        Field(
            "architectures",
            "Architectures",
            optional=True,
            mono=True,
            placeholder="x86_64, aarch64",
            help="Any of them.",
        ),
        Field(
            "max_price",
            "Highest price",
            optional=True,
            mono=True,
            placeholder="2.50",
            help="What an hour of one member may cost.",
        ),
        Field(
            "together",
            "One domain",
            optional=True,
            mono=True,
            placeholder="rack",
            help="A node label; all members get nodes with one value of it.",
        ),
        *placement_fields.fields(),
        Field("priority", "Priority", value="0", mono=True, help="Higher goes first."),
        Field("time_limit", "Time limit", value="1h", mono=True, help="Such as 90s, 30m, 2h."),
        Field(
            "on_preempt", "When evicted", "select", value="requeue",
            choices=[("requeue", "Wait again in its place"), ("fail", "Fail")],
        ),
        Field("notice", "Notice", value="10s", mono=True, help="From SIGTERM to SIGKILL when evicted, to save work."),
        Field("retries", "Retries", value="0", mono=True, help="After a failure, with growing pauses."),
    ]
    fields += [item for group in made for item in group.fields.values()]
    return JobForm({item.name: item for item in fields}, groups=made)


def job_data(values: Mapping[str, str]) -> dict[str, Any]:
    """A job spec from what was typed. Raises Invalid for lines that cannot be read."""
    errors: list[FieldError] = []
    count = group_fields.count_of(values)
    read = Reader(values, errors, job_paths(count))
    groups = [group_fields.read(read, place) for place in range(count)]
    names = [group.get("name") for group in groups]
    for place, name in enumerate(names):
        if name is not None and name in names[:place]:
            read.fault(f"{group_fields.prefix(place)}group", f"Another group is called {name}, too.")
    labels = {key: [part.strip() for part in value.split(",")] for key, value in read.pairs("labels").items()}
    require: dict[str, Any] = {"labels": labels, **read.present(gpu_compute=read.text("gpu_compute"))}
    if read.text("architectures"):
        require["architectures"] = read.listed("architectures")
    if read.text("max_price"):
        require["max_price"] = read.number("max_price")
    level = read.text("together")
    demands, wishes, job_labels = placement_fields.read(read)
    data = {
        "groups": groups,
        **({"labels": job_labels} if job_labels else {}),
        "intent": {
            "require": {**require, **demands},
            **wishes,
            **({"together": {"levels": [level]}} if level else {}),
            **read.present(pool=read.text("pool"), placement=read.text("placement")),
        },
        "priority": read.integer("priority", 0),
        "retries": {"limit": read.integer("retries", 0)},
        **read.present(
            name=read.text("name"),
            time_limit=read.text("time_limit"),
            on_preempt=read.text("on_preempt"),
            notice=read.text("notice"),
        ),
    }
    if errors:
        raise Invalid(errors[0]["message"], errors=errors)
    return data


def _shared_level(together: Mapping[str, Any]) -> str:
    """The label whose value all members share; empty where they need not."""
    if together.get("constraint") != "required":
        return ""
    return str(together["level"] or together["levels"][-1])


def job_values(spec: Mapping[str, Any]) -> dict[str, str]:
    """A normalised spec as the form shows it, so that a job can be submitted again with changes."""
    intent, groups = spec["intent"], spec["groups"]
    require, price = intent["require"], intent["require"].get("max_price")
    typed: dict[str, str] = {}
    for place, group in enumerate(groups):
        typed |= group_fields.values(group, place)
    return {
        **typed,
        "groups": str(len(groups)),
        "name": spec["name"],
        "gpu_compute": require.get("gpu_compute") or "",
        "architectures": ", ".join(require.get("architectures") or []),
        "max_price": "" if price is None else f"{price:.6f}".rstrip("0").rstrip("."),
        "together": _shared_level(intent.get("together") or {}),
        "pool": intent.get("pool") or "",
        "placement": intent.get("placement") or "pack",
        "labels": "\n".join(f"{key}={','.join(values)}" for key, values in intent["require"]["labels"].items()),
        **placement_fields.values(spec),
        "priority": str(spec["priority"]),
        "time_limit": str(spec["time_limit"]),
        "on_preempt": spec.get("on_preempt", "requeue"),
        "notice": str(spec.get("notice", 10)),
        "retries": str(spec["retries"]["limit"]),
    }


def params_form(schema: Mapping[str, Any]) -> Form:
    """The trigger form of a workflow from the JSON schema of its parameters."""
    required = set(schema.get("required", []))
    fields = []
    for name, inner in schema.get("properties", {}).items():
        default = inner.get("default")
        label, text = inner.get("title") or name, inner.get("description", "")
        optional = name not in required
        if "enum" in inner:
            choices = [(json.dumps(value), str(value)) for value in inner["enum"]]
            value = json.dumps(default) if "default" in inner else ""
            if optional and "default" not in inner:
                choices.insert(0, ("", "–"))
            fields.append(Field(name, label, "select", value, text, choices=choices))
        elif inner.get("type") == "boolean":
            fields.append(Field(name, label, "check", bool(default), text, placeholder=text or label))
        else:
            shown = "" if default is None else default if isinstance(default, str) else json.dumps(default)
            kind = "textarea" if inner.get("type") in ("array", "object") else "text"
            hint = text or bounds_text(inner)
            fields.append(
                Field(name, label, kind, shown, hint, optional=optional and "default" not in inner, mono=True)
            )
    return Form({item.name: item for item in fields})


def bounds_text(schema: Mapping[str, Any]) -> str:
    """`integer, 1 to 10` in words."""
    kind = schema.get("type", "any JSON")
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f"{kind}, {low} to {high}"
    if low is not None:
        return f"{kind}, at least {low}"
    return f"{kind}, at most {high}" if high is not None else f"{kind}"


def params_data(schema: Mapping[str, Any], values: Mapping[str, str]) -> dict[str, Any]:
    """Parameters from what was typed; empty fields are left to their defaults. Raises Invalid for broken JSON."""
    found: dict[str, Any] = {}
    errors: list[FieldError] = []
    for name, inner in schema.get("properties", {}).items():
        raw = values.get(name, "").strip()
        if inner.get("type") == "boolean" and "enum" not in inner:
            found[name] = raw == "true"
        elif not raw:
            continue
        elif inner.get("type") == "string" and "enum" not in inner:
            found[name] = raw
        else:
            try:
                found[name] = json.loads(raw)
            except ValueError:
                if inner.get("type") is None:
                    found[name] = raw
                    continue
                message = f"{raw!r} is not {bounds_text(inner)}."
                errors.append(FieldError(field=f"params.{name}", message=message, code="invalid"))
    if errors:
        raise Invalid(errors[0]["message"], errors=errors)
    return found


def params_paths(schema: Mapping[str, Any]) -> dict[str, str]:
    """Form field → path of each parameter."""
    return {name: f"params.{name}" for name in schema.get("properties", {})}
