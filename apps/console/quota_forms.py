"""The form of a quota node: its weight, and for each flavor and resource how much, how far it borrows and lends."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, Decimal
from typing import Any

from apps.core.errors import FieldError, Invalid
from apps.fleet.models import Pool
from apps.quotas.commands import MAX_AMOUNT, POLICIES
from apps.quotas.models import QuotaLimit, Resource
from apps.quotas.queries import QuotaCell, QuotaRow
from rmctl.spec import BadValue
from rmctl.spec.quantities import format_cpu, format_size, parse_size

from .forms import Field, Form
from .words import cards

PARTS = {"nominal": "Nominal", "borrowing_limit": "Borrowing limit", "lending_limit": "Lending limit"}
EMPTY = {"nominal": "none", "borrowing_limit": "no limit", "lending_limit": "no limit"}
UNITS = {
    Resource.CPU: "cores",
    Resource.MEMORY: "such as 64Gi",
    Resource.STORAGE: "such as 1Ti",
    Resource.GPU: "cards",
}
HIGHEST_HELP = "That jobs may name, here and below. Empty: as above, else 1000."
WEIGHT_HELP = "Against its siblings when they compete: 2 gets twice the share of 1."
THOUSANDTHS = re.compile(r"(\d{1,13}(?:\.\d{1,9})?)(m)?", re.ASCII)
# Rules of a tenant's leaf, as they are asked for: label and help.
RULES = {
    "strategy": ("Order", "Strict: who cannot start blocks those behind."),
    "within_queue": ("May evict its own", "Jobs of this tenant, for one that waits."),
    "reclaim": ("May evict others", "Jobs of tenants that have borrowed."),
    "borrow": ("May evict while borrowing", "Without fair sharing only."),
    "borrow_threshold": ("Up to priority", "Evicted while borrowing; empty: any below its own."),
    "when_can_borrow": ("If it would borrow", "Stop at that flavor, or try the next."),
    "when_can_preempt": ("If it would evict", "Stop at that flavor, or try the next."),
    "preference": ("Rather", "Where both would do in different flavors."),
    "minimum_run_seconds": ("Not evicted before", "Seconds that a job of this tenant runs at least."),
}
Key = tuple[str, str]  # flavor, resource


def shown(amount: int | None, resource: str) -> str:
    """An amount as it is typed: `1500` millicores → `1500m`, 2**30 bytes → `1Gi`, 1500 thousandths → `1.5`."""
    if amount is None:
        return ""
    if resource in (Resource.MEMORY, Resource.STORAGE):
        return format_size(amount)
    return format_cpu(amount) if resource == Resource.CPU else cards(amount).replace(",", "")


def typed(text: str, resource: str) -> int:
    """The amount that was typed, in millicores, bytes or thousandths of a card. Raises BadValue."""
    if resource in (Resource.MEMORY, Resource.STORAGE):
        return parse_size(text)
    match = THOUSANDTHS.fullmatch(text)
    if match is None or (match[2] and resource == Resource.GPU):
        right = 'cores such as 16, 0.5 or "500m"' if resource == Resource.CPU else "cards such as 4 or 0.5"
        raise BadValue("bad_quantity", f"{text!r} is not an amount of {resource}; give {right}.")
    number = Decimal(match[1]) * (1 if match[2] else 1000)
    amount = int(number.to_integral_value(rounding=ROUND_CEILING))
    if amount > MAX_AMOUNT:
        raise BadValue("absurd_quantity", f"{text} is more than any fleet has.")
    return amount


@dataclass(frozen=True, slots=True)
class Line:
    """One resource of a flavor: what is used of it now (`cell`, if there is a limit or use), and its fields."""

    resource: str
    unit: str
    cell: QuotaCell | None
    fields: list[Field]


@dataclass(frozen=True, slots=True)
class FlavorGroup:
    """A flavor's lines; `pool` is empty for a flavor that is gone and still has limits or use."""

    pool: str
    flavor: str
    lines: list[Line] = field(default_factory=list)

    @property
    def opened(self) -> bool:
        """Whether there is something to see: a limit, some use, or a fault."""
        return any(line.cell or any(item.value or item.error for item in line.fields) for line in self.lines)


