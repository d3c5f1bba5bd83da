"""The fields of one group of a job's form. Those of the first group have plain names (`cpu`), those of the others
begin with the group's place (`g1-cpu`); `groups` in the form says how many there are."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .fields import Field, Reader

# As many as a job may have (rmctl.spec.job.JobSpec).
GROUPS_MAX = 100
# Field → where the group's part of a spec has it.
PATHS = {
    "group": "name",
    "script": "script",
    "command": "command",
    "image": "image",
    "count": "count",
    "min_count": "min_count",
    "env": "env",
    "secrets": "secrets",
    "cpu": "resources.cpu",
    "memory": "resources.memory",
    "storage": "resources.storage",
    "gpu_count": "resources.gpu.count",
    "gpu_models": "resources.gpu.models",
}
KINDS = ("script", "command")


def prefix(place: int) -> str:
    """What the names of a group's fields begin with."""
    return f"g{place}-" if place else ""


def paths(place: int) -> dict[str, str]:
    """Form field of a group → where the command names it."""
    return {f"{prefix(place)}{name}": f"groups[{place}].{path}" for name, path in PATHS.items()}


def count_of(values: Mapping[str, str]) -> int:
    """How many groups a form that was sent has."""
    text = values.get("groups", "1")
    return min(max(int(text), 1), GROUPS_MAX) if text.isascii() and text.isdigit() and len(text) < 4 else 1


@dataclass(slots=True)
class Group:
    """One group as it is laid out: its fields by their short names, and which of script and command it runs."""

    place: int
    fields: dict[str, Field]
    kind: str = KINDS[0]

    @property
    def prefix(self) -> str:
        """What the names of its fields begin with."""
        return prefix(self.place)

    @property
    def path(self) -> str:
        """Where the command names it."""
        return f"groups[{self.place}]"


def group(place: int) -> Group:
    """An empty group."""
    fields = [
        Field("group", "Group", value="" if place else "main", mono=True, placeholder="worker", help="Its name."),
        Field("script", "Script", "textarea", mono=True, rows=4 if place else 7,
              placeholder="python train.py --epochs 3"),
        Field("command", "Command", mono=True, placeholder="python train.py --epochs 3",
              help="Words are split as a shell splits them; nothing is expanded."),
        Field("image", "Container image", optional=True, mono=True, placeholder="python:3.12-slim"),
        Field("cpu", "CPU", value="1", mono=True, help="Cores (0.5, 2) or millicores (500m)."),
        Field("memory", "Memory", value="512Mi", mono=True, help="Such as 512Mi or 4Gi."),
        Field("storage", "Scratch disk", value="1Gi", mono=True, help="Such as 1Gi."),
        Field("gpu_count", "GPUs", value="0", mono=True, help="Whole cards for each member."),
        Field("gpu_models", "GPU models", optional=True, mono=True, placeholder="A100, H100", help="Any of them."),
        Field("count", "Members", value="1", mono=True, help="Equal members that start together."),
        Field("min_count", "At least", optional=True, mono=True, placeholder="all",
              help="Start with fewer members where not all fit, but with so many."),
        Field("env", "Environment", "textarea", optional=True, mono=True, rows=3, placeholder="EPOCHS=3"),
        Field("secrets", "Secrets", "textarea", optional=True, mono=True, rows=3,
              placeholder="API_TOKEN=name-of-a-secret", help="VARIABLE=name of a secret of the tenant."),
    ]  # fmt: skip
    made = Group(place, {item.name: item for item in fields})
    for item in fields:
        item.name = f"{made.prefix}{item.name}"
    return made


def read(read: Reader, place: int) -> dict[str, Any]:
    """A group of a spec from what was typed; faults go to the reader."""

    def named(name: str) -> str:
        return f"{prefix(place)}{name}"

    def text(name: str) -> str:
        return read.text(named(name))

    made: dict[str, Any] = {
        **read.present(name=text("group")),
        "count": read.integer(named("count"), 1),
        "resources": read.present(cpu=text("cpu"), memory=text("memory"), storage=text("storage")),
        "env": read.pairs(named("env")),
        "secrets": read.pairs(named("secrets")),
    }
    if read.values.get(named("kind")) == "command":
        made["command"] = read.argv(named("command"))
    else:
        made["script"] = read.values.get(named("script"), "").replace("\r\n", "\n")
    if text("min_count"):
        made["min_count"] = read.integer(named("min_count"), 1)
    if text("image"):
        made["image"] = text("image")
    cards = read.integer(named("gpu_count"), 0)
    if cards:
        made["resources"]["gpu"] = {"count": cards, "models": read.listed(named("gpu_models"))}
    return made


def values(spec: Mapping[str, Any], place: int) -> dict[str, str]:
    """A group of a normalised spec as the form shows it."""
    resources = spec["resources"]
    gpu = resources.get("gpu") or {}
    shown = {
        "group": spec["name"],
        "kind": "command" if spec.get("command") else "script",
        "command": shlex.join(spec.get("command") or []),
        "script": spec.get("script") or "",
        "image": spec.get("image") or "",
        "count": str(spec["count"]),
        "min_count": str(spec.get("min_count") or ""),
        "cpu": f"{resources['cpu_millicores']}m",
        "memory": str(resources["memory_bytes"]),
        "storage": str(resources["storage_bytes"]),
        "gpu_count": str(gpu.get("count", 0)),
        "gpu_models": ", ".join(gpu.get("models") or []),
        "env": "\n".join(f"{key}={value}" for key, value in spec["env"].items()),
        "secrets": "\n".join(f"{key}={value}" for key, value in spec["secrets"].items()),
    }
    return {f"{prefix(place)}{name}": value for name, value in shown.items()}


def changed(values: Mapping[str, str], change: str) -> dict[str, str]:
    """What was typed with one group more (`add`), or without that at a place (`drop-1`); those behind it move up."""
    count = count_of(values)
    places = list(range(count))
    dropped = change.removeprefix("drop-")
    if change == "add" and count < GROUPS_MAX:
        places.append(count)
    elif count > 1 and dropped in map(str, places):
        places.remove(int(dropped))
    names = (*PATHS, "kind")
    of_groups = {f"{prefix(place)}{name}" for place in range(count) for name in names}
    kept = {name: value for name, value in values.items() if name not in of_groups}
    for to, place in enumerate(places):
        for name in names:
            if (value := values.get(f"{prefix(place)}{name}")) is not None:
                kept[f"{prefix(to)}{name}"] = value
    if len(places) > count:
        taken = {values.get(f"{prefix(place)}group") for place in range(count)}
        numbers = range(2, GROUPS_MAX + 2)
        kept[f"{prefix(count)}group"] = next(name for number in numbers if (name := f"group-{number}") not in taken)
    return {**kept, "groups": str(len(places))}
