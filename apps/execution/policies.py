"""Logs, artifacts and bundles belong to the tenant of their job."""

from django.db.models import QuerySet

from apps.core.actors import Actor
from apps.core.policies import Policy
from apps.jobs.models import Placement
from apps.tenants.policies import tenant_visible

from .models import Artifact, Bundle


class PlacementPolicy(Policy[Placement]):
    model = Placement
    noun = "placement"

    def _visible(self, actor: Actor, rows: QuerySet[Placement]) -> QuerySet[Placement]:
        return rows.filter(tenant_visible(actor, "attempt__job__tenant__"))


class ArtifactPolicy(Policy[Artifact]):
    model = Artifact
    noun = "artifact"

    def _visible(self, actor: Actor, rows: QuerySet[Artifact]) -> QuerySet[Artifact]:
        return rows.filter(tenant_visible(actor, "placement__attempt__job__tenant__"))


class BundlePolicy(Policy[Bundle]):
    model = Bundle
    noun = "bundle"

    def _visible(self, actor: Actor, rows: QuerySet[Bundle]) -> QuerySet[Bundle]:
        return rows.filter(tenant_visible(actor, "tenant__"))


placements = PlacementPolicy()
artifacts = ArtifactPolicy()
bundles = BundlePolicy()
