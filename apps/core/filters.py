"""Base of the filter sets that lists share between the API and the console."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import django_filters
from django import forms
from django.db.models import QuerySet
from django_filters.fields import IsoDateTimeField

from .errors import FieldError, Invalid
from .serializers import MAX_INTEGER


class FilterSet(django_filters.FilterSet):  # type: ignore[misc]
    """A filter set that refuses bad values; unknown names are refused by `ApiView`."""

    @classmethod
    def names(cls) -> list[str]:
        """The query parameters that it takes."""
        return list(cls.base_filters)


class IntegerFilter(django_filters.NumberFilter):  # type: ignore[misc]
    """A whole number from 0 that fits a bigint."""

    field_class = forms.IntegerField

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, min_value=0, max_value=MAX_INTEGER, **options)

    def get_max_validator(self) -> None:
        """The field has its own maximum."""


class TimeField(IsoDateTimeField):  # type: ignore[misc]
    """An ISO 8601 time, taken in UTC: PostgreSQL does not read every offset that Python does."""

    def to_python(self, value: Any) -> datetime | None:
        found: datetime | None = super().to_python(value)
        try:
            return found.astimezone(UTC) if found is not None else None
        except OverflowError:
            raise forms.ValidationError(self.error_messages["invalid"], code="invalid") from None


class TimeFilter(django_filters.IsoDateTimeFilter):  # type: ignore[misc]
    """An ISO 8601 time such as 2026-01-31T12:00:00Z."""

    field_class = TimeField


class ChoicesFilter(django_filters.MultipleChoiceFilter):  # type: ignore[misc]
    """One of several values; repeat the parameter for more than one."""


def apply_filters(filters: type[FilterSet], query: Mapping[str, Any], rows: QuerySet[Any]) -> QuerySet[Any]:
    """The rows that pass; raises Invalid naming each parameter that cannot be read."""
    found = filters(query, queryset=rows)
    if not found.is_valid():
        errors = [
            FieldError(field=name, message=" ".join(item.messages), code=item.code or "invalid")
            for name, items in found.errors.as_data().items()
            for item in items
        ]
        raise Invalid(f"{errors[0]['field']}: {errors[0]['message']}", errors=errors)
    passed: QuerySet[Any] = found.qs
    return passed
