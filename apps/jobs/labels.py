"""Labels of jobs as they are searched for: a row for each, so that a list of millions is read by an index."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

import django_filters
from django import forms
from django.db.models import Exists, OuterRef, QuerySet

from rmctl.names import LABEL_KEY, LABEL_VALUE

from .models import Job, JobLabel

LABEL = re.compile(f"(?:{LABEL_KEY.pattern})=(?:{LABEL_VALUE.pattern})")
LABELS_MAX = 10


def rows_of(jobs: Iterable[Job]) -> list[JobLabel]:
    """The rows that new jobs are found by."""
    return [
        JobLabel(job=job, label=f"{key}={value}")
        for job in jobs
        for key, value in (job.spec.get("labels") or {}).items()
    ]


def labelled(rows: QuerySet[Job], labels: Sequence[str]) -> QuerySet[Job]:
    """The jobs that have all of these labels (`key=value`)."""
    for label in labels:
        rows = rows.filter(Exists(JobLabel.objects.filter(job=OuterRef("pk"), label=label)))
    return rows


class LabelsField(forms.MultipleChoiceField):
    """Labels as `key=value`."""

    default_error_messages = {
        "invalid_choice": "%(value)r is not a label of a job: write it as app=trainer.",
        "invalid_list": "Labels as text, such as app=trainer.",
    }

    def valid_value(self, value: str) -> bool:
        """Whether it is one."""
        return LABEL.fullmatch(value) is not None

    def validate(self, value: list[str]) -> None:
        """Each has to be one, and only so many may be asked for."""
        super().validate(value)
        if len(value) > LABELS_MAX:
            raise forms.ValidationError(f"At most {LABELS_MAX} labels at once.", code="too_many")


class LabelFilter(django_filters.Filter):  # type: ignore[misc]
    """Jobs that have this label; repeat the parameter for those that have several."""

    field_class = LabelsField

    def filter(self, rows: QuerySet[Any], value: Sequence[str] | None) -> QuerySet[Any]:
        return labelled(rows, value or ())
