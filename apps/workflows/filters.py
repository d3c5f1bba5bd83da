"""Filters of the lists of workflows, runs and tasks, for the API and the console alike."""

import django_filters

from apps.core.filters import ChoicesFilter, FilterSet, IntegerFilter, ReferenceFilter, TimeFilter
from apps.tenants.models import Tenant

from .models import Run
from .states import RunState, TaskState


class WorkflowFilter(FilterSet):
    tenant = ReferenceFilter(field_name="tenant_id", to=Tenant, by="slug", label="Slug of the tenant.")
    name = django_filters.CharFilter(lookup_expr="icontains", label="Part of the name.")
    paused = django_filters.BooleanFilter(label="Whether the timetable is off.")


class OfTenantFilter(FilterSet):
    tenant = ReferenceFilter(field_name="tenant_id", to=Tenant, by="slug", label="Slug of the tenant.")


class RunFilter(FilterSet):
    tenant = ReferenceFilter(field_name="tenant_id", to=Tenant, by="slug", label="Slug of the tenant.")
    workflow = IntegerFilter(field_name="workflow_id", label="Id of the workflow.")
    state = ChoicesFilter(choices=RunState.choices, label="States.")
    trigger = django_filters.ChoiceFilter(choices=Run.Trigger.choices, label="What made it.")
    backfill = IntegerFilter(field_name="backfill_id", label="Id of the backfill that made it.")
    logical_after = TimeFilter(field_name="logical_time", lookup_expr="gte", label="Logical time from here.")
    logical_before = TimeFilter(field_name="logical_time", lookup_expr="lt", label="Logical time before here.")


class TaskFilter(FilterSet):
    state = ChoicesFilter(choices=TaskState.choices, label="States.")
    name = django_filters.CharFilter(label="Id of the task in its workflow.")
    job = IntegerFilter(field_name="job_id", label="The task or instance that this job is of.")
