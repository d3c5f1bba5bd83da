"""Budgets: the forms that make and change one, and the rows that show how much of each is used."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.contrib.auth.models import AbstractUser
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_POST

from apps.core.actors import Actor
from apps.core.errors import DomainError, Invalid, NotFound
from apps.jobs.budgets import Use, uses
from apps.quotas import budgets as commands
from apps.quotas.models import Budget, SetBy
from apps.quotas.policies import budgets as policy
from apps.tenants import policies as tenant_policies
from apps.tenants.models import Domain, Tenant
from apps.tenants.queries import list_tenants, person_named, tenant_to_budget
from apps.workflows.policies import workflows
from apps.workflows.queries import workflow_named

from ..budget_forms import PATHS, amount_of, edit_form, kind_of, new_form
from ..forms import Form
from ..pages import page, show, text

CHOOSE = "Choose a tenant, a domain or a person."


@dataclass(frozen=True, slots=True)
class BudgetRow:
    """One budget with what is used of it; `workflow_id` where its workflow has a page that the reader may open."""

    use: Use
    may_edit: bool
    workflow_id: int | None


def budget_rows(actor: Actor, budgets: Iterable[Budget]) -> list[BudgetRow]:
    """Rows for the table of budgets, those that are nearest to their limit first."""
    found = uses(list(budgets), timezone.now())
    named = {(use.budget.tenant_id, use.budget.workflow) for use in found if use.budget.workflow}
    pages: dict[tuple[int | None, str], int] = {}
    if named:
        seen = workflows.visible(actor).filter(
            tenant__in={tenant for tenant, _ in named}, name__in={name for _, name in named}
        )
        pages = {(tenant, name): pk for pk, tenant, name in seen.values_list("pk", "tenant_id", "name")}
    rows = [
        BudgetRow(
            use, policy.allows(actor, "update", use.budget), pages.get((use.budget.tenant_id, use.budget.workflow))
        )
        for use in found
    ]
    return sorted(rows, key=lambda row: -row.use.used / (row.use.budget.amount or 1))


def budgets_of(actor: Actor, *where: Q) -> QuerySet[Budget]:
    """The budgets that the actor sees, with those whose they are."""
    return policy.visible(actor).filter(*where).select_related("tenant", "domain", "user")


def back_to(budget: Budget) -> str:
    """Where a budget is shown: the page of its tenant, or the quotas."""
    if budget.tenant is not None:
        return reverse("console:tenant", args=[budget.tenant.slug])
    return f"{reverse('console:quotas')}#budgets"


@require_http_methods(["GET", "HEAD", "POST"])
@page
def budget_new(request: HttpRequest, actor: Actor) -> HttpResponse:
    """Give a tenant, a workflow, a domain or a person a budget; refusals stand beside their fields."""
    policy.require(actor, "create", None)
    tenants = [(tenant.slug, tenant.name) for tenant in budgeted_tenants(actor)]
    domains = [
        (one.slug, one.name)
        for one in tenant_policies.domains.visible(actor).order_by("name")
        if policy.allows(actor, "create", Budget(domain=one, set_by=SetBy.TENANT))
    ]
    form = new_form(tenants, domains, everywhere=actor.operator)
    refused = False
    if request.method == "POST":
        form.fill(request.POST)
        try:
            made = _create(actor, form)
        except DomainError as error:
            form.refuse(error, PATHS)
            refused = True
        else:
            messages.success(request, f"There is a budget of {made.of} now.")
            return redirect(back_to(made))
    else:
        form["of"].value = f"tenant:{text(request, 'tenant')}"
        form["workflow"].value = text(request, "workflow")
    context = {
        "crumbs": [{"label": "Quotas", "url": reverse("console:quotas")}, {"label": "New budget"}],
        "form": form,
    }
    return show(request, "console/quotas/budget_new.html", context, status=422 if refused else 200)


def budgeted_tenants(actor: Actor) -> list[Tenant]:
    """Those that the actor may give a budget: of the ones they see, and of a provider's domain."""
    rows = Tenant.objects.filter(Q(pk__in=list_tenants(actor).values("pk")) | Q(domain__in=list(actor.domain_roles)))
    return [one for one in rows.select_related("domain").order_by("name") if may_budget(actor, one)]


def may_budget(actor: Actor, tenant: Tenant) -> bool:
    """Whether the actor may give a tenant, its workflows and its members budgets."""
    return policy.allows(actor, "create", Budget(tenant=tenant, set_by=SetBy.TENANT))


def _create(actor: Actor, form: Form) -> Budget:
    tenant, domain, user = _owner(actor, form)
    workflow = str(form["workflow"].value).strip()
    measure, period = kind_of(form)
    return commands.create_budget(
        actor=actor,
        measure=measure,
        period=period,
        amount=amount_of(form),
        hard=bool(form["hard"].value),
        tenant=tenant,
        domain=domain,
        user=user,
        workflow=workflow_named(actor, tenant, workflow) if workflow else "",
    )


def _owner(actor: Actor, form: Form) -> tuple[Tenant | None, Domain | None, AbstractUser | None]:
    """Whose budget it is to be. Raises Invalid naming the field for somebody who is not there."""
    kind, _, slug = str(form["of"].value).partition(":")
    username = str(form["user"].value).strip()
    if username and kind == "domain":
        raise Invalid.field("user", "A budget of a person is for one tenant or for all: choose that above.")
    try:
        if kind == "tenant":
            tenant = tenant_to_budget(actor, slug)
            return tenant, None, person_named(actor, tenant, username) if username else None
        if kind == "domain":
            return None, tenant_policies.domains.get(actor, slug=slug), None
        if kind == "user":
            return None, None, person_named(actor, None, username)
    except NotFound as error:
        raise Invalid.field("user" if kind == "user" else "tenant", error.detail) from None
    raise Invalid.field("tenant", CHOOSE)


@require_http_methods(["GET", "HEAD", "POST"])
@page
def budget(request: HttpRequest, actor: Actor, budget_id: int) -> HttpResponse:
    """Raise or lower a budget, with what is used of it beside."""
    found = policy.get(actor, "update", pk=budget_id)
    form = edit_form(found)
    refused = False
    if request.method == "POST":
        present = form["seen"].value
        form.fill(request.POST)
        try:
            hard = bool(form["hard"].value) if "hard" in form.fields else None
            commands.change_budget(
                actor=actor, budget_id=budget_id, amount=amount_of(form), hard=hard, seen=form["seen"].value
            )
        except DomainError as error:
            form.refuse(error, PATHS)
            refused = True
            # Who was told of another's change has seen it; any other refusal tells nothing of that.
            if error.code == "changed_meanwhile":
                form["seen"].value = present
        else:
            messages.success(request, f"The budget of {found.of} is saved.")
            return redirect(back_to(found))
    context: dict[str, Any] = {
        "crumbs": [{"label": "Quotas", "url": reverse("console:quotas")}, {"label": f"Budget of {found.of}"}],
        "form": form,
        "rows": budget_rows(actor, [found]),
        "budget": found,
        "back": back_to(found),
    }
    return show(request, "console/quotas/budget.html", context, status=422 if refused else 200)


@require_POST
@page
def budget_delete(request: HttpRequest, actor: Actor, budget_id: int) -> HttpResponse:
    """Take a budget away; what it held back starts."""
    found = policy.get(actor, "delete", pk=budget_id)
    commands.delete_budget(actor=actor, budget_id=budget_id)
    messages.success(request, f"The budget of {found.of} is gone.")
    return redirect(back_to(found))
