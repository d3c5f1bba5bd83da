"""The forms of the fleet: pools, flavors, terms of lending, and the labels and taints of a node."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from apps.core.errors import FieldError, Invalid
from apps.fleet.models import Contribution, Flavor, Node, Pool
from engine.backfill import Mode
from engine.order import Reach
from rmctl.spec.errors import BadValue
from rmctl.spec.quantities import format_cpu, format_duration, format_size, parse_cpu, parse_duration, parse_size

from .forms import Field, Form, Reader, several

LISTED = ("clusters", "domains", "regions", "gpu_models")
POOL_PATHS = {
    "name": "name",
    "description": "description",
    "backfill": "backfill",
    "priority_reach": "priority_reach",
    **{name: f"query.{name}" for name in (*LISTED, "labels", "trust")},
}
BACKFILL = (
    (Mode.EASY.value, "For the first that waits (easy)"),
    (Mode.CONSERVATIVE.value, "For everyone that waits (conservative)"),
    (Mode.NONE.value, "For nobody: whoever fits may go ahead"),
)
REACH = (
    (Reach.WITHIN.value, "Within a tenant: between tenants by quota and fair shares"),
    (Reach.ACROSS.value, "Across tenants: before quota and fair shares"),
)
REACH_WORDS = {
    Reach.WITHIN.value: "before others within a tenant; between tenants quota and fair shares decide",
    Reach.ACROSS.value: "across tenants, before quota and fair shares",
}
FLAVOR_PATHS = {
    "name": "name",
    "position": "position",
    "labels": "match.labels",
    "gpu_models": "match.gpu_models",
}
TERMS_PATHS = {
    **{
        name: name
        for name in (
            "cluster",
            "share_percent",
            "consumers",
            "trust",
            "jurisdictions",
            "price_per_cpu_hour",
            "price_per_gpu_hour",
            "starts_at",
            "ends_at",
            "windows",
            "timezone",
        )
    },
    "notice": "notice_seconds",
    "cap_cpu": "cap_cpu_millicores",
    "cap_memory": "cap_memory_bytes",
    "cap_gpu": "cap_gpu_milli",
}
NODE_PATHS = {"labels": "labels", "taints": "taints"}


@dataclass(frozen=True, slots=True)
class Known:
    """What queries can name, as far as the fleet has it now."""

    clusters: Sequence[str] = ()
    domains: Sequence[str] = ()
    regions: Sequence[str] = ()
    gpu_models: Sequence[str] = ()


def _checks(name: str, label: str, known: Sequence[str], help_: str, none: str) -> Field:
    choices = [(value, value) for value in known]
    return Field(name, label, "checks", value=[], help=help_, choices=choices, optional=True, placeholder=none)


def _label_field(help_: str) -> Field:
    return Field(
        "labels",
        "Labels",
        "textarea",
        optional=True,
        mono=True,
        rows=3,
        placeholder="zone=a,b\ndisk=ssd",
        help=help_,
    )


def _form(*fields: Field) -> Form:
    return Form({item.name: item for item in fields})


def pool_form(known: Known, pool: Pool | None = None) -> Form:
    """A pool's form: empty, or as the pool is."""
    form = _form(
        Field("name", "Name", mono=True, placeholder="gpu", help="Jobs ask for it by this name. It stays."),
        Field("description", "Description", optional=True, placeholder="Nodes with cards, in every region"),
        _checks("clusters", "Clusters", known.clusters, "Any of these; none chosen: every cluster.", "None yet."),
        _checks("domains", "Domains", known.domains, "Any of these; none chosen: every domain.", "None yet."),
        _checks("regions", "Regions", known.regions, "Where the cluster stands.", "No cluster names its region."),
        _checks("gpu_models", "GPU models", known.gpu_models, "Nodes with a card of these.", "No node has a card."),
        _label_field("One a line; several values mean any of them. A node must carry all of the labels."),
        Field("trust", "Least trust", value="", mono=True, optional=True, placeholder="0", help="From 0 to 100."),
        Field(
            "backfill",
            "Reserved starts",
            "select",
            value=Mode.EASY.value,
            choices=BACKFILL,
            help="Later jobs may go ahead only if they make no reserved start later.",
        ),
        Field(
            "priority_reach",
            "Priority",
            "select",
            value=Reach.WITHIN.value,
            choices=REACH,
            help="Across tenants, bound what each may name: highest priority, in its quota.",
        ),
    )
    if pool is not None:
        query = pool.query
        values = {"name": pool.name, "description": pool.description, "backfill": pool.backfill}
        values["priority_reach"] = pool.priority_reach
        form.fill({**values, **_query_values(query)})
        form["trust"].value = str(query.get("trust", ""))
    return form


