"""REST: destinations, who hears of what, and messages."""

from typing import Any

from rest_framework import serializers
from rest_framework.request import Request

from apps.core.api import ApiView, Integer, StrictSerializer, Text, operation
from apps.core.filters import ChoicesFilter, FilterSet, IntegerFilter, ReferenceFilter
from apps.tenants.models import Tenant
from apps.tenants.queries import tenant_named

from . import commands, queries
from .destinations import RATE_MAX
from .models import SUBJECTS, Delivery, Destination, Kind, Subscription
from .states import DeliveryState


class DestinationFilter(FilterSet):
    tenant = ReferenceFilter(field_name="tenant_id", to=Tenant, by="slug", label="Slug of the tenant.")
    channel = ChoicesFilter(choices=Destination.Channel.choices, label="Channels.")


class SubscriptionFilter(FilterSet):
    tenant = ReferenceFilter(field_name="destination__tenant_id", to=Tenant, by="slug", label="Slug of the tenant.")
    destination = IntegerFilter(field_name="destination_id", label="Id of the destination.")
    workflow = IntegerFilter(field_name="workflow_id", label="Id of the workflow.")


class DeliveryFilter(FilterSet):
    tenant = ReferenceFilter(field_name="tenant_id", to=Tenant, by="slug", label="Slug of the tenant.")
    destination = IntegerFilter(field_name="destination_id", label="Id of the destination.")
    state = ChoicesFilter(choices=DeliveryState.choices, label="States.")
    kind = ChoicesFilter(choices=Kind.choices, label="Kinds.")


class Changes(StrictSerializer):
    url = Text(max_length=2000, required=False, help_text="Of a webhook or chat; never shown again.")
    secret = Text(
        max_length=200, required=False, trim_whitespace=False, help_text="Signs what a webhook gets; made if left out."
    )
    to = serializers.ListField(child=Text(max_length=254), required=False, max_length=20, help_text="Of an e-mail.")
    per_minute = Integer(
        min_value=1, max_value=RATE_MAX, required=False, help_text="Messages a minute; more are told in one. 10."
    )


class DestinationChanges(Changes):
    enabled = serializers.BooleanField(required=False, help_text="Off: nothing is told or sent.")


class DestinationBody(Changes):
    tenant = Text(max_length=63, required=False, help_text="Slug; may be left out by members of one tenant.")
    name = Text(max_length=100, help_text="What definitions and subscriptions call it.")
    channel = serializers.ChoiceField(choices=Destination.Channel.choices)


class DestinationAnswer(serializers.ModelSerializer[Destination]):
    tenant: Any = serializers.CharField(source="tenant.slug", read_only=True)
    host = serializers.CharField(source="shown.host", default=None, read_only=True, allow_null=True)
    to = serializers.ListField(child=serializers.CharField(), source="shown.to", default=list, read_only=True)
    waiting = serializers.IntegerField(read_only=True, default=0, help_text="Messages that wait to be sent.")
    dead = serializers.IntegerField(read_only=True, default=0, help_text="Messages that were given up.")
    sent_at = serializers.DateTimeField(
        read_only=True, default=None, allow_null=True, help_text="When the latest was taken."
    )

    class Meta:
        model = Destination
        fields: tuple[str, ...] = (
            "id", "tenant", "name", "channel", "host", "to", "enabled", "per_minute", "waiting", "dead", "sent_at",
            "failures", "resumes_at", "last_error", "created_at",
        )  # fmt: skip
        read_only_fields = fields


class NewDestinationAnswer(DestinationAnswer):
    secret = serializers.CharField(read_only=True, help_text="Of a webhook: signs what is sent. Shown this one time.")

    class Meta(DestinationAnswer.Meta):
        fields = (*DestinationAnswer.Meta.fields, "secret")
        read_only_fields = fields


class SubscriptionBody(StrictSerializer):
    kinds = serializers.ListField(
        child=serializers.ChoiceField(choices=[(kind.value, kind.label) for kind in SUBJECTS]),
        max_length=len(SUBJECTS),
        help_text="What it hears of.",
    )
    workflow = Text(max_length=200, required=False, help_text="Name of the one workflow; else of the whole tenant.")


class SubscriptionAnswer(serializers.ModelSerializer[Subscription]):
    tenant = serializers.CharField(source="destination.tenant.slug", read_only=True)
    destination_name = serializers.CharField(source="destination.name", read_only=True)
    workflow_name = serializers.CharField(source="workflow.name", default=None, read_only=True, allow_null=True)
    kinds: Any = serializers.ListField(child=serializers.CharField(), read_only=True)

    class Meta:
        model = Subscription
        fields = ("id", "tenant", "destination", "destination_name", "workflow", "workflow_name", "kinds", "created_at")
        read_only_fields = fields


