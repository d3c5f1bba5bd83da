"""REST: logs, artifacts, checkpoints and bundles for people; joining, bundles, artifacts and checkpoints for agents."""

from typing import Any

from django.conf import settings
from django.core.files.storage import storages
from django.http import HttpResponse
from rest_framework import serializers
from rest_framework.permissions import AllowAny
from rest_framework.request import Request

from apps.core.api import ApiView, StrictSerializer, Text, operation
from apps.core.errors import Invalid, NotFound, TooLarge
from apps.core.serializers import MAX_INTEGER, MIN_INTEGER
from apps.core.streaming import file_response
from apps.fleet.commands import join_node
from apps.jobs.models import Placement
from apps.jobs.policies import jobs as job_policy
from apps.jobs.states import ATTEMPT_LIVE
from apps.tenants.queries import tenant_named

from . import commands, policies, queries
from .authentication import Agent, AgentAuthentication
from .commands.files import bundle_path, read_stream
from .models import Artifact, Bundle, Checkpoint

LOG_BYTES = 1 << 20


class QueryInteger(serializers.IntegerField):
    """A whole number in a query string."""

    def __init__(self, low: int = 0, high: int = 2**31 - 1, **options: Any) -> None:
        super().__init__(min_value=low, max_value=high, **options)


class LogQuery(StrictSerializer):
    group = QueryInteger(0, 32767, default=0, help_text="Position of the group.")
    rank = QueryInteger(default=0, help_text="Member of the group.")
    attempt = QueryInteger(1, required=False, help_text="Token of the attempt; the newest by default.")
    offset = QueryInteger(
        MIN_INTEGER, MAX_INTEGER, default=0, help_text="First byte; negative: from the end."
    )
    limit = QueryInteger(1, LOG_BYTES, default=LOG_BYTES, help_text="Bytes at most.")


class ArtifactAnswer(serializers.ModelSerializer[Artifact]):
    attempt = serializers.IntegerField(source="placement.attempt.token", read_only=True)
    group = serializers.IntegerField(source="placement.group", read_only=True)
    rank = serializers.IntegerField(source="placement.rank", read_only=True)

    class Meta:
        model = Artifact
        fields = ("id", "name", "attempt", "group", "rank", "size", "sha256", "content_type", "created_at")
        read_only_fields = fields


class CheckpointAnswer(serializers.ModelSerializer[Checkpoint]):
    attempt = serializers.IntegerField(source="token", read_only=True)

    class Meta:
        model = Checkpoint
        fields = ("id", "attempt", "group", "rank", "at", "size", "sha256", "created_at")
        read_only_fields = fields


class BundleQuery(StrictSerializer):
    tenant = Text(
        max_length=63, required=False, help_text="Slug of the tenant; may be left out if there is one."
    )


class BundleAnswer(serializers.ModelSerializer[Bundle]):
    tenant: Any = serializers.CharField(source="tenant.slug", read_only=True)

    class Meta:
        model = Bundle
        fields = ("id", "sha256", "size", "tenant", "created_at")
        read_only_fields = fields


class JoinBody(StrictSerializer):
    token = Text(max_length=200)
    name = Text(max_length=200)
    inventory = serializers.DictField()


class JoinAnswer(serializers.Serializer[Any]):
    node = serializers.IntegerField()
    credential = serializers.CharField(help_text="Shown this one time.")
    cluster = serializers.CharField()


class PlacementQuery(StrictSerializer):
    token = serializers.IntegerField(
        min_value=1, max_value=2**31 - 1, help_text="Fencing token of the attempt."
    )


class SavedQuery(PlacementQuery):
    at = serializers.FloatField(min_value=0, help_text="When the task said that it is complete, in Unix seconds.")
    sha256 = serializers.RegexField("^[0-9a-f]{64}$", help_text="Digest of the body.")


