"""Decisions are seen by whoever sees their job."""

from apps.tenants.policies import OwnedPolicy

from .models import Decision


class DecisionPolicy(OwnedPolicy[Decision]):
    model = Decision
    noun = "decision"
    owner = "job__tenant"


decisions = DecisionPolicy()
