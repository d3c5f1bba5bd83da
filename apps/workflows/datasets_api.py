"""REST: datasets, the events of their updates, and webhooks."""

from typing import Any

from rest_framework import serializers
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response

from apps.core.api import ApiView, StrictSerializer, Text, operation
from apps.core.errors import TooLarge
from apps.tenants.queries import tenant_named

from . import commands, datasets, policies, queries
from .dataset_models import Dataset, DatasetEvent, DatasetUse, Webhook
from .filters import OfTenantFilter

WEBHOOK_BYTES = 256 * 1024


class DatasetAnswer(serializers.ModelSerializer[Dataset]):
    tenant: Any = serializers.CharField(source="tenant.slug", read_only=True)
    updated_at: Any = serializers.DateTimeField(read_only=True, allow_null=True, help_text="Of the latest event.")
    producers: Any = serializers.IntegerField(read_only=True, help_text="Tasks that make it.")
    consumers: Any = serializers.IntegerField(read_only=True, help_text="Workflows and tasks that wait for it.")

    class Meta:
        model = Dataset
        fields: tuple[str, ...] = ("id", "tenant", "uri", "updated_at", "producers", "consumers", "created_at")
        read_only_fields = fields


class DatasetUseAnswer(serializers.Serializer[Any]):
    workflow = serializers.IntegerField(source="workflow_id")
    workflow_name = serializers.CharField(source="workflow.name")
    task = serializers.CharField(help_text="The task that makes it or waits for it; empty where runs wait for it.")
    waits = serializers.SerializerMethodField(help_text="Whether it is waited for; otherwise the task makes it.")

    def get_waits(self, use: DatasetUse) -> bool:
        return not use.makes


class DatasetDetailAnswer(DatasetAnswer):
    uses = serializers.SerializerMethodField()

    class Meta(DatasetAnswer.Meta):
        fields = (*DatasetAnswer.Meta.fields, "uses")
        read_only_fields = fields

    def get_uses(self, dataset: Dataset) -> list[dict[str, Any]]:
        """Who makes it and who waits for it."""
        return list(DatasetUseAnswer(datasets.uses_of(dataset), many=True).data)


class DatasetEventAnswer(serializers.ModelSerializer[DatasetEvent]):
    uri: Any = serializers.CharField(source="dataset.uri", read_only=True)
    run: Any = serializers.IntegerField(source="run_id", read_only=True, allow_null=True)
    workflow_name = serializers.CharField(source="run.workflow.name", default=None, read_only=True, allow_null=True)
    extra: Any = serializers.DictField(read_only=True)

    class Meta:
        model = DatasetEvent
        fields = ("id", "dataset", "uri", "at", "run", "workflow_name", "task", "source", "extra")
        read_only_fields = fields


class UpdateBody(StrictSerializer):
    extra = serializers.DictField(default=dict, help_text="What runs that it triggers may want to know.")


class EventBody(UpdateBody):
    tenant = Text(max_length=63, required=False, help_text="Slug; may be left out by members of one tenant.")
    uri = Text(max_length=500, help_text="A dataset that is not known yet is made.")


class LineageNodeAnswer(serializers.Serializer[Any]):
    id = serializers.CharField()
    label: Any = serializers.CharField()
    kind = serializers.ChoiceField(choices=["dataset", "workflow"])
    pk = serializers.IntegerField()


class LineageEdgeAnswer(serializers.Serializer[Any]):
    source: Any = serializers.CharField()
    target = serializers.CharField()


class LineageAnswer(serializers.Serializer[Any]):
    nodes = LineageNodeAnswer(many=True)
    edges = LineageEdgeAnswer(many=True)


class WebhookBody(StrictSerializer):
    tenant = Text(max_length=63, required=False, help_text="Slug; may be left out by members of one tenant.")
    name = Text(max_length=100)
    workflow = Text(max_length=200, required=False, help_text="Name of the workflow that it triggers.")
    dataset = Text(max_length=500, required=False, help_text="Or URI of the dataset that it updates.")


class WebhookAnswer(serializers.ModelSerializer[Webhook]):
    tenant: Any = serializers.CharField(source="tenant.slug", read_only=True)
    workflow: Any = serializers.CharField(source="workflow.name", default=None, read_only=True, allow_null=True)
    dataset: Any = serializers.CharField(source="dataset.uri", default=None, read_only=True, allow_null=True)

    class Meta:
        model = Webhook
        fields: tuple[str, ...] = ("id", "tenant", "name", "workflow", "dataset", "created_at")
        read_only_fields = fields


class NewWebhookAnswer(WebhookAnswer):
    secret = serializers.CharField(read_only=True, help_text="Shown this one time.")

    class Meta(WebhookAnswer.Meta):
        fields = (*WebhookAnswer.Meta.fields, "secret")
        read_only_fields = fields


