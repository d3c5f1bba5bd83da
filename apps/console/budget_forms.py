"""The forms of a budget: whose it is, what it counts, and how much of that there may be."""

import re
from collections.abc import Sequence

from apps.core.errors import Invalid
from apps.quotas.budgets import stamp
from apps.quotas.models import OVER_TIME, Budget, Measure, Period

from .forms import Field, Form
from .words import per

# The field of each path that the commands may name in an error.
PATHS = {
    "of": "tenant", "workflow": "workflow", "user": "user", "kind": "measure", "window": "period", "amount": "amount",
    "hard": "hard",
}  # fmt: skip
PERSON = "user:"
# What has just passed; how long that is stands in a field of its own.
WINDOW = "window"
# Use over time of each period first, then what is counted at every moment.
KINDS = [
    *((measure, period) for measure in reversed(OVER_TIME) for period in (*reversed(Period), WINDOW)),
    *((measure, "") for measure in (Measure.RUNNING, Measure.PENDING, Measure.SUBMISSIONS)),
]
NUMBER = re.compile(r"-?\d{1,13}(\.\d{1,6})?", re.ASCII)


def new_form(tenants: Sequence[tuple[str, str]], domains: Sequence[tuple[str, str]], *, everywhere: bool) -> Form:
    """The form of a new budget; tenants and domains as (slug, name), and people `everywhere` for who may set that."""
    owners = [
        *((f"tenant:{slug}", f"Tenant {name}") for slug, name in tenants),
        *((f"domain:{slug}", f"Domain {name}, all its tenants") for slug, name in domains),
        *([(PERSON, "A person, in all tenants")] if everywhere else []),
    ]
    kinds = [(f"{measure}:{period}", _kind(measure, period)) for measure, period in KINDS]
    fields = [
        Field("of", "For", "select", choices=owners),
        Field(
            "workflow", "Only its workflow", optional=True, mono=True, placeholder="etl",
            help="Name of one workflow of the tenant: the jobs of all its runs count.",
        ),
        Field(
            "user", "Only its member" if tenants else "The person", optional=True, placeholder="alice",
            help="User name: of a member whose jobs in the tenant count, or of the person.",
        ),
        Field("kind", "What is counted", "select", choices=kinds, help="Periods are those of the calendar, in UTC."),
        Field(
            "window", "Window", optional=True, mono=True, placeholder="24h",
            help="Where it moves: the last so many hours or days, such as 24h or 7d.",
        ),
        _amount("Hours, a number of jobs, or cost in the unit of the lenders' prices."),
        _hard(True),
    ]  # fmt: skip
    return Form({item.name: item for item in fields})


def _kind(measure: str, period: str) -> str:
    return f"{per(measure, '')} in a window that moves" if period == WINDOW else per(measure, period)


def edit_form(budget: Budget) -> Form:
    """The form of a budget that is there: how much, and for hours whether it is a limit."""
    hours = budget.measure in OVER_TIME
    unit = "In the unit of the lenders' prices." if budget.measure == Measure.COST else "Hours." if hours else "Jobs."
    fields = [_amount(unit, f"{budget.amount:.6f}".rstrip("0").rstrip("."))]
    if hours:
        fields.append(_hard(budget.hard))
    fields.append(Field("seen", "", value=stamp(budget)))
    return Form({item.name: item for item in fields})


def _amount(unit: str, value: str = "") -> Field:
    return Field("amount", "How much", value=value, mono=True, placeholder="100", help=unit)


def _hard(value: bool) -> Field:
    return Field(
        "hard", "At the limit", "check", value, placeholder="Nothing further starts",
        help="Unticked it only warns, which only a budget of hours or cost can.",
    )  # fmt: skip


def amount_of(form: Form) -> float:
    """The amount that was typed. Raises Invalid for what is no number."""
    text = str(form["amount"].value).strip()
    if NUMBER.fullmatch(text) is None:
        raise Invalid.field("amount", f"{text!r} is not a number such as 100 or 12.5.")
    return float(text)


def kind_of(form: Form) -> tuple[str, str]:
    """The measure and the period that were chosen. Raises Invalid for others."""
    measure, _, period = str(form["kind"].value).partition(":")
    if (measure, period) not in KINDS:
        raise Invalid.field("measure", "Choose what is counted.")
    window = str(form["window"].value).strip()
    if period == WINDOW:
        return measure, window
    if window:
        raise Invalid.field("period", "To count what has just passed, choose a window that moves above.")
    return measure, period