@dataclass(slots=True)
class QuotaForm(Form):
    """The fields by name, and the same in groups as they are laid out."""

    root: bool = False
    groups: list[FlavorGroup] = field(default_factory=list)

    def parts(self) -> Iterable[str]:
        """What a limit consists of; a root has nobody to share with."""
        return ("nominal",) if self.root else PARTS

    def filled(self) -> list[Key]:
        """The lines with anything typed, which are the limits, in the order in which they are given."""
        keys = [(group.flavor, line.resource) for group in self.groups for line in group.lines]
        return [key for key in keys if any(self._text(part, key) for part in self.parts())]

    def paths(self) -> dict[str, str]:
        """The field of each path that the commands which save it may name in an error."""
        found = {name: name for name in ("weight", "highest_priority")} | {name: f"rules.{name}" for name in RULES}
        for position, key in enumerate(self.filled()):
            found |= {field_name(part, key): f"limits[{position}].{part}" for part in self.parts()}
            # What is wrong with a flavor as such (it is gone) stands at its first field.
            found[field_name("nominal", key)] = f"limits[{position}]"
        return found

    def limits(self) -> list[dict[str, Any]]:
        """What was typed, as `set_limits` takes it. Raises Invalid naming each field that cannot be read."""
        errors: list[FieldError] = []
        limits: list[dict[str, Any]] = []
        for position, (flavor, resource) in enumerate(self.filled()):
            limit: dict[str, Any] = {"flavor": flavor, "resource": resource}
            for part in self.parts():
                text, path = self._text(part, (flavor, resource)), f"limits[{position}].{part}"
                try:
                    limit[part] = typed(text, resource) if text else None
                except BadValue as error:
                    errors.append(FieldError(field=path, message=error.message, code=error.code))
                if part == "nominal" and not text:
                    message = "Give the nominal amount too; with 0 all of it is borrowed."
                    errors.append(FieldError(field=path, message=message, code="required"))
            limits.append(limit)
        if errors:
            raise Invalid(errors[0]["message"], errors=errors)
        return limits

    @property
    def highest_priority(self) -> int | None:
        """The bound that was typed. Raises Invalid for what is no number."""
        text = str(self.fields["highest_priority"].value).strip()
        if text and not re.fullmatch(r"-?[0-9]{1,12}", text):
            raise Invalid.field("highest_priority", f"{text!r} is not a whole number.")
        return int(text) if text else None

    def rules(self, present: Mapping[str, Any]) -> dict[str, Any]:
        """The rules that were changed, as `set_rules` takes them. Raises Invalid for what is no number."""
        changed: dict[str, Any] = {}
        for name in RULES if present else ():
            text = str(self.fields[name].value).strip()
            value: Any = text
            if name not in POLICIES:
                if not re.fullmatch(r"-?[0-9]{1,12}", text) and (text or name == "minimum_run_seconds"):
                    raise Invalid.field(f"rules.{name}", f"{text!r} is not a whole number.")
                value = int(text) if text else None
            if value != present[name]:
                changed[name] = value
        return changed

    @property
    def rule_fields(self) -> list[Field]:
        """The fields of the rules; none of a cohort."""
        return [self.fields[name] for name in RULES if name in self.fields]

    def _text(self, part: str, key: Key) -> str:
        return str(self.fields[field_name(part, key)].value).strip()


NODE_PATHS = {name: name for name in ("name", "parent", "tenant", "weight")}


def node_form(cohorts: Sequence[str], tenants: Sequence[tuple[str, str]]) -> Form:
    """The form of a new cohort or of a tenant's leaf; its limits come after."""
    parents = [("", "None: a tree of its own"), *((name, name) for name in cohorts)]
    fields = [
        Field("tenant", "For", "select", choices=[("", "A cohort, which others hang below"), *tenants]),
        Field("name", "Name", mono=True, placeholder="vision", help="Of the node in the tree. It stays."),
        Field("parent", "Below", "select", choices=parents, help="Whom it borrows from and lends to."),
        Field("weight", "Weight", value="1", mono=True, help=WEIGHT_HELP),
    ]
    return Form({item.name: item for item in fields})


def weight_of(form: Form) -> float:
    """The weight that was typed. Raises Invalid for what is no number."""
    text = form["weight"].value.strip()
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    if not math.isfinite(weight):
        raise Invalid.field("weight", f"{text!r} is not a weight such as 1 or 2.5.")
    return weight


def quota_form(row: QuotaRow, limits: Iterable[QuotaLimit], pools: Iterable[Pool]) -> QuotaForm:
    """The form of a node as it is, with a line for each resource of every flavor that there is."""
    weight = Field(
        "weight",
        "Weight",
        value=f"{row.weight:g}",
        mono=True,
        help=WEIGHT_HELP,
    )
    bound = "" if row.highest_priority is None else str(row.highest_priority)
    highest = Field("highest_priority", "Highest priority", value=bound, mono=True, optional=True, help=HIGHEST_HELP)
    form = QuotaForm({"weight": weight, "highest_priority": highest}, root=row.parent is None)
    form.fields |= {name: _rule(name, value) for name, value in (row.rules or {}).items() if name in RULES}
    cells = {(cell.flavor, cell.resource): cell for cell in row.cells}
    present = {(limit.flavor, limit.resource): limit for limit in limits}
    flavors = [(pool.name, flavor.name) for pool in pools for flavor in pool.flavors.all()]
    gone = {flavor for flavor, _ in (*cells, *present)} - {flavor for _, flavor in flavors}
    for pool, flavor in [*flavors, *(("", flavor) for flavor in sorted(gone))]:
        keys = [(flavor, resource) for resource in Resource.values]
        lines = [_line(form, key, cells.get(key), present.get(key)) for key in keys]
        form.groups.append(FlavorGroup(pool, flavor, lines))
    return form


def _rule(name: str, value: Any) -> Field:
    label, text = RULES[name]
    if name in POLICIES:
        choices = [(str(word), str(word).replace("_", " ").capitalize()) for word in POLICIES[name]]
        return Field(name, label, "select", str(value), text, choices=choices)
    return Field(name, label, value="" if value is None else str(value), help=text, mono=True)


def _line(form: QuotaForm, key: Key, cell: QuotaCell | None, limit: QuotaLimit | None) -> Line:
    resource = key[1]
    fields = []
    for part in form.parts():
        value = shown(getattr(limit, part), resource) if limit is not None else ""
        item = Field(field_name(part, key), PARTS[part], value=value, mono=True, placeholder=EMPTY[part])
        form.fields[item.name] = item
        fields.append(item)
    return Line(resource, UNITS[Resource(resource)], cell, fields)


def field_name(part: str, key: Key) -> str:
    """`nominal:cpu-spot:memory`; a flavor's name holds no colon."""
    return ":".join((part, *key))
