"""Domains own resources and people; tenants consume; members act with roles."""

from django.conf import settings
from django.core.validators import RegexValidator
from django.db import models

slug_validator = RegexValidator(
    r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", "lower-case letters, digits and inner hyphens, at most 63"
)


class Role(models.TextChoices):
    """What a member may do; operators act everywhere, the others in their domain or tenant."""

    OPERATOR = "operator"
    PROVIDER = "provider"
    ADMIN = "admin"
    MEMBER = "member"
    AUDITOR = "auditor"


class Domain(models.Model):
    """An organisation that governs its own resources and people."""

    slug = models.CharField(max_length=63, unique=True, validators=[slug_validator])
    name = models.CharField(max_length=200)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["slug"]

    def __str__(self) -> str:
        return self.slug


class Tenant(models.Model):
    """A team inside a domain that consumes resources."""

    domain = models.ForeignKey(Domain, on_delete=models.PROTECT, related_name="tenants")
    slug = models.CharField(max_length=63, unique=True, validators=[slug_validator])
    name = models.CharField(max_length=200)
    suspended = models.BooleanField(default=False)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["slug"]

    def __str__(self) -> str:
        return self.slug


class Membership(models.Model):
    """A person's role: in a tenant, in a domain, or (operator, auditor) everywhere."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=10, choices=Role)
    domain = models.ForeignKey(Domain, null=True, on_delete=models.CASCADE, related_name="memberships")
    tenant = models.ForeignKey(Tenant, null=True, on_delete=models.CASCADE, related_name="memberships")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(
                fields=["user", "role", "domain", "tenant"], nulls_distinct=False, name="membership_once"
            ),
            models.CheckConstraint(
                condition=(
                    models.Q(role="operator", domain__isnull=True, tenant__isnull=True)
                    | models.Q(role="provider", domain__isnull=False, tenant__isnull=True)
                    | models.Q(role__in=["admin", "member"], domain__isnull=True, tenant__isnull=False)
                    | models.Q(role="auditor", domain__isnull=True)
                ),
                name="membership_scope_fits_role",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.user} is {self.role} of {self.tenant or self.domain or 'everything'}"


class ApiToken(models.Model):
    """A person's credential for automation: scoped, expiring, shown once, stored as a digest."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="api_tokens")
    name = models.CharField(max_length=100)
    hint = models.CharField(max_length=12)
    digest = models.CharField(max_length=64, unique=True)
    scopes = models.JSONField(default=list)
    expires_at = models.DateTimeField()
    revoked_at = models.DateTimeField(null=True)
    last_used_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.name} ({self.hint}…)"


class Secret(models.Model):
    """A tenant's named secret; jobs refer to it by name, nobody reads it back."""

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="secrets")
    name = models.CharField(max_length=100)
    ciphertext = models.TextField()
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["name"]
        constraints = [models.UniqueConstraint(fields=["tenant", "name"], name="secret_once")]

    def __str__(self) -> str:
        return f"{self.tenant}/{self.name}"


class StoredValue(models.Model):
    """A variable or connection of a tenant; `shown` is what of a connection may be seen."""

    class Kind(models.TextChoices):
        VARIABLE = "variable"
        CONNECTION = "connection"

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="stored")
    kind = models.CharField(max_length=10, choices=Kind)
    name = models.CharField(max_length=100)
    ciphertext = models.TextField()
    shown = models.JSONField(default=dict)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["name"]
        constraints = [models.UniqueConstraint(fields=["tenant", "kind", "name"], name="stored_value_once")]

    def __str__(self) -> str:
        return f"{self.kind} {self.tenant}/{self.name}"
