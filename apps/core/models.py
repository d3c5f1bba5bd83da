"""Rows that belong to no domain: remembered answers of idempotent requests."""

from django.db import models


class IdempotencyRecord(models.Model):
    """The answer of a mutation that carried an Idempotency-Key, written in the mutation's own transaction."""

    actor = models.CharField(max_length=200)
    key = models.CharField(max_length=200)
    fingerprint = models.CharField(max_length=64)
    status = models.PositiveSmallIntegerField(null=True)
    body = models.JSONField(null=True)
    created_at = models.DateTimeField(auto_now_add=True, db_index=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["actor", "key"], name="idempotency_once")]

    def __str__(self) -> str:
        return f"{self.actor} {self.key}"
