"""The fields of a job's form that say where it wants to run, folded under Placement."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from .fields import Field, Reader

GOALS = (
    ("cost", "Cost", "What its nodes are lent for."),
    ("energy", "Energy", "Watts, weighed by the carbon of the region."),
    ("latency", "Latency", "Way to the users' region, or to its datasets."),
    ("locality", "Data", "Bytes of its datasets that are missing."),
    ("warmth", "Warmth", "Image and datasets lie there already."),
)
REQUIRED = ("regions", "jurisdictions", "cpu_flags", "interconnects", "packages")
VERSIONS = ("gpu_driver", "python")
PATHS = {
    "job_labels": "labels",
    "regions": "intent.require.regions",
    "jurisdictions": "intent.require.jurisdictions",
    "trust": "intent.require.trust",
    "cpu_flags": "intent.require.cpu_flags",
    "interconnects": "intent.require.interconnects",
    "gpu_driver": "intent.require.gpu_driver",
    "python": "intent.require.python",
    "packages": "intent.require.packages",
    "image_present": "intent.require.image_present",
    "datasets_there": "intent.require.datasets",
    "datasets": "intent.datasets",
    "near_region": "intent.near_region",
    "near": "intent.near",
    "away": "intent.away",
    **{f"goal_{name}": f"intent.goals.{name}" for name, _, _ in GOALS},
}
# `app=db|cache env=prod on zone, weight 5`
_NEIGHBOURS = re.compile(
    r"(?P<jobs>\S+=\S*(?:\s+\S+=\S*)*?)(?:\s+on\s+(?P<key>\S+?))?(?:,?\s+weight\s+(?P<weight>\d{1,9}))?"
)
_SHAPE = "app=db on zone, weight 5"


def fields() -> list[Field]:
    """The fields, empty."""
    def text(name: str, label: str, placeholder: str, help: str = "") -> Field:
        return Field(name, label, optional=True, mono=True, placeholder=placeholder, help=help)

    near = "One a line: labels of jobs, the label of nodes that they share (else the node itself), and a weight if it "
    return [
        text("regions", "Regions", "eu, us", "Any of them."),
        text("jurisdictions", "Jurisdictions", "EU, US-CA", "The region has to lie in all of them."),
        text("trust", "Trust", "0", "The least trust in who lends the node."),
        text("cpu_flags", "CPU flags", "avx2, avx512f", "All of them."),
        text("interconnects", "Interconnects", "nvlink, infiniband", "All of them."),
        text("gpu_driver", "GPU driver", "535", "The least version."),
        text("python", "Python", "3.11", "The least version on the node."),
        text("packages", "Python packages", "scikit-learn, torch", "The node's Python has all of them."),
        text("datasets", "Datasets", "corpus, maps", "It reads them; goals prefer nodes that hold them."),
        text("datasets_there", "Datasets on the node", "corpus", "Only nodes that hold all of them."),
        text("near_region", "Region of its users", "eu", "For the goal latency."),
        Field("image_present", "Image", "check", False, placeholder="Only nodes that have the container image"),
        *(text(f"goal_{name}", label, "–", help) for name, label, help in GOALS),
        Field(
            "job_labels", "Labels of this job", "textarea", optional=True, mono=True, rows=3, placeholder="app=trainer",
            help="One a line. Others find it by them, and lists too.",
        ),
        Field(
            "near", "Near running jobs", "textarea", optional=True, mono=True, rows=3, placeholder=_SHAPE,
            help=f"{near}is only a wish.",
        ),
        Field(
            "away", "Away from running jobs", "textarea", optional=True, mono=True, rows=3,
            placeholder="app=trainer on node", help="In the same way.",
        ),
    ]  # fmt: skip


def read(reader: Reader) -> tuple[dict[str, Any], dict[str, Any], dict[str, str]]:
    """What was typed: requirements, the rest of the intent, and the job's labels; faults are the reader's."""
    require: dict[str, Any] = {name: found for name in REQUIRED if (found := reader.listed(name))}
    require |= reader.present(**{name: reader.text(name) for name in VERSIONS})
    if reader.text("trust"):
        require["trust"] = reader.integer("trust", 0)
    if reader.values.get("image_present"):
        require["image_present"] = True
    if there := reader.listed("datasets_there"):
        require["datasets"] = there
    intent: dict[str, Any] = dict(reader.present(near_region=reader.text("near_region")))
    if datasets := reader.listed("datasets"):
        intent["datasets"] = datasets
    if goals := {name: reader.integer(f"goal_{name}", 1) for name, _, _ in GOALS if reader.text(f"goal_{name}")}:
        intent["goals"] = goals
    for name in ("near", "away"):
        if found := [one for line in reader.lines(name) if (one := _neighbours(reader, name, line))]:
            intent[name] = found
    return require, intent, reader.pairs("job_labels")


def _neighbours(reader: Reader, name: str, line: str) -> dict[str, Any] | None:
    match = _NEIGHBOURS.fullmatch(line)
    if match is None:
        reader.fault(name, f"{line!r} is not like {_SHAPE}.")
        return None
    jobs = {key: value.split("|") for key, _, value in (one.partition("=") for one in match["jobs"].split())}
    found: dict[str, Any] = {"jobs": jobs}
    if match["key"]:
        found["key"] = match["key"]
    if match["weight"]:
        found["weight"] = int(match["weight"])
    return found


def values(spec: Mapping[str, Any]) -> dict[str, str]:
    """A normalised spec as these fields show it; what is not ticked is left out."""
    intent = spec["intent"]
    require, goals = intent["require"], intent.get("goals") or {}
    shown = {
        **{name: ", ".join(require.get(name) or ()) for name in REQUIRED},
        **{name: require.get(name) or "" for name in VERSIONS},
        **{f"goal_{name}": str(goals.get(name, "")) for name, _, _ in GOALS},
        "trust": str(require.get("trust") or ""),
        "datasets": ", ".join(intent.get("datasets") or ()),
        "datasets_there": ", ".join(require.get("datasets") or ()),
        "near_region": intent.get("near_region") or "",
        "job_labels": "\n".join(f"{key}={value}" for key, value in (spec.get("labels") or {}).items()),
        "near": _lines(intent.get("near") or ()),
        "away": _lines(intent.get("away") or ()),
    }
    if require.get("image_present"):
        shown["image_present"] = "true"
    return shown


def _lines(listed: Sequence[Mapping[str, Any]]) -> str:
    lines = []
    for one in listed:
        jobs = " ".join(f"{key}={'|'.join(found)}" for key, found in one["jobs"].items())
        weight = f", weight {one['weight']}" if one.get("weight") is not None else ""
        lines.append(f"{jobs} on {one['key']}{weight}")
    return "\n".join(lines)
