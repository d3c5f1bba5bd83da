"""The form of a job and that of a workflow's parameters, as data."""

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from apps.core.errors import FieldError, Invalid

from . import placement_fields
from .fields import Field, Form, Reader, owner, several

__all__ = [
    "JOB_PATHS", "Field", "Form", "Reader", "bounds_text", "job_data", "job_form", "job_values", "owner", "params_data",
    "params_form", "params_paths", "several",
]  # fmt: skip

# Form field → where the command names it; a longer path that begins with it belongs to it too.
JOB_PATHS = {
    "name": "name",
    "tenant": "tenant",
    "script": "groups[0].script",
    "command": "groups[0].command",
    "image": "groups[0].image",
    "count": "groups[0].count",
    "min_count": "groups[0].min_count",
    "env": "groups[0].env",
    "secrets": "groups[0].secrets",
    "cpu": "groups[0].resources.cpu",
    "memory": "groups[0].resources.memory",
    "storage": "groups[0].resources.storage",
    "gpu_count": "groups[0].resources.gpu.count",
    "gpu_models": "groups[0].resources.gpu.models",
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


def job_form(tenants: Sequence[tuple[str, str]], pools: Sequence[str]) -> Form:
    """The empty form of a job with one group."""
    fields = [
        Field("name", "Name", value="", placeholder="train-resnet"),
        Field("tenant", "Tenant", "select", choices=tenants),
        Field("script", "Script", "textarea", mono=True, rows=7, placeholder="python train.py --epochs 3"),
        Field(
            "command",
            "Command",
            mono=True,
            placeholder="python train.py --epochs 3",
            help="Words are split as a shell splits them; nothing is expanded.",
        ),
        Field("image", "Container image", optional=True, mono=True, placeholder="python:3.12-slim"),
        Field("cpu", "CPU", value="1", mono=True, help="Cores (0.5, 2) or millicores (500m)."),
        Field("memory", "Memory", value="512Mi", mono=True, help="Such as 512Mi or 4Gi."),
        Field("storage", "Scratch disk", value="1Gi", mono=True, help="Such as 1Gi."),
        Field("gpu_count", "GPUs", value="0", mono=True, help="Whole cards for each member."),
        Field(
            "gpu_models",
            "GPU models",
            optional=True,
            mono=True,
            placeholder="A100, H100",
            help="Any of them.",
        ),
        Field(
            "gpu_compute",
            "Capability",
            optional=True,
            mono=True,
            placeholder="8.0",
            help="The least compute capability of a card.",
        ),
        Field("count", "Members", value="1", mono=True, help="Equal members that start together."),
        Field(
            "min_count", "At least", optional=True, mono=True, placeholder="all",
            help="Start with fewer members where not all fit, but with so many.",
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
        Field("env", "Environment", "textarea", optional=True, mono=True, rows=3, placeholder="EPOCHS=3"),
        Field(
            "secrets",
            "Secrets",
            "textarea",
            optional=True,
            mono=True,
            rows=3,
            placeholder="API_TOKEN=name-of-a-secret",
            help="VARIABLE=name of a secret of the tenant.",
        ),
        Field("priority", "Priority", value="0", mono=True, help="Higher goes first within the tenant."),
        Field("time_limit", "Time limit", value="1h", mono=True, help="Such as 90s, 30m, 2h."),
        Field(
            "on_preempt", "When evicted", "select", value="requeue",
            choices=[("requeue", "Wait again in its place"), ("fail", "Fail")],
        ),
        Field("notice", "Notice", value="10s", mono=True, help="From SIGTERM to SIGKILL when evicted, to save work."),
        Field("retries", "Retries", value="0", mono=True, help="After a failure, with growing pauses."),
    ]
    return Form({item.name: item for item in fields})


def job_data(values: Mapping[str, str]) -> dict[str, Any]:
    """A job spec from what was typed. Raises Invalid for lines that cannot be read."""
    errors: list[FieldError] = []
    read = Reader(values, errors, JOB_PATHS)
    group: dict[str, Any] = {
        "count": read.integer("count", 1),
        "resources": read.present(cpu=read.text("cpu"), memory=read.text("memory"), storage=read.text("storage")),
        "env": read.pairs("env"),
        "secrets": read.pairs("secrets"),
    }
    if values.get("kind") == "command":
        group["command"] = read.argv("command")
    else:
        group["script"] = values.get("script", "").replace("\r\n", "\n")
    if read.text("min_count"):
        group["min_count"] = read.integer("min_count", 1)
    if read.text("image"):
        group["image"] = read.text("image")
    cards = read.integer("gpu_count", 0)
    if cards:
        group["resources"]["gpu"] = {"count": cards, "models": read.listed("gpu_models")}
    labels = {key: [part.strip() for part in value.split(",")] for key, value in read.pairs("labels").items()}
    require: dict[str, Any] = {"labels": labels, **read.present(gpu_compute=read.text("gpu_compute"))}
    if read.text("architectures"):
        require["architectures"] = read.listed("architectures")
    if read.text("max_price"):
        require["max_price"] = read.number("max_price")
    level = read.text("together")
    demands, wishes, job_labels = placement_fields.read(read)
    data = {
        "groups": [group],
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
    group, intent = spec["groups"][0], spec["intent"]
    resources = group["resources"]
    gpu = resources.get("gpu") or {}
    require, price = intent["require"], intent["require"].get("max_price")
    return {
        "name": spec["name"],
        "kind": "command" if group.get("command") else "script",
        "command": shlex.join(group.get("command") or []),
        "script": group.get("script") or "",
        "image": group.get("image") or "",
        "count": str(group["count"]),
        "min_count": str(group.get("min_count") or ""),
        "cpu": f"{resources['cpu_millicores']}m",
        "memory": str(resources["memory_bytes"]),
        "storage": str(resources["storage_bytes"]),
        "gpu_count": str(gpu.get("count", 0)),
        "gpu_models": ", ".join(gpu.get("models") or []),
        "gpu_compute": require.get("gpu_compute") or "",
        "architectures": ", ".join(require.get("architectures") or []),
        "max_price": "" if price is None else f"{price:.6f}".rstrip("0").rstrip("."),
        "together": _shared_level(intent.get("together") or {}),
        "pool": intent.get("pool") or "",
        "placement": intent.get("placement") or "pack",
        "labels": "\n".join(f"{key}={','.join(values)}" for key, values in intent["require"]["labels"].items()),
        "env": "\n".join(f"{key}={value}" for key, value in group["env"].items()),
        "secrets": "\n".join(f"{key}={value}" for key, value in group["secrets"].items()),
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
