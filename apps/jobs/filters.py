"""Filters of the job list, for the API and the console alike."""

import django_filters

from apps.core.filters import ChoicesFilter, FilterSet
from engine.reasons import Reason

from .states import JobState


class JobFilter(FilterSet):
    state = ChoicesFilter(choices=JobState.choices, label="States.")
    tenant = django_filters.CharFilter(field_name="tenant__slug", label="Slug of the tenant.")
    owner = django_filters.CharFilter(field_name="owner__username", label="Who submitted it.")
    pool = django_filters.CharFilter(label="Name of the pool.")
    name = django_filters.CharFilter(lookup_expr="icontains", label="Part of the name.")
    reason = ChoicesFilter(choices=[(str(reason), str(reason)) for reason in Reason], label="Why it waits.")
    origin = django_filters.CharFilter(label="What made it, such as run:12.")
    held = django_filters.BooleanFilter(label="Whether a person holds it.")
