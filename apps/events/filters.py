"""Filters of the event log, for the API and the console alike."""

from datetime import datetime

import django_filters
from django.db.models import QuerySet

from apps.core.errors import Invalid
from apps.core.filters import FilterSet, IntegerFilter, TimeFilter
from apps.core.serializers import MAX_INTEGER

from .models import Event
from .queries import SKEW, first_id_since


class EventFilter(FilterSet):
    verb = django_filters.CharFilter(
        method="of_verb", label="A verb such as job.failed, or all of one noun: job.*"
    )
    subject = django_filters.CharFilter(method="of_subject", label="What it is about, such as job:12.")
    actor = django_filters.CharFilter(label="Who did it, such as user:alice.")
    tenant = IntegerFilter(field_name="tenant_id", label="Id of the tenant.")
    after = TimeFilter(method="not_earlier", label="Not earlier than this time.")
    before = TimeFilter(method="earlier", label="Earlier than this time.")
    settled = django_filters.BooleanFilter(
        method="only_settled", label="true: only events that none can still slip in before; for followers."
    )
    unindexed = frozenset({"actor"})

    def of_verb(self, rows: QuerySet[Event], _name: str, value: str) -> QuerySet[Event]:
        """An exact verb, or with a final `.*` every verb of the noun."""
        if value.endswith(".*"):
            return rows.filter(verb__startswith=value[:-1])
        return rows.filter(verb=value)

    def of_subject(self, rows: QuerySet[Event], _name: str, value: str) -> QuerySet[Event]:
        """`type` or `type:id`."""
        kind, colon, number = value.partition(":")
        rows = rows.filter(subject_type=kind)
        if not colon:
            return rows
        if not (number.isascii() and number.isdigit() and len(number) < 20 and int(number) <= MAX_INTEGER):
            raise Invalid.field("subject", f"{value!r} is not type:id, such as job:12.")
        return rows.filter(subject_id=int(number))

    def not_earlier(self, rows: QuerySet[Event], _name: str, value: datetime) -> QuerySet[Event]:
        """From this time on."""
        return rows.filter(at__gte=value, pk__gte=first_id_since(value - SKEW))

    def earlier(self, rows: QuerySet[Event], _name: str, value: datetime) -> QuerySet[Event]:
        """Before this time."""
        return rows.filter(at__lt=value, pk__lt=first_id_since(value + SKEW))

    def only_settled(self, rows: QuerySet[Event], _name: str, value: bool) -> QuerySet[Event]:
        """Below the horizon of transactions that are still open."""
        return rows.settled() if value else rows  # type: ignore[attr-defined]