class JobLogs(ApiView):
    @operation(query=LogQuery, produces="text/plain")
    def get(self, request: Request, job_id: int) -> HttpResponse:
        """Bytes of a member's log from an offset.

        `X-Log-Size` is what is stored by now; `X-Log-Complete: true` says that nothing will follow it. To
        follow a log, ask again from the offset plus the bytes received.
        """
        asked = self.query
        placement = queries.job_placement(
            self.actor, job_id, attempt=asked.get("attempt"), rank=asked["rank"], group=asked["group"]
        )
        piece = queries.read_log(placement.pk, asked["offset"], asked["limit"])
        response = HttpResponse(piece.data, content_type="text/plain; charset=utf-8")
        response["X-Log-Offset"] = str(piece.offset)
        response["X-Log-Size"] = str(piece.size)
        response["X-Log-Complete"] = "true" if piece.complete else "false"
        return response


class JobArtifacts(ApiView):
    @operation(listing=True, answer=ArtifactAnswer)
    def get(self, request: Request, job_id: int) -> Any:
        """Files that the job's attempts kept."""
        job_policy.get(self.actor, pk=job_id)
        return queries.job_artifacts(self.actor, job_id)


class ArtifactContent(ApiView):
    @operation(produces="application/octet-stream")
    def get(self, request: Request, job_id: int, artifact_id: int) -> Any:
        """The bytes of one artifact."""
        artifact = policies.artifacts.get(self.actor, pk=artifact_id, placement__attempt__job_id=job_id)
        file = storages["artifacts"].open(artifact.path, "rb")
        return file_response(
            request._request,
            file,
            content_type=artifact.content_type,
            size=artifact.size,
            filename=artifact.name.rsplit("/", 1)[-1],
        )


class JobCheckpoints(ApiView):
    @operation(listing=True, answer=CheckpointAnswer)
    def get(self, request: Request, job_id: int) -> Any:
        """What the job's members have saved to go on from, newest first."""
        job_policy.get(self.actor, pk=job_id)
        return queries.job_checkpoints(self.actor, job_id)


class CheckpointContent(ApiView):
    @operation(produces="application/gzip")
    def get(self, request: Request, job_id: int, checkpoint_id: int) -> Any:
        """The folder of one checkpoint as a tar.gz."""
        found = policies.checkpoints.get(self.actor, pk=checkpoint_id, job=job_id)
        return _checkpoint_file(request, found)


def _checkpoint_file(request: Request, found: Checkpoint) -> HttpResponse:
    try:
        file = storages["checkpoints"].open(found.path, "rb")
    except FileNotFoundError:
        raise NotFound(f"Checkpoint {found.pk} of job {found.job_id} has been removed.") from None
    filename = f"job-{found.job_id}-{found.group}-{found.rank}-{found.at:%Y%m%dT%H%M%S}.tar.gz"
    content = "application/gzip"
    return file_response(request._request, file, content_type=content, size=found.size, filename=filename)


class Bundles(ApiView):
    @operation(listing=True, answer=BundleAnswer)
    def get(self, request: Request) -> Any:
        """Bundles of your tenants, newest first."""
        return policies.bundles.visible(self.actor).select_related("tenant")

    @operation(
        query=BundleQuery,
        answer=BundleAnswer,
        status=201,
        stream="application/octet-stream",
        dry_run=False,
        idempotency=False,
    )
    def post(self, request: Request) -> Any:
        """Upload a tar.gz with code and small data; the same content again gives the same bundle."""
        tenant = tenant_named(self.actor, self.query.get("tenant"))
        _refuse_length(request, settings.BUNDLE_MAX_BYTES, "bundle")
        return commands.store_bundle(
            actor=self.actor,
            tenant=tenant,
            chunks=read_stream(request._request),  # type: ignore[arg-type]
        )


