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
    "of": "tenant", "workflow": "workflow", "user": "user", "kind": "measure", "amount": "amount", "hard": "hard",
}  # fmt: skip
PERSON = "user:"
# Hours of each period first, then what is counted at every moment.
KINDS = [
    *((measure, period) for measure in reversed(OVER_TIME) for period in reversed(Period)),
    *((measure, "") for measure in (Measure.RUNNING, Measure.PENDING, Measure.SUBMISSIONS)),
]
NUMBER = re.compile(r"-?\d{1,13}(\.\d{1,6})?", re.ASCII)


def new_form(tenants: Sequence[tuple[str, str]], domains: Sequence[tuple[str, str]]) -> Form:
    """The form of a new budget; tenants and domains as (slug, name)."""
    owners = [
        *((f"tenant:{slug}", f"Tenant {name}") for slug, name in tenants),
        *((f"domain:{slug}", f"Domain {name}, all its tenants") for slug, name in domains),
        (PERSON, "A person, in all tenants"),
    ]
    kinds = [(f"{measure}:{period}", per(measure, period)) for measure, period in KINDS]
    fields = [
        Field("of", "For", "select", choices=owners),
        Field(
            "workflow", "Only its workflow", optional=True, mono=True, placeholder="etl",
            help="Name of one workflow of the tenant: the jobs of all its runs count.",
        ),
        Field("user", "The person", optional=True, placeholder="alice", help="User name, where it is for a person."),
        Field("kind", "What is counted", "select", choices=kinds, help="Periods are those of the calendar, in UTC."),
        _amount("Hours, or a number of jobs."),
        _hard(True),
    ]  # fmt: skip
    return Form({item.name: item for item in fields})


def edit_form(budget: Budget) -> Form:
    """The form of a budget that is there: how much, and for hours whether it is a limit."""
    hours = budget.measure in OVER_TIME
    fields = [_amount("Hours." if hours else "Jobs.", f"{budget.amount:.6f}".rstrip("0").rstrip("."))]
    if hours:
        fields.append(_hard(budget.hard))
    fields.append(Field("seen", "", value=stamp(budget)))
    return Form({item.name: item for item in fields})


def _amount(unit: str, value: str = "") -> Field:
    return Field("amount", "How much", value=value, mono=True, placeholder="100", help=unit)


def _hard(value: bool) -> Field:
    return Field(
        "hard", "At the limit", "check", value, placeholder="Nothing further starts",
        help="Unticked it only warns, which only a budget of hours can.",
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
    return measure, period