def flavor_form(known: Known, flavor: Flavor | None = None) -> Form:
    """A flavor's form: empty, or as the flavor is."""
    form = _form(
        Field("name", "Name", mono=True, placeholder="a100", help="Quotas refer to it by this name. It stays."),
        Field("position", "Position", value="0", mono=True, help="Flavors are asked in this order, 0 first."),
        _checks("gpu_models", "GPU models", known.gpu_models, "Nodes with a card of these.", "No node has a card."),
        _label_field("One a line; several values mean any of them. Nothing here takes every node of the pool."),
    )
    if flavor is not None:
        form.fill({"name": flavor.name, "position": str(flavor.position), **_query_values(flavor.match)})
    return form


def _query_values(query: Mapping[str, Any]) -> dict[str, Any]:
    labels = "\n".join(f"{key}={','.join(values)}" for key, values in query.get("labels", {}).items())
    return {**{name: query.get(name, []) for name in LISTED}, "labels": labels}


def pool_query(values: Mapping[str, str]) -> dict[str, Any]:
    """A pool's query from what was typed; what was left empty does not restrict. Raises Invalid."""
    errors: list[FieldError] = []
    read = Reader(values, errors, POOL_PATHS)
    query = _query(values, read, LISTED)
    if read.text("trust"):
        query["trust"] = read.integer("trust", 0)
    return _checked(query, errors)


def flavor_data(values: Mapping[str, str]) -> dict[str, Any]:
    """A flavor's match and position from what was typed. Raises Invalid."""
    errors: list[FieldError] = []
    read = Reader(values, errors, FLAVOR_PATHS)
    data = {"match": _query(values, read, ("gpu_models",)), "position": read.integer("position", 0)}
    return _checked(data, errors)


def _query(values: Mapping[str, str], read: Reader, listed: Sequence[str]) -> dict[str, Any]:
    query: dict[str, Any] = {name: found for name in listed if (found := several(values, name))}
    pairs = read.pairs("labels", "key=value or key=value,value")
    labels = {key: [part.strip() for part in value.split(",")] for key, value in pairs.items()}
    return {**query, "labels": labels} if labels else query


def _checked(data: dict[str, Any], errors: list[FieldError]) -> dict[str, Any]:
    if errors:
        raise Invalid(errors[0]["message"], errors=errors)
    return data


