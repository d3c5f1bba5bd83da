"""The event log: one row per fact, append-only, written in the transaction of its effect."""

from typing import ClassVar

from django.db import models
from django.db.models.expressions import RawSQL


class TransactionIdField(models.BigIntegerField):  # type: ignore[type-arg]
    """The 64-bit id of the transaction that inserted the row, set by PostgreSQL."""

    def db_type(self, connection: object) -> str:
        return "bigint"


class CurrentTransaction(models.Func):
    """`pg_current_xact_id()` as a bigint."""

    template = "(pg_current_xact_id()::text::bigint)"
    arity = 0
    output_field: ClassVar[models.Field] = models.BigIntegerField()  # type: ignore[type-arg,misc]


class EventQuerySet(models.QuerySet["Event"]):
    def settled(self) -> "EventQuerySet":
        """Only events below the horizon: those of transactions before which all have ended (`horizon`)."""
        return self.filter(xid__lt=RawSQL("pg_snapshot_xmin(pg_current_snapshot())::text::bigint", ()))


class Event(models.Model):
    """One fact that happened. `facts` holds ids and small values, never whole objects and never secrets."""

    at = models.DateTimeField(auto_now_add=False)
    tenant_id = models.BigIntegerField(null=True)
    domain_id = models.BigIntegerField(null=True)
    actor = models.CharField(max_length=200)
    on_behalf_of = models.CharField(max_length=200, blank=True, default="")
    subject_type = models.CharField(max_length=40)
    subject_id = models.BigIntegerField()
    verb = models.CharField(max_length=60)
    facts = models.JSONField(default=dict)
    reason = models.TextField(blank=True, default="")
    xid = TransactionIdField(db_default=CurrentTransaction())

    objects = EventQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["subject_type", "subject_id", "id"], name="event_subject"),
            models.Index(fields=["tenant_id", "id"], name="event_tenant"),
            models.Index(fields=["verb", "id"], name="event_verb"),
        ]

    def __str__(self) -> str:
        return f"{self.id} {self.verb} {self.subject_type}:{self.subject_id}"


class Stamp(models.Model):
    """One row: how often configuration has changed (`apps.events.stamp`)."""

    value = models.BigIntegerField(default=0)

    def __str__(self) -> str:
        return str(self.value)