class AgentJoin(ApiView):
    authentication_classes: Any = []
    permission_classes = [AllowAny]
    rate_scope = "join"

    @operation(body=JoinBody, answer=JoinAnswer, status=201, idempotency=False)
    def post(self, request: Request) -> Any:
        """Trade a one-time join token for a node and its credential."""
        node, credential = join_node(**self.data)
        return {"node": node.pk, "credential": credential, "cluster": node.cluster.name}


class AgentView(ApiView):
    """For agents: reaches only what belongs to live work of the node that asks."""

    authentication_classes: Any = [AgentAuthentication]

    @property
    def agent(self) -> Agent:
        """The node's agent that asks."""
        user: Any = self.request.user
        assert isinstance(user, Agent)
        return user

    def live(self) -> Any:
        """Placements that the node is to run now."""
        return Placement.objects.filter(node=self.agent.node, state__in=sorted(ATTEMPT_LIVE))


class AgentBundle(AgentView):
    @operation(produces="application/gzip")
    def get(self, request: Request, sha256: str) -> Any:
        """A bundle that a job on this node starts from."""
        found = self.live().filter(attempt__job__spec__bundle=sha256).select_related("attempt__job").first()
        bundle = None
        if found is not None:
            bundle = Bundle.objects.filter(tenant_id=found.attempt.job.tenant_id, sha256=sha256).first()
        if bundle is None:
            raise NotFound(f"No job on this node starts from bundle {sha256}.")
        file = storages["bundles"].open(bundle_path(sha256), "rb")
        return file_response(request._request, file, content_type="application/gzip", size=bundle.size)


class AgentArtifact(AgentView):
    @operation(
        query=PlacementQuery,
        answer=ArtifactAnswer,
        stream="application/octet-stream",
        dry_run=False,
        idempotency=False,
    )
    def put(self, request: Request, placement_id: int, path: str) -> Any:
        """Keep a file that a task on this node left; a repeat replaces it."""
        _refuse_length(request, settings.ARTIFACT_MAX_BYTES, "artifact")
        return commands.store_artifact(
            actor=self.agent.actor,
            node_id=self.agent.node.pk,
            placement_id=placement_id,
            token=self.query["token"],
            name=path,
            chunks=read_stream(request._request),  # type: ignore[arg-type]
        )


class AgentCheckpoint(AgentView):
    @operation(query=PlacementQuery, produces="application/gzip")
    def get(self, request: Request, placement_id: int) -> Any:
        """What an earlier attempt has saved for a placement of this node."""
        token = self.query["token"]
        row = self.live().filter(pk=placement_id, attempt__token=token).select_related("attempt").first()
        if row is None:
            raise NotFound(f"No placement {placement_id} with token {token} is live on this node.")
        key = (row.attempt.job_id, row.group, row.rank)
        found = queries.saved_before([(*key, token)]).get(key)
        if found is None:
            raise NotFound(f"No earlier attempt has saved anything for placement {placement_id}.")
        return _checkpoint_file(request, found)

    @operation(
        query=SavedQuery,
        answer=CheckpointAnswer,
        stream="application/octet-stream",
        dry_run=False,
        idempotency=False,
    )
    def put(self, request: Request, placement_id: int) -> Any:
        """Keep what a task on this node has saved, for later attempts."""
        _refuse_length(request, settings.CHECKPOINT_MAX_BYTES, "checkpoint")
        return commands.store_checkpoint(
            actor=self.agent.actor,
            node_id=self.agent.node.pk,
            placement_id=placement_id,
            chunks=read_stream(request._request),  # type: ignore[arg-type]
            **self.query,
        )


def _refuse_length(request: Request, limit: int, noun: str) -> None:
    """Refuse a body by its declared length before reading any of it."""
    length = request.headers.get("Content-Length") or "0"
    if not (length.isascii() and length.isdigit()):
        raise Invalid.field("Content-Length", "a whole number.")
    if int(length) > limit:
        raise TooLarge(f"The {noun} is larger than {limit} bytes.")
