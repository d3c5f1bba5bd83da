"""REST: variables and connections of a tenant."""

from typing import Any

from rest_framework import serializers
from rest_framework.request import Request

from apps.core.api import ApiView, Integer, StrictSerializer, Text, operation

from . import policies, stored
from .models import StoredValue


class VariableBody(StrictSerializer):
    name = Text(max_length=100)
    value = serializers.CharField(allow_blank=True, trim_whitespace=False)


class VariableAnswer(serializers.ModelSerializer[StoredValue]):
    class Meta:
        model = StoredValue
        fields: tuple[str, ...] = ("id", "name", "created_at", "updated_at")
        read_only_fields = fields


class VariableValueAnswer(VariableAnswer):
    value = serializers.CharField(read_only=True)

    class Meta(VariableAnswer.Meta):
        fields = (*VariableAnswer.Meta.fields, "value")
        read_only_fields = fields


class ConnectionBody(StrictSerializer):
    name = Text(max_length=100)
    type = Text(max_length=50, default="", allow_blank=True, help_text="For example postgres or https.")
    host = Text(max_length=255, default="", allow_blank=True)
    login = Text(max_length=255, default="", allow_blank=True)
    password = Text(
        max_length=4096, default="", allow_blank=True, trim_whitespace=False, help_text="Kept as it is when left out."
    )
    port = Integer(min_value=1, max_value=65535, required=False)
    schema = Text(max_length=255, default="", allow_blank=True)
    extra = serializers.DictField(required=False, help_text="Further values; kept as they are when left out.")


class ConnectionAnswer(serializers.ModelSerializer[StoredValue]):
    type = serializers.CharField(source="shown.type", default="", read_only=True)
    host = serializers.CharField(source="shown.host", default="", read_only=True)
    login = serializers.CharField(source="shown.login", default="", read_only=True)
    port = serializers.IntegerField(source="shown.port", default=None, read_only=True, allow_null=True)
    schema = serializers.CharField(source="shown.schema", default="", read_only=True)

    class Meta:
        model = StoredValue
        fields = ("id", "name", "type", "host", "login", "port", "schema", "created_at", "updated_at")
        read_only_fields = fields


class Variables(ApiView):
    @operation(listing=True, answer=VariableAnswer, ordering="id")
    def get(self, request: Request, slug: str) -> Any:
        """Names of the tenant's variables."""
        return stored.list_stored(self.actor, policies.tenants.get(self.actor, slug=slug), StoredValue.Kind.VARIABLE)

    @operation(body=VariableBody, answer=VariableAnswer, status=201)
    def post(self, request: Request, slug: str) -> Any:
        """Make or replace a variable."""
        tenant = policies.tenants.get(self.actor, slug=slug)
        return stored.set_variable(actor=self.actor, tenant=tenant, **self.data)


class VariableDetail(ApiView):
    @operation(answer=VariableValueAnswer)
    def get(self, request: Request, slug: str, variable: str) -> Any:
        """A variable with its value."""
        return stored.variable_of(self.actor, policies.tenants.get(self.actor, slug=slug), variable)

    @operation()
    def delete(self, request: Request, slug: str, variable: str) -> None:
        """Remove a variable."""
        tenant = policies.tenants.get(self.actor, slug=slug)
        stored.delete_stored(actor=self.actor, tenant=tenant, kind=StoredValue.Kind.VARIABLE, name=variable)


class Connections(ApiView):
    @operation(listing=True, answer=ConnectionAnswer, ordering="id")
    def get(self, request: Request, slug: str) -> Any:
        """The tenant's connections; passwords and extras are never shown."""
        return stored.list_stored(self.actor, policies.tenants.get(self.actor, slug=slug), StoredValue.Kind.CONNECTION)

    @operation(body=ConnectionBody, answer=ConnectionAnswer, status=201)
    def post(self, request: Request, slug: str) -> Any:
        """Make or replace a connection."""
        tenant = policies.tenants.get(self.actor, slug=slug)
        fields = dict(self.data)
        return stored.set_connection(actor=self.actor, tenant=tenant, name=fields.pop("name"), fields=fields)


class ConnectionDetail(ApiView):
    @operation()
    def delete(self, request: Request, slug: str, connection: str) -> None:
        """Remove a connection."""
        tenant = policies.tenants.get(self.actor, slug=slug)
        stored.delete_stored(actor=self.actor, tenant=tenant, kind=StoredValue.Kind.CONNECTION, name=connection)
