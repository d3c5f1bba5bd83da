"""Base of the filter sets that lists share between the API and the console."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar

import django_filters
from django import forms
from django.db.models import Model, QuerySet
from django_filters.fields import IsoDateTimeField

from .errors import FieldError, Invalid
from .serializers import MAX_INTEGER


class FilterSet(django_filters.FilterSet):  # type: ignore[misc]
    """A filter set that refuses bad values; unknown names are refused by `ApiView`."""

    # Names of the filters without an index behind them: a page then looks at so many rows and no more (`pagination`).
    unindexed: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def names(cls) -> list[str]:
        """The query parameters that it takes."""
        return list(cls.base_filters)

    @classmethod
    def scans(cls, query: Mapping[str, Any]) -> bool:
        """Whether the query has a filter without an index."""
        return any(query.get(name) for name in cls.unindexed)


class IntegerFilter(django_filters.NumberFilter):  # type: ignore[misc]
    """A whole number from 0 that fits a bigint."""

    field_class = forms.IntegerField

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, min_value=0, max_value=MAX_INTEGER, **options)

    def get_max_validator(self) -> None:
        """The field has its own maximum."""


class ReferenceFilter(django_filters.CharFilter):  # type: ignore[misc]
    """Rows that refer to the one object with this name; `field_name` is the column, `by` what the object is named by.

    The object is looked up first: knowing its id, PostgreSQL can read a long list by the index on it, where a join
    would make it go through the list.
    """

    def __init__(self, *args: Any, to: type[Model], by: str, **options: Any) -> None:
        super().__init__(*args, **options)
        self.to, self.by = to, by

    def filter(self, rows: QuerySet[Any], value: Any) -> QuerySet[Any]:
        if not value:
            return rows
        pk = self.to._default_manager.filter(**{self.by: value}).values_list("pk", flat=True).first()
        return rows.none() if pk is None else rows.filter(**{self.field_name: pk})


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
