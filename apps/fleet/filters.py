"""Filters of the fleet's lists, for the API and the console alike."""

import django_filters
from django.db.models import QuerySet

from apps.core.errors import Invalid
from apps.core.filters import ChoicesFilter, FilterSet

from .models import Cluster, Node
from .states import NodeState


class ClusterFilter(FilterSet):
    domain = django_filters.CharFilter(field_name="domain__slug", label="Slug of the domain.")
    kind = django_filters.ChoiceFilter(choices=Cluster.Kind.choices, label="Kind of control plane.")


class NodeFilter(FilterSet):
    state = ChoicesFilter(choices=NodeState.choices, label="States; without it removed nodes are left out.")
    cluster = django_filters.CharFilter(field_name="cluster__name", label="Name of the cluster.")
    domain = django_filters.CharFilter(field_name="cluster__domain__slug", label="Slug of the domain.")
    region = django_filters.CharFilter(field_name="cluster__region", label="Region of the cluster.")
    name = django_filters.CharFilter(lookup_expr="icontains", label="Part of the name.")
    label = django_filters.CharFilter(method="labelled", label="A label as key=value.")

    def labelled(self, rows: QuerySet[Node], _name: str, value: str) -> QuerySet[Node]:
        """Nodes that carry the label."""
        key, equals, wanted = value.partition("=")
        if not equals or not key:
            raise Invalid.field("label", f"{value!r} is not key=value.")
        return rows.filter(labels__contains={key: wanted})

    def filter_queryset(self, queryset: QuerySet[Node]) -> QuerySet[Node]:
        """As declared; removed nodes only on request."""
        rows: QuerySet[Node] = super().filter_queryset(queryset)
        return rows if self.form.cleaned_data.get("state") else rows.exclude(state=NodeState.REMOVED)


class FlavorFilter(FilterSet):
    pool = django_filters.CharFilter(field_name="pool__name", label="Name of the pool.")


class OfClusterFilter(FilterSet):
    cluster = django_filters.CharFilter(field_name="cluster__name", label="Name of the cluster.")
