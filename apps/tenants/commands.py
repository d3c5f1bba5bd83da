"""Everything that changes domains, tenants, people and their credentials.

Lock order: tenant row, then its memberships.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from allauth.socialaccount.models import SocialAccount  # type: ignore[import-untyped]
from django.contrib.auth import authenticate, get_user_model
from django.contrib.auth.models import AbstractUser
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.utils import timezone

from apps.core.actors import Actor
from apps.core.crypto import digest, new_token, seal
from apps.core.errors import Conflict, FieldError, Forbidden, Invalid, NotFound, Unauthenticated
from apps.core.locks import LockClass, lock_in_transaction
from apps.events.record import Fact, record

from . import policies
from .models import ApiToken, Domain, Membership, Role, Secret, Tenant, slug_validator

SCOPES = ("read", "write", "admin")
TOKEN_MAX_DAYS = 366
SECRET_MAX_BYTES = 64 * 1024


def checked_slug(field: str, value: str) -> str:
    """The value, if it is a slug; raises Invalid naming the field."""
    # The whole text: the validator's own `$` would let a final line break pass.
    if not re.fullmatch(slug_validator.regex, value):
        raise Invalid.field(field, f"{value!r} is not a valid name: {slug_validator.message}.")
    return value


@transaction.atomic
def create_domain(*, actor: Actor, slug: str, name: str = "") -> Domain:
    """Make a domain. Raises Conflict when the slug is taken."""
    policies.domains.require(actor, "create", slug)
    try:
        with transaction.atomic():
            domain = Domain.objects.create(slug=checked_slug("slug", slug), name=name or slug)
    except IntegrityError:
        raise Conflict(f"There is a domain {slug} already.", code="exists") from None
    record(actor, Fact("domain.created", "domain", domain.pk, domain_id=domain.pk, facts={"slug": slug}))
    return domain


@transaction.atomic
def create_tenant(*, actor: Actor, domain: Domain, slug: str, name: str = "") -> Tenant:
    """Make a tenant in a domain. Raises Conflict when the slug is taken."""
    policies.tenants.require(actor, "create", slug)
    try:
        with transaction.atomic():
            tenant = Tenant.objects.create(domain=domain, slug=checked_slug("slug", slug), name=name or slug)
    except IntegrityError:
        raise Conflict(f"There is a tenant {slug} already.", code="exists") from None
    record(
        actor,
        Fact("tenant.created", "tenant", tenant.pk, tenant_id=tenant.pk, domain_id=domain.pk, facts={"slug": slug}),
    )
    return tenant


@transaction.atomic
def set_tenant_suspended(*, actor: Actor, tenant_id: int, suspended: bool, reason: str = "") -> Tenant:
    """Stop or resume new grants of a tenant; what runs goes on."""
    tenant = policies.tenants.get(actor, "suspend", lock=True, pk=tenant_id)
    if tenant.suspended != suspended:
        tenant.suspended = suspended
        tenant.save(update_fields=["suspended"])
        verb = "tenant.suspended" if suspended else "tenant.resumed"
        record(actor, Fact(verb, "tenant", tenant.pk, tenant_id=tenant.pk, reason=reason))
    return tenant


@transaction.atomic
def create_user(*, actor: Actor, username: str, password: str | None, email: str = "") -> AbstractUser:
    """Make a local account; without a password only OIDC can sign it in."""
    policies.users.require(actor, "create", username)
    if not re.fullmatch(r"[\w.@+-]{1,150}", username):
        raise Invalid.field("username", "1 to 150 letters, digits and . @ + - _")
    user_model = get_user_model()
    if user_model.objects.filter(username=username).exists():
        raise Conflict(f"There is a user {username} already.", code="exists")
    user = user_model(username=username, email=email)
    if password is not None:
        try:
            validate_password(password, user)
        except ValidationError as error:
            raise Invalid(
                error.messages[0],
                errors=[FieldError(field="password", message=text, code="weak") for text in error.messages],
            ) from None
        user.set_password(password)
    else:
        user.set_unusable_password()
    user.save()
    record(actor, Fact("user.created", "user", user.pk, facts={"username": username}))
    return user


@transaction.atomic
def admit_person(
    *,
    actor: Actor,
    provider: str,
    subject: str,
    claims: Mapping[str, Any],
    username: str = "",
    email: str = "",
    verified: bool = False,
    by_email: bool = True,
) -> SocialAccount:
    """Link somebody whom an OIDC provider vouches for with an account, and make one without any role if need be.

    The account is the one with the same email if the provider has verified it and `by_email` allows it. Only
    verified addresses are stored, so that nobody can wait with an address of another person's for that person to
    come. Raises Conflict when the email is another account's and may not be used. Lock: PEOPLE.
    """
    policies.users.require(actor, "create", subject)
    lock_in_transaction(LockClass.PEOPLE, 0)
    linked = SocialAccount.objects.filter(provider=provider, uid=subject).select_related("user").first()
    if linked is not None:
        return linked
    holders = _people_with_email(email)
    if holders and not (verified and by_email):
        why = "" if verified else " and the provider has not verified that it is yours"
        raise Conflict(
            f"There is an account with the email {email} already{why}. Sign in to it with its password and connect "
            "the provider under Connected accounts, or ask an operator.",
            code="email_taken",
        )
    if len(holders) > 1:
        raise Conflict(f"More than one account has the email {email}: ask an operator.", code="email_ambiguous")
    if holders:
        user = holders[0]
    else:
        name = _free_username(username or email.partition("@")[0] or subject)
        user = create_user(actor=actor, username=name, password=None, email=email if verified else "")
    record(actor, Fact("user.linked", "user", user.pk, facts={"username": user.username, "provider": provider}))
    return SocialAccount.objects.create(user=user, provider=provider, uid=subject, extra_data=dict(claims))


def _people_with_email(email: str) -> list[AbstractUser]:
    """Accounts with this address, blocked ones too, in whatever case.

    Databases hold letters for the same that are not (ı and I), so they are compared once more as Django's password
    reset does: https://www.unicode.org/reports/tr36/#Recommendations_General
    """
    if not email:
        return []
    found = get_user_model().objects.filter(email__iexact=email)
    return [user for user in found if _folded(user.email) == _folded(email)]


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


def _free_username(wish: str) -> str:
    """A user name that nobody has, as near to the wish as may be."""
    base = re.sub(r"[^\w.@+-]", "", unicodedata.normalize("NFKC", wish))[:140] or "person"
    taken = {
        name.casefold()
        for name in get_user_model()
        .objects.filter(username__istartswith=base)
        .values_list("username", flat=True)
    }
    names = (base, *(f"{base}-{number}" for number in range(2, len(taken) + 3)))
    return next(name for name in names if name.casefold() not in taken)


@transaction.atomic
def add_member(
    *, actor: Actor, username: str, role: str, tenant: Tenant | None = None, domain: Domain | None = None
) -> Membership:
    """Give a person a role in a tenant, a domain, or (operator, auditor) everywhere."""
    if role not in Role.values:
        raise Invalid.field("role", f"{role!r} is not a role: one of {', '.join(Role.values)}.")
    fits = {
        Role.OPERATOR: tenant is None and domain is None,
        Role.PROVIDER: domain is not None and tenant is None,
        Role.ADMIN: tenant is not None and domain is None,
        Role.MEMBER: tenant is not None and domain is None,
        Role.AUDITOR: domain is None,
    }
    if not fits[Role(role)]:
        raise Invalid.field("role", f"{role} does not go with this tenant or domain.")
    if tenant is not None:
        policies.tenants.require(actor, "manage_members", tenant)
    elif domain is not None:
        policies.domains.require(actor, "update", domain)
    elif not actor.operator:
        raise Forbidden(f"Only an operator can make somebody {role}.")
    user = get_user_model().objects.filter(username=username).first()
    if user is None:
        raise NotFound(f"There is no user {username}.")
    membership, created = Membership.objects.get_or_create(user=user, role=role, tenant=tenant, domain=domain)
    if created:
        record(
            actor,
            Fact(
                "member.added",
                "user",
                user.pk,
                tenant_id=tenant.pk if tenant else None,
                domain_id=domain.pk if domain else None,
                facts={"username": username, "role": role},
            ),
        )
    return membership


@transaction.atomic
def remove_member(*, actor: Actor, membership_id: int) -> None:
    """Take a role away; the last operator stays."""
    membership = policies.memberships.get(actor, "remove", lock=True, pk=membership_id)
    if membership.role == Role.OPERATOR:
        operators = list(Membership.objects.select_for_update().filter(role=Role.OPERATOR).values_list("pk", flat=True))
        if len(operators) == 1:
            raise Conflict("This is the last operator: make another one first.", code="last_operator")
    record(
        actor,
        Fact(
            "member.removed",
            "user",
            membership.user_id,
            tenant_id=membership.tenant_id,
            domain_id=membership.domain_id,
            facts={"role": membership.role},
        ),
    )
    membership.delete()


@transaction.atomic
def create_token(
    *, actor: Actor, name: str, scopes: Iterable[str] = ("write",), expires_at: datetime | None = None
) -> tuple[ApiToken, str]:
    """Make an API token of the actor; returns the row and the token, which is shown this one time.

    A token never carries more than the credential that makes it, and never outlives it. Default life is 30 days, at
    most 366.
    """
    now = timezone.now()
    wanted = sorted(set(scopes))
    if actor.user_id is None:
        raise Forbidden("Only people have API tokens.")
    if not name.strip() or len(name) > 100:
        raise Invalid.field("name", "1 to 100 characters that tell what the token is for.")
    unknown = [scope for scope in wanted if scope not in SCOPES]
    if unknown or not wanted:
        raise Invalid.field("scopes", f"one or more of {', '.join(SCOPES)}.")
    if not all(actor.has_scope(scope) for scope in wanted):
        raise Forbidden("A token cannot give more than the one that makes it.")
    usual = now + timedelta(days=30)
    expires_at = expires_at or (usual if actor.until is None else min(usual, actor.until))
    if actor.until is not None and expires_at > actor.until:
        ends = f"{actor.until:%Y-%m-%d %H:%M} UTC"
        raise Forbidden(f"A token cannot outlive the one that makes it, which ends at {ends}.")
    if not now < expires_at <= now + timedelta(days=TOKEN_MAX_DAYS):
        raise Invalid.field("expires_at", f"a time in the future, at most {TOKEN_MAX_DAYS} days ahead.")
    token = new_token("rmp")
    row = ApiToken.objects.create(
        user_id=actor.user_id,
        name=name.strip(),
        hint=token[:8],
        digest=digest(token),
        scopes=wanted,
        expires_at=expires_at,
    )
    record(actor, Fact("token.created", "token", row.pk, facts={"name": row.name, "scopes": wanted}))
    return row, token


@transaction.atomic
def revoke_token(*, actor: Actor, token_id: int) -> ApiToken:
    """End a token at once; doing it again changes nothing."""
    token = policies.tokens.get(actor, "revoke", lock=True, pk=token_id)
    if token.revoked_at is None:
        token.revoked_at = timezone.now()
        token.save(update_fields=["revoked_at"])
        record(actor, Fact("token.revoked", "token", token.pk, facts={"name": token.name}))
    return token


def sign_in(*, username: str, password: str, request: object | None = None) -> AbstractUser:
    """The user with this name and password; raises Unauthenticated without telling which was wrong."""
    user = authenticate(request, username=username, password=password)  # type: ignore[arg-type]
    if user is None or not isinstance(user, AbstractUser):
        raise Unauthenticated("The user name or the password is wrong.", code="wrong_credentials")
    return user


@transaction.atomic
def set_secret(*, actor: Actor, tenant: Tenant, name: str, value: str) -> Secret:
    """Make or replace a tenant's secret; the value is encrypted and never read back."""
    policies.tenants.require(actor, "manage_secrets", tenant)
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]{0,99}", name):
        raise Invalid.field("name", "a letter, then letters, digits and . _ -, at most 100 in all.")
    if not value or len(value.encode()) > SECRET_MAX_BYTES:
        raise Invalid.field("value", f"1 to {SECRET_MAX_BYTES} bytes.")
    secret, created = Secret.objects.update_or_create(tenant=tenant, name=name, defaults={"ciphertext": seal(value)})
    verb = "secret.created" if created else "secret.replaced"
    record(actor, Fact(verb, "secret", secret.pk, tenant_id=tenant.pk, facts={"name": name}))
    return secret


@transaction.atomic
def delete_secret(*, actor: Actor, tenant: Tenant, name: str) -> None:
    """Remove a tenant's secret; jobs that still refer to it fail with a message that names it."""
    secret = policies.secrets.get(actor, "delete", lock=True, tenant=tenant, name=name)
    record(actor, Fact("secret.deleted", "secret", secret.pk, tenant_id=tenant.pk, facts={"name": name}))
    secret.delete()
