"""The form of a what-if question: changes as rows, each of a kind with its own fields, and the settings of it all.

A field of row 3 is called `3-count`; the kind of the row is `3-kind`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from apps.core.errors import DomainError, FieldError, Invalid
from apps.jobs.models import Job
from apps.quotas.models import Resource
from rmctl.spec.errors import BadValue
from rmctl.spec.job import as_written
from rmctl.spec.quantities import parse_duration

from .forms import Field, Form, Reader, owner
from .quota_forms import typed
from .words import sentence

ROWS_MAX = 50
NAMES_MAX = 60
POLICIES = (
    ("", "Each pool as it is"),
    ("easy", "Reserve for the first that waits (easy)"),
    ("conservative", "Reserve for everyone that waits (conservative)"),
    ("none", "Reserve for nobody"),
    ("fcfs", "Strictly one after the other (first come, first served)"),
    ("within_tenants", "Let priority reach within each tenant"),
    ("across_tenants", "Let priority reach across tenants"),
)
RUN_TIMES = (
    ("p50", "As such jobs mostly took (p50)"),
    ("p90", "Rather long (p90)"),
    ("limit", "Until their time limits"),
)
HORIZONS = (("3600", "1 hour"), ("21600", "6 hours"), ("86400", "1 day"), ("604800", "7 days"), ("2592000", "30 days"))


@dataclass(frozen=True, slots=True)
class Kind:
    """A change: what it is called, where the request has it, and which of its fields is which part of an item."""

    name: str
    label: str
    icon: str
    place: str
    paths: Mapping[str, str]
    # Only for those who see all of the fleet.
    fleet: bool = False


KINDS = {
    kind.name: kind
    for kind in (
        Kind(
            "job",
            "Add jobs",
            "plus",
            "jobs",
            {
                "like": "like",
                "tenant": "tenant",
                "cpu": "spec.groups[0].resources.cpu",
                "memory": "spec.groups[0].resources.memory",
                "gpus": "spec.groups[0].resources.gpu",
                "members": "spec.groups[0].count",
                "time_limit": "spec.time_limit",
                "priority": "spec.priority",
                "pool": "spec.intent.pool",
                "copies": "count",
                "runs_for": "run_seconds",
                "at": "at_seconds",
            },
        ),
        Kind("cancel", "Cancel a job", "circle-stop", "cancel", {"job": "job", "at": "at_seconds"}),
        Kind(
            "quota",
            "Change a quota",
            "gauge",
            "quotas",
            {"quota": "quota", "flavor": "flavor", "resource": "resource", "amount": "nominal", "at": "at_seconds"},
        ),
        Kind(
            "budget",
            "Change a budget",
            "hourglass",
            "budgets",
            {"budget": "budget", "limit": "amount", "at": "at_seconds"},
        ),
        Kind(
            "add", "Add nodes", "server", "add_nodes", {"like": "like", "copies": "count", "at": "at_seconds"}, True
        ),
        Kind("remove", "Lose a node", "power", "remove_nodes", {"node": "node", "at": "at_seconds"}, True),
        Kind("drain", "Drain a node", "circle-pause", "cordon_nodes", {"node": "node", "at": "at_seconds"}, True),
        Kind("lose", "Lose a cluster", "unplug", "lose_clusters", {"cluster": "cluster", "at": "at_seconds"}, True),
    )
}
SETTINGS = {"horizon": "horizon_seconds", "run_times": "run_times", "policy": "policy"}


@dataclass(frozen=True, slots=True)
class Known:
    """What a question can name."""

    tenants: Sequence[tuple[str, str]] = ()
    pools: Sequence[str] = ()
    nodes: Sequence[str] = ()
    clusters: Sequence[str] = ()
    quotas: Sequence[str] = ()
    # Those that hold jobs back, as (number, name).
    budgets: Sequence[tuple[str, str]] = ()
    flavors: Sequence[str] = ()
    everything: bool = False


@dataclass(slots=True)
class Row:
    """One change: its number in the form, its kind and its fields by their short names."""

    number: str
    kind: Kind
    fields: dict[str, Field]


@dataclass(slots=True)
class Question(Form):
    """All rows, the settings as `fields`, and a blank row of each kind for the page to copy."""

    rows: list[Row] = field(default_factory=list)
    blanks: list[Row] = field(default_factory=list)


def question(known: Known) -> Question:
    """The empty form."""
    fields = {
        "horizon": Field("horizon", "Look ahead", "select", "86400", choices=HORIZONS),
        "run_times": Field("run_times", "Jobs run", "select", "p50", choices=RUN_TIMES),
    }
    if known.everything:
        fields["policy"] = Field("policy", "Who goes first", "select", "", choices=POLICIES)
    return Question(fields, blanks=[row("__N__", kind, known) for kind in KINDS.values() if _offered(kind, known)])


def _offered(kind: Kind, known: Known) -> bool:
    """Whether there is something that a change of this kind can be about."""
    return bool(known.budgets) if kind.name == "budget" else known.everything or not kind.fleet


def row(number: str, kind: Kind, known: Known) -> Row:
    """An empty row of this kind."""

    def chosen(name: str, label: str, choices: Sequence[tuple[str, str]], placeholder: str) -> Field:
        if 0 < len(choices) <= NAMES_MAX:
            return Field(name, label, "select", choices[0][0], choices=choices)
        return Field(name, label, mono=True, placeholder=placeholder)

    def named(name: str, label: str, names: Sequence[str], placeholder: str) -> Field:
        return chosen(name, label, [(item, item) for item in names], placeholder)

    at = Field("at", "After", value="0s", mono=True, help="From now: 0s, 10m, 2h.")
    copies = Field("copies", "How many", value="1", mono=True)
    fields = {
        "job": [
            Field("like", "Like job", optional=True, mono=True, placeholder="123", help="What is empty is as there."),
            Field("tenant", "Tenant", "select", "", choices=[("", "As that job's"), *known.tenants]),
            Field("cpu", "CPU", optional=True, mono=True, placeholder="1"),
            Field("memory", "Memory", optional=True, mono=True, placeholder="512Mi"),
            Field("gpus", "GPUs", optional=True, mono=True, placeholder="0", help="Cards of each member."),
            Field("members", "Members", optional=True, mono=True, placeholder="1"),
            Field("priority", "Priority", optional=True, mono=True, placeholder="0"),
            Field("time_limit", "Time limit", optional=True, mono=True, placeholder="1h"),
            Field("runs_for", "Runs for", optional=True, mono=True, placeholder="as such jobs do"),
            Field("pool", "Pool", "select", "", choices=[("", "The same, or default"), *((n, n) for n in known.pools)]),
            copies,
            at,
        ],
        "cancel": [Field("job", "Job", mono=True, placeholder="123"), at],
        "quota": [
            named("quota", "Quota", known.quotas, "vision"),
            named("flavor", "Flavor", known.flavors, "a100"),
            Field("resource", "Resource", "select", "gpu", choices=[(one, sentence(one)) for one in Resource.values]),
            Field("amount", "Nominal", mono=True, placeholder="+2", help="+2 and -2 change it, 8 sets it."),
            at,
        ],
        "budget": [
            chosen("budget", "Budget", known.budgets, "123"),
            Field("limit", "Limit", optional=True, mono=True, placeholder="100", help="Empty: as if there were none."),
            at,
        ],
        "add": [named("like", "Like node", known.nodes, "node-1"), copies, at],
        "remove": [named("node", "Node", known.nodes, "node-1"), at],
        "drain": [named("node", "Node", known.nodes, "node-1"), at],
        "lose": [named("cluster", "Cluster", known.clusters, "lab"), at],
    }[kind.name]
    found = {item.name: item for item in fields}
    for name, item in found.items():
        item.name = f"{number}-{name}"
    return Row(number, kind, found)


def fill(form: Question, values: Mapping[str, str], known: Known) -> None:
    """Take over what was typed. Raises Invalid for more rows than one question may have."""
    Form.fill(form, values)
    numbers = sorted(
        (key.removesuffix("-kind") for key in values if re.fullmatch(r"\d{1,4}-kind", key, re.ASCII)), key=int
    )
    for number in numbers[:ROWS_MAX]:
        kind = KINDS.get(values[f"{number}-kind"])
        if kind is None or not _offered(kind, known):
            continue
        made = row(number, kind, known)
        for item in made.fields.values():
            item.value = values.get(item.name, item.value)
        form.rows.append(made)
    if len(numbers) > ROWS_MAX:
        message = f"{len(numbers)} changes; a question of this page has at most {ROWS_MAX}, one through the API 500."
        raise Invalid(message, code="simulation_too_large")


def request_of(form: Question, likes: Mapping[int, Job]) -> dict[str, Any]:
    """The body of a request to simulate; `likes` are the jobs that others are to be like. Raises Invalid."""
    errors: list[FieldError] = []
    body: dict[str, Any] = {
        "horizon_seconds": _whole(form["horizon"].value),
        "run_times": form["run_times"].value,
        **({"policy": form["policy"].value} if "policy" in form.fields and form["policy"].value else {}),
    }
    for item in form.rows:
        listed = body.setdefault(item.kind.place, [])
        values = {name: str(part.value) for name, part in item.fields.items()}
        read = _RowReader(values, errors, item.kind, len(listed))
        listed.append(_MAKERS[item.kind.name](read, likes))
    if errors:
        raise Invalid(errors[0]["message"], errors=errors)
    return body


def refuse(form: Question, error: DomainError) -> None:
    """Put each fault beside the field of the row that it is about; what no field stands for goes on top."""
    places: dict[str, int] = {}
    paths: dict[str, tuple[Row, str]] = {}
    for item in form.rows:
        at = places[item.kind.place] = places.get(item.kind.place, -1) + 1
        for name, path in item.kind.paths.items():
            paths[f"{item.number}-{name}"] = (item, f"{item.kind.place}[{at}].{path}")
    known = {**{name: path for name, (_, path) in paths.items()}, **SETTINGS}
    for fault in error.errors or [FieldError(field="", message=error.detail, code=error.code)]:
        field_name = fault["field"].replace("].change", "].nominal")
        name = owner(field_name, known)
        if name in paths:
            found, _ = paths[name]
            found.fields[name.partition("-")[2]].error = fault["message"]
        elif name in form.fields:
            form[name].error = fault["message"]
        else:
            form.problems.append(fault["message"])


class _RowReader(Reader):
    """Reads the fields of one row; faults have the path that the request would have."""

    def __init__(self, values: Mapping[str, str], errors: list[FieldError], kind: Kind, place: int) -> None:
        paths = {name: f"{kind.place}[{place}].{path}" for name, path in kind.paths.items()}
        super().__init__(values, errors, paths)

    def seconds(self, name: str) -> int:
        try:
            return round(parse_duration(self.text(name) or "0s"))
        except BadValue as error:
            self.fault(name, error.message)
            return 0


def _job(read: _RowReader, likes: Mapping[int, Job]) -> dict[str, Any]:
    like = likes.get(read.integer("like", 0))
    if read.text("like") and like is None:
        read.fault("like", f"there is no job {read.text('like')} that you can see.")
    if like is not None:
        spec = as_written(like.spec)
        spec["intent"] = {**spec["intent"]}
    else:
        spec = {"name": "what-if", "groups": [{"command": ["true"], "resources": {}}], "intent": {}}
    group = spec["groups"][0]
    # A job that is made up starts no process, so what it would start from need not be there.
    for part in ("bundle", "inputs"):
        spec.pop(part, None)
    _amounts(read, group)
    if read.text("members"):
        group["count"] = read.integer("members", 1)
        group["min_count"] = None
    if read.text("priority"):
        spec["priority"] = read.integer("priority", 0)
    if read.text("time_limit"):
        spec["time_limit"] = read.text("time_limit")
    if read.text("pool"):
        spec["intent"]["pool"] = read.text("pool")
    tenant = read.text("tenant") or (like.tenant.slug if like is not None else None)
    made = {"tenant": tenant, "spec": spec, "count": read.integer("copies", 1), "at_seconds": read.seconds("at")}
    return {**made, "run_seconds": read.seconds("runs_for")} if read.text("runs_for") else made


def _amounts(read: _RowReader, group: dict[str, Any]) -> None:
    """What each member of the first group asks for, where something else than before was typed."""
    resources = group["resources"]
    if read.text("cpu"):
        resources.pop("cpu_limit", None)
        resources["cpu"] = read.text("cpu")
    if read.text("memory"):
        resources["memory"] = read.text("memory")
    if read.text("gpus"):
        cards = read.integer("gpus", 0)
        if cards:
            resources["gpu"] = {**(resources.get("gpu") or {}), "count": cards}
        else:
            resources.pop("gpu", None)


def _cancel(read: _RowReader, _likes: Mapping[int, Job]) -> dict[str, Any]:
    return {"job": read.integer("job", 0), "at_seconds": read.seconds("at")}


def _quota(read: _RowReader, _likes: Mapping[int, Job]) -> dict[str, Any]:
    raw, resource = read.text("amount"), read.text("resource")
    sign = raw[:1] if raw[:1] in ("+", "-") else ""
    made = {"quota": read.text("quota"), "flavor": read.text("flavor"), "resource": resource}
    try:
        amount = typed(raw.removeprefix(sign), resource)
    except BadValue as error:
        read.fault("amount", error.message)
        return made
    change = {"change": -amount if sign == "-" else amount} if sign else {"nominal": amount}
    return {**made, **change, "at_seconds": read.seconds("at")}


def _budget(read: _RowReader, _likes: Mapping[int, Job]) -> dict[str, Any]:
    amount = read.number("limit") if read.text("limit") else None
    return {"budget": read.integer("budget", 0), "amount": amount, "at_seconds": read.seconds("at")}


def _add(read: _RowReader, _likes: Mapping[int, Job]) -> dict[str, Any]:
    return {"like": read.text("like"), "count": read.integer("copies", 1), "at_seconds": read.seconds("at")}


def _node(read: _RowReader, _likes: Mapping[int, Job]) -> dict[str, Any]:
    return {"node": read.text("node"), "at_seconds": read.seconds("at")}


def _cluster(read: _RowReader, _likes: Mapping[int, Job]) -> dict[str, Any]:
    return {"cluster": read.text("cluster"), "at_seconds": read.seconds("at")}


_MAKERS = {
    "job": _job, "cancel": _cancel, "quota": _quota, "budget": _budget, "add": _add, "remove": _node, "drain": _node,
    "lose": _cluster,
}  # fmt: skip


def _whole(raw: object) -> object:
    """A number as such; anything else is for the schema to refuse."""
    text = str(raw)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 12 else text
