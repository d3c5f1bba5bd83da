"""REST: what the tasks of a run did with their cache."""

from typing import Any

from django_filters import CharFilter
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request

from apps.core.api import ApiView, operation
from apps.core.filters import FilterSet, IntegerFilter

from . import policies
from .models import CacheUse


class CacheSourceAnswer(serializers.Serializer[Any]):
    run = serializers.IntegerField()
    name = serializers.CharField()
    index = serializers.IntegerField()
    job = serializers.IntegerField(allow_null=True, help_text="Its artifacts are those of the task.")
    at = serializers.DateTimeField(help_text="When it had succeeded.")


class CacheUseAnswer(serializers.ModelSerializer[CacheUse]):
    parts = serializers.DictField(
        child=serializers.CharField(), read_only=True, help_text="A short digest of each part of the key."
    )
    source: Any = serializers.SerializerMethodField(help_text="The start whose result it took, or null.")

    class Meta:
        model = CacheUse
        fields = ("id", "name", "index", "outcome", "key", "parts", "source", "at", "stored_at", "expires_at")
        read_only_fields = fields

    @extend_schema_field(CacheSourceAnswer(allow_null=True))
    def get_source(self, use: CacheUse) -> dict[str, Any] | None:
        """Where the result of a hit came from."""
        found = use.source
        if found is None:
            return None
        told = {"run": found.run_id, "name": found.name, "index": found.index, "job": found.job_id}
        return dict(CacheSourceAnswer({**told, "at": found.stored_at}).data)


class CacheUseFilter(FilterSet):
    name = CharFilter(label="Id of the task in its workflow.")
    index = IntegerFilter(field_name="index", label="Instance of a mapped task.")
    outcome = CharFilter(label="hit, miss or bypass.")


class CacheUses(ApiView):
    @operation(listing=True, answer=CacheUseAnswer, filters=CacheUseFilter, ordering="id")
    def get(self, request: Request, run_id: int) -> Any:
        """Starts of the run's tasks with a cache: whether an earlier result was found, and what the key is made of."""
        run = policies.runs.get(self.actor, pk=run_id)
        return CacheUse.objects.filter(run=run).select_related("source")