class MessageAnswer(serializers.ModelSerializer[Delivery]):
    tenant: Any = serializers.CharField(source="tenant.slug", read_only=True)
    destination_name = serializers.CharField(source="destination.name", read_only=True)
    key: Any = serializers.CharField(read_only=True, help_text="Its name in every attempt (X-Delivery).")
    subject: Any = serializers.CharField(source="payload.subject", default=None, read_only=True, allow_null=True)
    payload: Any = serializers.DictField(
        read_only=True, allow_null=True, help_text="What a webhook gets; null before the first attempt."
    )
    told = serializers.IntegerField(read_only=True, default=0, help_text="How many others it tells of as well.")
    digest: Any = serializers.IntegerField(
        source="digest_id", read_only=True, allow_null=True, help_text="The delivery that told of it."
    )

    class Meta:
        model = Delivery
        fields = (
            "id", "tenant", "destination", "destination_name", "kind", "key", "state", "subject", "at", "attempts",
            "tried_at", "due_at", "ended_at", "last_error", "told", "digest", "payload",
        )  # fmt: skip
        read_only_fields = fields


class Destinations(ApiView):
    @operation(listing=True, answer=DestinationAnswer, filters=DestinationFilter)
    def get(self, request: Request) -> Any:
        """Destinations of your tenants; URLs and secrets are never shown."""
        return queries.list_destinations(self.actor)

    @operation(body=DestinationBody, answer=NewDestinationAnswer, status=201)
    def post(self, request: Request) -> Any:
        """Make a destination; the secret of a webhook is shown this one time."""
        fields = {name: value for name, value in self.data.items() if name != "tenant"}
        tenant = tenant_named(self.actor, self.data.get("tenant"))
        made, secret = commands.create_destination(actor=self.actor, tenant=tenant, **fields)
        made.secret = secret  # type: ignore[attr-defined]
        return made


class DestinationDetail(ApiView):
    @operation(answer=DestinationAnswer)
    def get(self, request: Request, destination_id: int) -> Any:
        """One destination."""
        return queries.destination_of(self.actor, destination_id)

    @operation(body=DestinationChanges, answer=DestinationAnswer)
    def patch(self, request: Request, destination_id: int) -> Any:
        """Change what is given; the rest stays."""
        commands.change_destination(actor=self.actor, destination_id=destination_id, **self.data)
        return queries.destination_of(self.actor, destination_id)

    @operation()
    def delete(self, request: Request, destination_id: int) -> None:
        """Remove a destination with its messages, unless the current version of a workflow names it."""
        commands.delete_destination(actor=self.actor, destination_id=destination_id)


class TestMessage(ApiView):
    @operation(answer=MessageAnswer, status=201)
    def post(self, request: Request, destination_id: int) -> Any:
        """Send a message that says nothing, to see whether it arrives."""
        return commands.send_test(actor=self.actor, destination_id=destination_id)


class Subscribe(ApiView):
    @operation(body=SubscriptionBody, answer=SubscriptionAnswer, status=201)
    def post(self, request: Request, destination_id: int) -> Any:
        """Let a destination hear of these kinds, in place of those that it heard of there before."""
        return commands.subscribe(actor=self.actor, destination_id=destination_id, **self.data)


class Subscriptions(ApiView):
    @operation(listing=True, answer=SubscriptionAnswer, filters=SubscriptionFilter)
    def get(self, request: Request) -> Any:
        """Who hears of what, besides what the definitions of workflows say."""
        return queries.list_subscriptions(self.actor)


class SubscriptionDetail(ApiView):
    @operation()
    def delete(self, request: Request, subscription_id: int) -> None:
        """Take a subscription away."""
        commands.unsubscribe(actor=self.actor, subscription_id=subscription_id)


class Deliveries(ApiView):
    @operation(listing=True, answer=MessageAnswer, filters=DeliveryFilter)
    def get(self, request: Request) -> Any:
        """Messages of your tenants with how they went."""
        return queries.list_deliveries(self.actor)


class SendAgain(ApiView):
    @operation(answer=MessageAnswer)
    def post(self, request: Request, delivery_id: int) -> Any:
        """Send a message that was sent or given up once more, under its name."""
        return commands.send_again(actor=self.actor, delivery_id=delivery_id)
