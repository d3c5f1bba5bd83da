"""From a user or a token to the Actor that policies and commands ask."""

from datetime import datetime
from typing import Any

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser

from apps.core.actors import ANONYMOUS, Actor
from apps.core.rows import fetch

from .models import Role

ROLES = "SELECT role, tenant_id, domain_id FROM tenants_membership WHERE user_id = %s"
# The stronger role counts where a person holds several in one tenant.
STRENGTH = {Role.AUDITOR: 0, Role.MEMBER: 1, Role.ADMIN: 2}


def actor_for(
    user: AbstractBaseUser | AnonymousUser | Any,
    scopes: frozenset[str] | None = None,
    until: datetime | None = None,
) -> Actor:
    """The actor of a signed-in user with all roles loaded in one query; ANONYMOUS for nobody."""
    if user is None or not user.is_authenticated or not user.is_active:
        return ANONYMOUS
    operator = auditor = False
    tenants: dict[int, str] = {}
    domains: dict[int, str] = {}
    for role, tenant_id, domain_id in fetch(ROLES, [user.pk]):
        if role == Role.OPERATOR:
            operator = True
        elif tenant_id is not None:
            if STRENGTH[Role(role)] >= STRENGTH.get(Role(tenants.get(tenant_id, role)), 0):
                tenants[tenant_id] = role
        elif domain_id is not None:
            domains[domain_id] = role
        else:
            auditor = True
    return Actor(
        label=f"user:{user.get_username()}",
        user_id=user.pk,
        operator=operator,
        auditor=auditor,
        tenant_roles=tenants,
        domain_roles=domains,
        scopes=scopes,
        until=until,
    )


def request_actor(request: Any) -> Actor:
    """The actor of an HTTP request (cached on it): the session's user, or the API token's with its scopes."""
    cached = getattr(request, "_rmportal_actor", None)
    if cached is None:
        token = getattr(request, "auth", None)
        scopes = frozenset(token.scopes) if token is not None and hasattr(token, "scopes") else None
        cached = actor_for(request.user, scopes, None if scopes is None else token.expires_at)
        request._rmportal_actor = cached
    return cached
