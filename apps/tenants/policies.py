"""Who may see and change domains, tenants, members, tokens and secrets."""

from typing import Any, ClassVar, TypeVar

from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractUser
from django.db.models import Model, Q, QuerySet

from apps.core.actors import Actor
from apps.core.policies import Policy, operator

from .models import ApiToken, Domain, Membership, Role, Secret, StoredValue, Tenant

M = TypeVar("M", bound=Model)


def tenant_admin(actor: Actor, tenant: Tenant) -> bool:
    """Operators, and admins of this tenant."""
    return actor.operator or actor.tenant_roles.get(tenant.pk) == Role.ADMIN


def tenant_member(actor: Actor, tenant: Tenant) -> bool:
    """Operators, and those who may act (not only look) in this tenant."""
    return actor.operator or actor.tenant_roles.get(tenant.pk) in (Role.ADMIN, Role.MEMBER)


def provider_of(actor: Actor, domain_id: int) -> bool:
    """Operators, and providers of the domain."""
    return actor.operator or actor.domain_roles.get(domain_id) == Role.PROVIDER


def tenant_visible(actor: Actor, prefix: str = "") -> Q:
    """A condition on rows whose tenant is at `prefix`: everything for operators and auditors, else own tenants."""
    if actor.operator or actor.auditor:
        return Q()
    return Q(**{f"{prefix}in": list(actor.tenant_roles)})


def works_for(actor: Actor, row: Any) -> bool:
    """Operators, and members and admins of the tenant that owns the row (its `tenant_id`)."""
    return actor.operator or actor.tenant_roles.get(row.tenant_id) in (Role.ADMIN, Role.MEMBER)


class OwnedPolicy(Policy[M]):
    """For what belongs to a tenant, found through `owner` (a lookup): seen by whoever sees that tenant."""

    owner: ClassVar[str] = "tenant"

    def _visible(self, actor: Actor, rows: QuerySet[M]) -> QuerySet[M]:
        return rows.filter(tenant_visible(actor, f"{self.owner}__"))


class DomainPolicy(Policy[Domain]):
    model = Domain
    noun = "domain"
    rules = {"create": operator, "update": lambda actor, domain: provider_of(actor, domain.pk)}
    scopes = {"create": "admin", "update": "admin"}

    def _visible(self, actor: Actor, rows: QuerySet[Domain]) -> QuerySet[Domain]:
        if actor.operator or actor.auditor:
            return rows.all()
        return rows.filter(
            Q(pk__in=list(actor.domain_roles)) | Q(tenants__pk__in=list(actor.tenant_roles))
        ).distinct()


class TenantPolicy(Policy[Tenant]):
    model = Tenant
    noun = "tenant"
    rules = {
        "create": operator,
        "suspend": operator,
        "update": tenant_admin,
        "manage_members": tenant_admin,
        "manage_secrets": tenant_admin,
        "submit": tenant_member,
        "push": tenant_member,
    }
    scopes = {"create": "admin", "suspend": "admin", "manage_members": "admin", "manage_secrets": "admin"}

    def _visible(self, actor: Actor, rows: QuerySet[Tenant]) -> QuerySet[Tenant]:
        return rows.filter(tenant_visible(actor, "pk__"))


class MembershipPolicy(Policy[Membership]):
    model = Membership
    noun = "membership"
    rules = {
        "remove": lambda actor, membership: (
            actor.operator or (membership.tenant_id is not None and tenant_admin(actor, membership.tenant))
        )
    }
    scopes = {"remove": "admin"}

    def _visible(self, actor: Actor, rows: QuerySet[Membership]) -> QuerySet[Membership]:
        if actor.operator or actor.auditor:
            return rows.all()
        return rows.filter(
            Q(user_id=actor.user_id)
            | Q(tenant_id__in=list(actor.tenant_roles))
            | Q(domain_id__in=list(actor.domain_roles))
        )


class TokenPolicy(Policy[ApiToken]):
    model = ApiToken
    noun = "API token"
    rules = {"revoke": lambda actor, token: actor.operator or token.user_id == actor.user_id}

    def _visible(self, actor: Actor, rows: QuerySet[ApiToken]) -> QuerySet[ApiToken]:
        return rows.filter(user_id=actor.user_id)


class SecretPolicy(OwnedPolicy[Secret]):
    model = Secret
    noun = "secret"
    rules = {"delete": lambda actor, secret: tenant_admin(actor, secret.tenant)}
    scopes = {"delete": "admin"}


class StoredPolicy(OwnedPolicy[StoredValue]):
    model = StoredValue
    noun = "stored value"
    rules = {"delete": lambda actor, row: tenant_admin(actor, row.tenant), "read": works_for}
    scopes = {"delete": "admin"}


class UserPolicy(Policy[AbstractUser]):
    model = get_user_model()
    noun = "user"
    rules = {"create": operator}
    scopes = {"create": "admin"}


domains = DomainPolicy()
tenants = TenantPolicy()
memberships = MembershipPolicy()
tokens = TokenPolicy()
secrets = SecretPolicy()
stored = StoredPolicy()
users = UserPolicy()