class DeliveryAnswer(serializers.Serializer[Any]):
    run = serializers.IntegerField(source="run_id", allow_null=True)
    event = serializers.IntegerField(source="event_id", allow_null=True)
    repeated = serializers.BooleanField(help_text="It was delivered before, and did nothing now.")


class Datasets(ApiView):
    @operation(listing=True, answer=DatasetAnswer, filters=OfTenantFilter)
    def get(self, request: Request) -> Any:
        """Datasets that you can see."""
        return datasets.list_datasets(self.actor)


class Events(ApiView):
    @operation(body=EventBody, answer=DatasetEventAnswer, status=201)
    def post(self, request: Request) -> Any:
        """Say that a dataset was updated, by its URI."""
        tenant = tenant_named(self.actor, self.data.get("tenant"))
        uri, extra = self.data["uri"], self.data["extra"]
        return commands.update_dataset(actor=self.actor, tenant=tenant, uri=uri, extra=extra)


class DatasetDetail(ApiView):
    @operation(answer=DatasetDetailAnswer)
    def get(self, request: Request, dataset_id: int) -> Any:
        """One dataset with who makes it and who waits for it."""
        return datasets.dataset_of(self.actor, dataset_id)

    @operation()
    def delete(self, request: Request, dataset_id: int) -> None:
        """Forget a dataset that no workflow names any more, with its events."""
        commands.delete_dataset(actor=self.actor, dataset_id=dataset_id)


class DatasetEvents(ApiView):
    @operation(listing=True, answer=DatasetEventAnswer)
    def get(self, request: Request, dataset_id: int) -> Any:
        """The events of a dataset."""
        return datasets.list_events(self.actor, dataset_id)

    @operation(body=UpdateBody, answer=DatasetEventAnswer, status=201)
    def post(self, request: Request, dataset_id: int) -> Any:
        """Say that the dataset was updated."""
        found = policies.datasets.get(self.actor, "update", pk=dataset_id)
        return commands.update_dataset(
            actor=self.actor, tenant=found.tenant, uri=found.uri, extra=self.data["extra"]
        )


class Lineage(ApiView):
    @operation(answer=LineageAnswer)
    def get(self, request: Request, dataset_id: int) -> Any:
        """The datasets and workflows around a dataset, two steps up and down."""
        return Response(datasets.lineage(datasets.dataset_of(self.actor, dataset_id)))


class TriggeredBy(ApiView):
    @operation(listing=True, answer=DatasetEventAnswer)
    def get(self, request: Request, run_id: int) -> Any:
        """The events of datasets that triggered a run."""
        run = queries.run_of(self.actor, run_id)
        rows = DatasetEvent.objects.filter(triggers__run=run)
        return rows.select_related("dataset", "run__workflow")


class Webhooks(ApiView):
    @operation(listing=True, answer=WebhookAnswer, filters=OfTenantFilter)
    def get(self, request: Request) -> Any:
        """Webhooks of your tenants."""
        return policies.webhooks.visible(self.actor).select_related("tenant", "workflow", "dataset")

    @operation(body=WebhookBody, answer=NewWebhookAnswer, status=201)
    def post(self, request: Request) -> Any:
        """Make a webhook; its secret is shown this one time."""
        fields = {name: value for name, value in self.data.items() if name != "tenant"}
        tenant = tenant_named(self.actor, self.data.get("tenant"))
        made, secret = commands.create_webhook(actor=self.actor, tenant=tenant, **fields)
        made.secret = secret  # type: ignore[attr-defined]
        return made


class WebhookDetail(ApiView):
    @operation()
    def delete(self, request: Request, webhook_id: int) -> None:
        """Remove a webhook."""
        commands.delete_webhook(actor=self.actor, webhook_id=webhook_id)


class Deliveries(ApiView):
    authentication_classes: Any = []
    permission_classes = [AllowAny]
    rate_scope = "webhook"

    @operation(stream="application/json", answer=DeliveryAnswer, idempotency=False, dry_run=False, refusals=(401,))
    def post(self, request: Request, webhook_id: int) -> Any:
        """Trigger what the webhook is for. The body is a JSON object: parameters of the run, or the event's extra.

        Signed by `X-Timestamp` (Unix seconds) and `X-Signature: sha256=<HMAC-SHA-256 of timestamp.body>`; `X-Delivery`
        names the call, and a repeated one does nothing.
        """
        body = request._request.read(WEBHOOK_BYTES + 1)
        if len(body) > WEBHOOK_BYTES:
            raise TooLarge(f"The body is larger than {WEBHOOK_BYTES} bytes.")
        return commands.deliver(webhook_id=webhook_id, body=body, headers=request.headers)
