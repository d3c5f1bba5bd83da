"""REST: who I am, domains, tenants, their members and secrets, API tokens."""

from datetime import timedelta
from typing import Any

from django.utils import timezone
from rest_framework import serializers
from rest_framework.permissions import AllowAny
from rest_framework.request import Request

from apps.core.api import ApiView, Integer, StrictSerializer, Text, operation

from . import commands, policies, queries
from .actors import actor_for
from .models import ApiToken, Domain, Membership, Role, Secret, Tenant


class LoginBody(StrictSerializer):
    username = Text(max_length=150)
    password = Text(max_length=4096, trim_whitespace=False, style={"input_type": "password"})
    name = Text(max_length=100, default="rmctl", help_text="What the token is for.")
    scopes = serializers.ListField(child=serializers.ChoiceField(choices=commands.SCOPES), default=["admin"])
    days = Integer(min_value=1, max_value=commands.TOKEN_MAX_DAYS, default=30)


class TokenBody(StrictSerializer):
    name = Text(max_length=100)
    scopes = serializers.ListField(child=serializers.ChoiceField(choices=commands.SCOPES), default=["write"])
    expires_at = serializers.DateTimeField(
        required=False, help_text="At most 366 days ahead; 30 days by default."
    )


class TokenAnswer(serializers.ModelSerializer[ApiToken]):
    scopes: Any = serializers.ListField(child=serializers.CharField())

    class Meta:
        model = ApiToken
        fields = ["id", "name", "hint", "scopes", "expires_at", "revoked_at", "last_used_at", "created_at"]
        read_only_fields = fields


class NewTokenAnswer(TokenAnswer):
    token = serializers.CharField(read_only=True, help_text="Shown this one time.")

    class Meta(TokenAnswer.Meta):
        fields = [*TokenAnswer.Meta.fields, "token"]
        read_only_fields = fields


class RoleAnswer(serializers.Serializer[Any]):
    role = serializers.CharField()
    tenant = serializers.CharField(allow_null=True)
    domain = serializers.CharField(allow_null=True)


class MeAnswer(serializers.Serializer[Any]):
    username = serializers.CharField()
    email = serializers.CharField()
    operator = serializers.BooleanField()
    scopes = serializers.ListField(child=serializers.CharField(), allow_null=True)
    roles = RoleAnswer(many=True)


class DomainBody(StrictSerializer):
    slug = Text(max_length=63)
    name = Text(max_length=200, default="")


class DomainAnswer(serializers.ModelSerializer[Domain]):
    class Meta:
        model = Domain
        fields = ["id", "slug", "name", "created_at"]
        read_only_fields = fields


class TenantBody(StrictSerializer):
    domain = Text(max_length=63, help_text="Slug of the domain it belongs to.")
    slug = Text(max_length=63)
    name = Text(max_length=200, default="")


class TenantChange(StrictSerializer):
    suspended = serializers.BooleanField()
    reason = Text(max_length=1000, default="", allow_blank=True)


class TenantAnswer(serializers.ModelSerializer[Tenant]):
    domain: Any = serializers.CharField(source="domain.slug", read_only=True)

    class Meta:
        model = Tenant
        fields = ["id", "slug", "name", "domain", "suspended", "created_at"]
        read_only_fields = fields


class MemberBody(StrictSerializer):
    username = Text(max_length=150)
    role = serializers.ChoiceField(choices=[Role.ADMIN, Role.MEMBER, Role.AUDITOR])


class MemberAnswer(serializers.ModelSerializer[Membership]):
    username = serializers.CharField(source="user.username", read_only=True)

    class Meta:
        model = Membership
        fields = ["id", "username", "role", "created_at"]
        read_only_fields = fields


class SecretBody(StrictSerializer):
    name = Text(max_length=100)
    value = Text(max_length=commands.SECRET_MAX_BYTES, trim_whitespace=False)


class SecretAnswer(serializers.ModelSerializer[Secret]):
    class Meta:
        model = Secret
        fields = ["id", "name", "created_at", "updated_at"]
        read_only_fields = fields


class Login(ApiView):
    authentication_classes: Any = []
    permission_classes = [AllowAny]
    rate_scope = "login"

    @operation(body=LoginBody, answer=NewTokenAnswer, status=201, idempotency=False)
    def post(self, request: Request) -> Any:
        """Exchange a name and a password for an API token."""
        user = commands.sign_in(
            username=self.data["username"], password=self.data["password"], request=request._request
        )
        return _with_token(
            commands.create_token(
                actor=actor_for(user),
                name=self.data["name"],
                scopes=self.data["scopes"],
                expires_at=timezone.now() + timedelta(days=self.data["days"]),
            )
        )


class Me(ApiView):
    @operation(answer=MeAnswer)
    def get(self, request: Request) -> Any:
        """Who this credential belongs to, and its roles."""
        actor = self.actor
        roles = Membership.objects.filter(user=request.user).select_related("tenant", "domain")
        return {
            "username": request.user.get_username(),
            "email": getattr(request.user, "email", ""),
            "operator": actor.operator,
            "scopes": None if actor.scopes is None else sorted(actor.scopes),
            "roles": [
                {
                    "role": row.role,
                    "tenant": row.tenant.slug if row.tenant else None,
                    "domain": row.domain.slug if row.domain else None,
                }
                for row in roles
            ],
        }


