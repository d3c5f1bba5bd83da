"""Forms as data: what was typed, what the field is called, and what the command said about it."""

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.http import QueryDict

from apps.core.errors import DomainError, FieldError, Invalid

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
    "priority": "priority",
    "time_limit": "time_limit",
    "on_preempt": "on_preempt",
    "notice": "notice",
    "retries": "retries.limit",
}


@dataclass(slots=True)
class Field:
    """One input with its label, value and error."""

    name: str
    label: str
    kind: str = "text"
    value: Any = ""
    help: str = ""
    placeholder: str = ""
    optional: bool = False
    mono: bool = False
    rows: int = 4
    choices: Sequence[tuple[str, str]] = ()
    error: str = ""


@dataclass(slots=True)
class Form:
    """Fields by name, and what is wrong with none of them in particular."""

    fields: dict[str, Field]
    problems: list[str] = field(default_factory=list)

    def __getitem__(self, name: str) -> Field:
        return self.fields[name]

    def fill(self, values: Mapping[str, Any]) -> None:
        """Take over what was typed."""
        for name, item in self.fields.items():
            if item.kind == "check":
                item.value = name in values
            elif item.kind == "checks":
                item.value = several(values, name)
                item.choices = [*item.choices, *_strangers(item)]
            elif name in values:
                item.value = values[name]

    def refuse(self, error: DomainError, paths: Mapping[str, str]) -> None:
        """Put each fault beside its field; what no field stands for goes on top. A name is what is taken."""
        field = "name" if error.code == "exists" else ""
        faults: Iterable[FieldError] = error.errors or [
            FieldError(field=field, message=error.detail, code=error.code)
        ]
        for fault in faults:
            name = owner(fault["field"], paths)
            if name in self.fields:
                self.fields[name].error = fault["message"]
            else:
                self.problems.append(fault["message"])


def several(values: Mapping[str, Any], name: str) -> list[str]:
    """All values of a field that takes several, without the character that PostgreSQL can't hold."""
    found = values.getlist(name) if isinstance(values, QueryDict) else values.get(name, ())
    return [text for value in found if (text := value.replace("\x00", "").strip())]


def _strangers(item: Field) -> list[tuple[str, str]]:
    """Chosen values that are not (or no longer) among the choices: they stay until somebody takes them away."""
    known = {value for value, _ in item.choices}
    return [(value, value) for value in item.value if value not in known]


def owner(path: str, paths: Mapping[str, str]) -> str:
    """The form field that stands for a path of the input: the longest match; "" when none does."""
    found = [name for name, known in paths.items() if path == known or path.startswith((f"{known}.", f"{known}["))]
    return max(found, key=lambda name: len(paths[name]), default="")


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
    data = {
        "groups": [group],
        "intent": {
            "require": require,
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


class Reader:
    """Reads typed values; every fault is kept with the path (of `paths`) that the command would name."""

    def __init__(
        self, values: Mapping[str, str], errors: list[FieldError], paths: Mapping[str, str]
    ) -> None:
        self.values = values
        self.errors = errors
        self.paths = paths

    def text(self, name: str) -> str:
        return self.values.get(name, "").replace("\x00", "").strip()

    @staticmethod
    def present(**values: str) -> dict[str, Any]:
        return {name: value for name, value in values.items() if value}

    def fault(self, name: str, message: str) -> None:
        self.errors.append(FieldError(field=self.paths[name], message=message, code="invalid"))

    def integer(self, name: str, default: int) -> int:
        raw = self.text(name)
        if not raw:
            return default
        digits = raw.removeprefix("-")
        if digits.isascii() and digits.isdigit() and len(digits) < 19:
            return int(raw)
        self.fault(name, f"{raw!r} is not a whole number.")
        return default

    def number(self, name: str) -> float:
        """A decimal number that is not negative; 0 beside the fault."""
        raw = self.text(name)
        whole, _, part = raw.partition(".")
        if raw.isascii() and whole.isdigit() and (part.isdigit() or "." not in raw) and len(raw) < 19:
            return float(raw)
        self.fault(name, f"{raw!r} is not a number such as 2.50.")
        return 0.0

    def listed(self, name: str) -> list[str]:
        return [part.strip() for part in self.text(name).split(",") if part.strip()]

    def argv(self, name: str) -> list[str]:
        try:
            return shlex.split(self.text(name))
        except ValueError as error:
            self.fault(name, f"It cannot be split into words: {error}.")
            return []

    def pairs(self, name: str, shape: str = "NAME=value") -> dict[str, str]:
        """Lines of the shape, each name once."""
        found: dict[str, str] = {}
        for line in self.lines(name):
            key, equals, value = (part.strip() for part in line.partition("="))
            if not equals or not key:
                self.fault(name, f"{line!r} is not {shape}.")
            elif key in found:
                self.fault(name, f"{key} is there twice.")
            else:
                found[key] = value
        return found

    def lines(self, name: str) -> list[str]:
        """The lines that are not empty."""
        return [line.strip() for line in self.text(name).splitlines() if line.strip()]


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