def terms_form(clusters: Sequence[tuple[str, str]], terms: Contribution | None = None) -> Form:
    """The form of a contribution: with the defaults of a new one, or as its terms are."""
    form = _form(
        Field("cluster", "Cluster", "select", choices=clusters),
        Field("share_percent", "Share", value="100", mono=True, help="Of each node's capacity, in per cent."),
        Field(
            "consumers",
            "Domains",
            optional=True,
            mono=True,
            placeholder="every domain",
            help="Whose tenants may use it, separated by commas. Empty: everybody's.",
        ),
        Field("trust", "Trust", value="1", mono=True, help="0 to 100; jobs can ask for a least one."),
        Field(
            "jurisdictions",
            "Jurisdictions",
            optional=True,
            mono=True,
            placeholder="EU, DE",
            help="Under whose law data on it lies, separated by commas; jobs can ask for one.",
        ),
        Field("starts_at", "From", "datetime-local", optional=True, help="UTC. Empty: at once."),
        Field("ends_at", "Until", "datetime-local", optional=True, help="UTC. Empty: until further notice."),
        Field(
            "windows",
            "Windows",
            "textarea",
            optional=True,
            mono=True,
            rows=3,
            placeholder="mon,tue,wed,thu,fri 18:00-08:00\nsat,sun 00:00-24:00",
            help="One a line: days, from and to; an earlier end is on the next day. Empty: always. "
            "A job starts only if its time limit ends before the window does.",
        ),
        Field("timezone", "Time zone", value="UTC", mono=True, placeholder="Europe/Zurich", help="Of the windows."),
        Field("cap_cpu", "CPU", optional=True, mono=True, placeholder="no limit", help="Cores (64) or millicores."),
        Field("cap_memory", "Memory", optional=True, mono=True, placeholder="no limit", help="Such as 256Gi."),
        Field("cap_gpu", "GPUs", optional=True, mono=True, placeholder="no limit", help="Cards; 0.5 is half of one."),
        Field("price_per_cpu_hour", "CPU", value="0", mono=True, help="Per core and hour."),
        Field("price_per_gpu_hour", "GPU", value="0", mono=True, help="Per card and hour."),
        Field("notice", "Notice", value="0s", mono=True, help="Warning before it is taken back: 30m, 2h, 7d."),
    )
    if terms is not None:
        form.fill(
            {
                "cluster": terms.cluster.name,
                "share_percent": str(terms.share_percent),
                "consumers": ", ".join(domain.slug for domain in terms.consumers.all()),
                "trust": str(terms.trust),
                "jurisdictions": ", ".join(terms.jurisdictions),
                "starts_at": _minute(terms.starts_at),
                "ends_at": _minute(terms.ends_at),
                "price_per_cpu_hour": f"{terms.price_per_cpu_hour.normalize():f}",
                "price_per_gpu_hour": f"{terms.price_per_gpu_hour.normalize():f}",
                "notice": format_duration(terms.notice_seconds),
                "windows": "\n".join(map(window_text, terms.windows)),
                "timezone": terms.timezone,
                "cap_cpu": _or_none(format_cpu, terms.cap_cpu_millicores),
                "cap_memory": _or_none(format_size, terms.cap_memory_bytes),
                "cap_gpu": _or_none(format_cpu, terms.cap_gpu_milli),
            }
        )
    return form


def window_text(window: Mapping[str, Any]) -> str:
    """A window as it is typed: `mon,tue 18:00-08:00`."""
    return f"{','.join(window['days'])} {window['from']}-{window['to']}"


def _or_none(shown: Callable[[int], str], amount: int | None) -> str:
    return "" if amount is None else shown(amount)


def _minute(moment: datetime | None) -> str:
    """As the browser's own field writes a time; seconds only where there are some."""
    if moment is None:
        return ""
    precision = "seconds" if moment.second else "minutes"
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec=precision)


def terms_data(values: Mapping[str, str]) -> dict[str, Any]:
    """Terms of lending from what was typed, `consumers` as slugs. Raises Invalid for what cannot be read."""
    errors: list[FieldError] = []
    read = _TermsReader(values, errors, TERMS_PATHS)
    data = {
        "share_percent": read.integer("share_percent", 100),
        "consumers": read.listed("consumers"),
        "trust": read.integer("trust", 1),
        "jurisdictions": [name.upper() for name in read.listed("jurisdictions")],
        "starts_at": read.moment("starts_at"),
        "ends_at": read.moment("ends_at"),
        "price_per_cpu_hour": read.price("price_per_cpu_hour"),
        "price_per_gpu_hour": read.price("price_per_gpu_hour"),
        "notice_seconds": read.seconds("notice"),
        "windows": read.windows("windows"),
        "timezone": read.text("timezone") or "UTC",
        "cap_cpu_millicores": read.quantity("cap_cpu", parse_cpu),
        "cap_memory_bytes": read.quantity("cap_memory", parse_size),
        "cap_gpu_milli": read.quantity("cap_gpu", parse_cpu),
    }
    return _checked(data, errors)