class Domains(ApiView):
    @operation(listing=True, answer=DomainAnswer)
    def get(self, request: Request) -> Any:
        """Domains that you can see."""
        return policies.domains.visible(self.actor)

    @operation(body=DomainBody, answer=DomainAnswer, status=201)
    def post(self, request: Request) -> Any:
        """Make a domain."""
        return commands.create_domain(actor=self.actor, slug=self.data["slug"], name=self.data["name"])


class DomainDetail(ApiView):
    @operation(answer=DomainAnswer)
    def get(self, request: Request, slug: str) -> Any:
        """One domain."""
        return policies.domains.get(self.actor, slug=slug)


class Tenants(ApiView):
    @operation(listing=True, answer=TenantAnswer)
    def get(self, request: Request) -> Any:
        """Tenants that you can see."""
        return queries.list_tenants(self.actor)

    @operation(body=TenantBody, answer=TenantAnswer, status=201)
    def post(self, request: Request) -> Any:
        """Make a tenant in a domain."""
        domain = policies.domains.get(self.actor, slug=self.data["domain"])
        return commands.create_tenant(
            actor=self.actor, domain=domain, slug=self.data["slug"], name=self.data["name"]
        )


class TenantDetail(ApiView):
    @operation(answer=TenantAnswer)
    def get(self, request: Request, slug: str) -> Any:
        """One tenant."""
        return policies.tenants.get(self.actor, slug=slug)

    @operation(body=TenantChange, answer=TenantAnswer)
    def patch(self, request: Request, slug: str) -> Any:
        """Suspend or resume a tenant: no new grants; what runs goes on."""
        tenant = policies.tenants.get(self.actor, slug=slug)
        return commands.set_tenant_suspended(
            actor=self.actor,
            tenant_id=tenant.pk,
            suspended=self.data["suspended"],
            reason=self.data["reason"],
        )


class Members(ApiView):
    @operation(listing=True, answer=MemberAnswer, ordering="id")
    def get(self, request: Request, slug: str) -> Any:
        """Members of a tenant with their roles."""
        return queries.list_members(self.actor, policies.tenants.get(self.actor, slug=slug))

    @operation(body=MemberBody, answer=MemberAnswer, status=201)
    def post(self, request: Request, slug: str) -> Any:
        """Give a person a role in the tenant; giving it again changes nothing."""
        tenant = policies.tenants.get(self.actor, "manage_members", slug=slug)
        return commands.add_member(
            actor=self.actor, username=self.data["username"], role=self.data["role"], tenant=tenant
        )


class MemberDetail(ApiView):
    @operation()
    def delete(self, request: Request, slug: str, membership_id: int) -> None:
        """Take a role away."""
        tenant = policies.tenants.get(self.actor, slug=slug)
        policies.memberships.get(self.actor, pk=membership_id, tenant=tenant)
        commands.remove_member(actor=self.actor, membership_id=membership_id)


class Secrets(ApiView):
    @operation(listing=True, answer=SecretAnswer, ordering="id")
    def get(self, request: Request, slug: str) -> Any:
        """Names of the tenant's secrets; values are never shown."""
        return queries.list_secrets(self.actor, policies.tenants.get(self.actor, slug=slug))

    @operation(body=SecretBody, answer=SecretAnswer, status=201)
    def post(self, request: Request, slug: str) -> Any:
        """Make or replace a secret."""
        tenant = policies.tenants.get(self.actor, slug=slug)
        return commands.set_secret(
            actor=self.actor, tenant=tenant, name=self.data["name"], value=self.data["value"]
        )


class SecretDetail(ApiView):
    @operation()
    def delete(self, request: Request, slug: str, name: str) -> None:
        """Remove a secret."""
        tenant = policies.tenants.get(self.actor, slug=slug)
        commands.delete_secret(actor=self.actor, tenant=tenant, name=name)


class Tokens(ApiView):
    @operation(listing=True, answer=TokenAnswer)
    def get(self, request: Request) -> Any:
        """Your API tokens, newest first."""
        return queries.list_tokens(self.actor)

    @operation(body=TokenBody, answer=NewTokenAnswer, status=201)
    def post(self, request: Request) -> Any:
        """Make an API token; it is shown this one time."""
        return _with_token(
            commands.create_token(
                actor=self.actor,
                name=self.data["name"],
                scopes=self.data["scopes"],
                expires_at=self.data.get("expires_at"),
            )
        )


class TokenDetail(ApiView):
    @operation()
    def delete(self, request: Request, token_id: int) -> None:
        """End a token at once; doing it again changes nothing."""
        commands.revoke_token(actor=self.actor, token_id=token_id)


def _with_token(made: tuple[ApiToken, str]) -> dict[str, Any]:
    row, token = made
    return {
        **{name: getattr(row, name) for name in TokenAnswer.Meta.fields},
        "token": token,
    }
