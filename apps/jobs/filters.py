"""Filters of the job list, for the API and the console alike."""

from collections.abc import Sequence

import django_filters
from django.contrib.auth import get_user_model
from django.db.models import QuerySet

from apps.core.filters import ChoicesFilter, FilterSet, ReferenceFilter
from apps.tenants.models import Tenant
from engine.reasons import Reason

from .labels import LabelFilter
from .models import Job
from .states import JobState


class JobFilter(FilterSet):
    state = ChoicesFilter(choices=JobState.choices, label="States.")
    tenant = ReferenceFilter(field_name="tenant_id", to=Tenant, by="slug", label="Slug of the tenant.")
    owner = ReferenceFilter(field_name="owner_id", to=get_user_model(), by="username", label="Who submitted it.")
    pool = django_filters.CharFilter(label="Name of the pool.")
    name = django_filters.CharFilter(lookup_expr="icontains", label="Part of the name.")
    reason = ChoicesFilter(
        choices=[(str(reason), str(reason)) for reason in Reason], method="waits_for", label="Why it waits."
    )
    origin = django_filters.CharFilter(label="What made it, such as run:12.")
    held = django_filters.BooleanFilter(method="is_held", label="Whether a person holds it.")
    label = LabelFilter(label="A label that it has, such as app=trainer; repeat it for jobs that have several.")
    unindexed = frozenset({"name", "pool"})

    def waits_for(self, rows: QuerySet[Job], _name: str, value: Sequence[str]) -> QuerySet[Job]:
        """Only a pending job has a reason; saying so lets the index of active jobs serve."""
        return rows.filter(state=JobState.PENDING, reason__in=value) if value else rows

    def is_held(self, rows: QuerySet[Job], _name: str, value: bool) -> QuerySet[Job]:
        """Only a pending job can be held."""
        held = rows.filter(state=JobState.PENDING, held=True)
        return held if value else rows.exclude(state=JobState.PENDING, held=True)
