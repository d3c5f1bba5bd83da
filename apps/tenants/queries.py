"""Reads of domains, tenants, people and their credentials; all limited to what the actor may see."""

from django.contrib.auth.models import AbstractUser
from django.db.models import QuerySet

from apps.core.actors import Actor
from apps.core.crypto import unseal
from apps.core.errors import Invalid

from . import policies
from .models import ApiToken, Membership, Secret, Tenant


def list_tenants(actor: Actor) -> QuerySet[Tenant]:
    """Tenants with their domain."""
    return policies.tenants.visible(actor).select_related("domain")


def list_members(actor: Actor, tenant: Tenant) -> QuerySet[Membership]:
    """Members of one tenant."""
    return policies.memberships.visible(actor).filter(tenant=tenant).select_related("user", "tenant")


def list_tokens(actor: Actor) -> QuerySet[ApiToken]:
    """The actor's own API tokens."""
    return policies.tokens.visible(actor)


def list_secrets(actor: Actor, tenant: Tenant) -> QuerySet[Secret]:
    """Names (never values) of a tenant's secrets."""
    return policies.secrets.visible(actor).filter(tenant=tenant)


def tenant_named(actor: Actor, slug: str | None) -> Tenant:
    """The tenant that a submission means: the named one, or the only one the actor may submit to."""
    if slug:
        return policies.tenants.get(actor, slug=slug)
    mine = [tenant for tenant in list_tenants(actor) if policies.tenants.allows(actor, "submit", tenant)]
    if len(mine) == 1:
        return mine[0]
    known = ", ".join(tenant.slug for tenant in mine[:10]) or "none"
    raise Invalid.field("tenant", f"name the tenant; you can submit to: {known}.", "required")


def person_named(actor: Actor, tenant: Tenant | None, username: str) -> AbstractUser:
    """The member with this name of a tenant that the actor may give a budget; without a tenant, for those who see all
    people, anybody. Raises Invalid for somebody who is no member, NotFound for somebody who is not there."""
    if tenant is None:
        return policies.users.get(actor, username=username)
    found = Membership.objects.filter(tenant=tenant, user__username=username).select_related("user").first()
    if found is None:
        raise Invalid.field("user", f"tenant {tenant.slug} has no member {username}.", "unknown")
    return found.user


def tenant_to_budget(actor: Actor, slug: str) -> Tenant:
    """The tenant of a budget: one that the actor sees, or of a domain that they have a role in. Raises NotFound."""
    found = Tenant.objects.filter(slug=slug, domain__in=list(actor.domain_roles)).select_related("domain").first()
    return found if found is not None and actor.has_scope("read") else policies.tenants.get(actor, slug=slug)


def secret_values(tenant_id: int, names: set[str]) -> dict[str, str]:
    """Values of a tenant's secrets, for the assignment of a job that refers to them; absent names are left out."""
    rows = Secret.objects.filter(tenant_id=tenant_id, name__in=names).values_list("name", "ciphertext")
    return {name: unseal(ciphertext) for name, ciphertext in rows}