class _TermsReader(Reader):
    """Reads times, prices and durations besides."""

    def moment(self, name: str) -> datetime | None:
        """A time without a zone is UTC."""
        raw = self.text(name)
        if not raw:
            return None
        try:
            found = datetime.fromisoformat(raw)
            return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
        except (ValueError, OverflowError):
            self.fault(name, f"{raw!r} is not a time such as 2026-01-31T12:00.")
            return None

    def price(self, name: str) -> Decimal:
        raw = self.text(name) or "0"
        try:
            found = Decimal(raw)
        except InvalidOperation:
            self.fault(name, f"{raw!r} is not a price such as 0.25.")
            return Decimal(0)
        if found.is_finite() and found != round(found, 6):
            self.fault(name, f"{raw} has more than six decimal places.")
        return found

    def windows(self, name: str) -> list[dict[str, Any]]:
        """One window a line; what its days and times are is for the command to check."""
        found = []
        for line in self.lines(name):
            days, _, times = line.rpartition(" ")
            begins, dash, ends = times.partition("-")
            if not days or not dash:
                self.fault(name, f"{line!r} is not a window such as mon,tue 18:00-08:00.")
                continue
            named = [day for day in re.split(r"[,\s]+", days.strip().lower()) if day]
            found.append({"days": named, "from": begins.strip(), "to": ends.strip()})
        return found

    def quantity(self, name: str, parse: Callable[[object], int]) -> int | None:
        """An amount with its unit; None where nothing was typed."""
        raw = self.text(name)
        try:
            return parse(raw) if raw else None
        except BadValue as error:
            self.fault(name, error.message)
            return None

    def seconds(self, name: str) -> int:
        try:
            return round(parse_duration(self.text(name) or "0"))
        except BadValue as error:
            self.fault(name, error.message)
            return 0


def node_form(node: Node) -> Form:
    """The labels and taints of a node, one a line."""
    labels = "\n".join(f"{key}={value}" for key, value in node.labels.items())
    return _form(
        Field(
            "labels",
            "Labels",
            "textarea",
            value=labels,
            optional=True,
            mono=True,
            rows=7,
            placeholder="zone=a\ndisk=ssd",
            help="One a line: key=value. Pools, flavors and jobs select nodes by them.",
        ),
        Field(
            "taints",
            "Taints",
            "textarea",
            value="\n".join(_taint_line(taint) for taint in node.taints),
            optional=True,
            mono=True,
            rows=4,
            placeholder="dedicated=vision:NoSchedule",
            help="One a line: key=value:NoSchedule. New jobs stay away unless they tolerate it; "
            "what runs stays.",
        ),
    )


def _taint_line(taint: Mapping[str, str]) -> str:
    value = f"={taint['value']}" if taint.get("value") else ""
    return f"{taint['key']}{value}:{taint['effect']}"


def node_data(values: Mapping[str, str]) -> dict[str, Any]:
    """Labels and taints from what was typed. Raises Invalid for lines that cannot be read."""
    errors: list[FieldError] = []
    read = Reader(values, errors, NODE_PATHS)
    taints = []
    for line in read.lines("taints"):
        named, colon, effect = line.rpartition(":")
        key, _, value = (named if colon else line).partition("=")
        taint = {"key": key.strip(), "value": value.strip()}
        taints.append({**taint, "effect": effect.strip()} if colon else taint)
    return _checked({"labels": read.pairs("labels", "key=value"), "taints": taints}, errors)
