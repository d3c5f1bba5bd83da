"""Logs, artifacts, checkpoints and bundles belong to the tenant of their job."""

from apps.jobs.models import Placement
from apps.tenants.policies import OwnedPolicy

from .models import Artifact, Bundle, Checkpoint


class PlacementPolicy(OwnedPolicy[Placement]):
    model = Placement
    noun = "placement"
    owner = "attempt__job__tenant"


class ArtifactPolicy(OwnedPolicy[Artifact]):
    model = Artifact
    noun = "artifact"
    owner = "placement__attempt__job__tenant"


class CheckpointPolicy(OwnedPolicy[Checkpoint]):
    model = Checkpoint
    noun = "checkpoint"
    owner = "job__tenant"


class BundlePolicy(OwnedPolicy[Bundle]):
    model = Bundle
    noun = "bundle"


placements = PlacementPolicy()
artifacts = ArtifactPolicy()
checkpoints = CheckpointPolicy()
bundles = BundlePolicy()
