"""The only writers of budgets."""

import math
from datetime import timedelta

from django.contrib.auth.models import AbstractUser
from django.db import IntegrityError, transaction

from apps.core.actors import Actor
from apps.core.errors import Conflict, Invalid
from apps.events.record import Fact, record
from apps.tenants.models import Domain, Tenant

from . import policies
from .models import OVER_TIME, WINDOW, Budget, Measure, Period, SetBy

MAX_BUDGET = 1e12
# What is kept by the hour goes back so far.
MAX_WINDOW = timedelta(days=31)
# A rate is looked up by its so many-th latest job.
MAX_COUNT = 100_000
# Who submits a job or triggers a run is refused; tasks are submitted by the portal itself and are not.
AT_SUBMISSION = frozenset({Measure.PENDING, Measure.SUBMISSIONS})


def _checked(measure: str, period: str, amount: float, hard: bool) -> None:
    """Refuse what means nothing, naming the field."""
    if measure not in OVER_TIME and period:
        raise Invalid.field("period", f"{measure} are counted at every moment: leave the period out.")
    if measure not in OVER_TIME and not hard:
        raise Invalid.field("hard", f"only use over time can be watched without a limit, not {measure}.")
    most = MAX_BUDGET if measure in OVER_TIME else MAX_COUNT
    if not math.isfinite(amount) or not 0 <= amount <= most:
        raise Invalid.field("amount", f"a number from 0 to {most:.0f}.", "out_of_range")
    if measure not in OVER_TIME and not float(amount).is_integer():
        raise Invalid.field("amount", f"a whole number of {measure}.", "out_of_range")
    if measure == Measure.SUBMISSIONS and amount < 1:
        raise Invalid.field("amount", "at least one submission a minute; to stop a tenant, suspend it.", "out_of_range")


def checked_period(period: str) -> str:
    """A calendar period, or a window as it is stored. Raises Invalid naming what there is."""
    if period in Period.values:
        return period
    found = WINDOW.fullmatch(period)
    if found is None:
        words = ", ".join(Period.values)
        raise Invalid.field("period", f"{words}, or what has just passed, such as 24h or 7d.", "required")
    hours = int(found[1]) * (1 if found[2] == "h" else 24)
    if timedelta(hours=hours) > MAX_WINDOW:
        raise Invalid.field("period", f"a window of at most {MAX_WINDOW.days} days.", "out_of_range")
    # One window has one name.
    return f"{hours // 24}d" if hours % 24 == 0 else f"{hours}h"


def _recorded(actor: Actor, verb: str, budget: Budget) -> None:
    facts = {
        "of": budget.of, "measure": budget.measure, "period": budget.period, "amount": budget.amount,
        "hard": budget.hard, "set_by": budget.set_by, "workflow": budget.workflow, "user": budget.user_id,
    }  # fmt: skip
    fact = Fact(
        verb, "budget", budget.pk, tenant_id=budget.tenant_id, domain_id=budget.domain_id, facts=facts,
        topics=("quota",),
    )  # fmt: skip
    record(actor, fact)


@transaction.atomic
def create_budget(
    *,
    actor: Actor,
    measure: str,
    amount: float,
    period: str = "",
    hard: bool = True,
    domain: Domain | None = None,
    tenant: Tenant | None = None,
    workflow: str = "",
    user: AbstractUser | None = None,
) -> Budget:
    """Give a domain, a tenant, one of its workflows or members, or a person everywhere a budget.

    `workflow` is the name of one that the tenant has, `user` (with a tenant) a member: the caller has looked. It
    stands beside those that people of a higher or lower right have set, and all of them bind. Raises Invalid, and
    Conflict where there is a budget of the kind.
    """
    if (domain is not None) + (tenant is not None) + (user is not None and tenant is None) != 1:
        raise Invalid.field("tenant", "name exactly one of domain, tenant and user.", "required")
    if workflow and tenant is None:
        raise Invalid.field("workflow", "name the tenant that the workflow belongs to as well.", "required")
    if workflow and user is not None:
        raise Invalid.field("workflow", "a budget is of a workflow or of a member, not of both.")
    budget = Budget(
        domain=domain,
        tenant=tenant,
        workflow=workflow,
        user_id=user.pk if user is not None else None,
        measure=measure,
        period=checked_period(period) if measure in OVER_TIME else period,
        amount=amount,
        hard=hard,
        set_by=SetBy.TENANT,
    )
    policies.budgets.require(actor, "create", budget)
    budget.set_by = policies.right_to_set(actor, budget) or SetBy.TENANT
    _checked(measure, budget.period, amount, hard)
    try:
        with transaction.atomic():
            budget.save(force_insert=True)
    except IntegrityError:
        raise Conflict("There is a budget of this kind already: change that one.", code="exists") from None
    _recorded(actor, "budget.created", budget)
    return budget


def stamp(budget: Budget) -> str:
    """What can be changed of a budget, as text; another one means that somebody has changed it."""
    return f"{float(budget.amount)!r} {'hard' if budget.hard else 'soft'}"


@transaction.atomic
def change_budget(
    *, actor: Actor, budget_id: int, amount: float | None = None, hard: bool | None = None, seen: str | None = None
) -> Budget:
    """Raise or lower a budget, or make it hard or soft; what waits for it is looked at again at once.

    `seen` is the `stamp` of what the writer looked at: raises Conflict (`changed_meanwhile`) when it is not that any
    more. Setting what is set already changes nothing.
    """
    budget = policies.budgets.get(actor, "update", lock=True, pk=budget_id)
    present = stamp(budget)
    if seen is not None and seen != present:
        limit = f"{budget.amount:g}, {'a limit' if budget.hard else 'which only warns'}"
        raise Conflict(
            f"The budget was changed by somebody else meanwhile: it is {limit}. Compare it with yours and save again.",
            code="changed_meanwhile",
        )
    budget.amount = budget.amount if amount is None else amount
    budget.hard = budget.hard if hard is None else hard
    _checked(budget.measure, budget.period, budget.amount, budget.hard)
    if stamp(budget) == present:
        return budget
    # The new amount is warned of anew.
    budget.warned_on, budget.warned_percent = None, 0
    budget.save(update_fields=["amount", "hard", "warned_on", "warned_percent"])
    _recorded(actor, "budget.changed", budget)
    return budget


@transaction.atomic
def delete_budget(*, actor: Actor, budget_id: int) -> None:
    """Take a budget away; what was used stays counted for later ones."""
    budget = policies.budgets.get(actor, "delete", lock=True, pk=budget_id)
    _recorded(actor, "budget.deleted", budget)
    budget.delete()
