"""Storing artifacts and bundles: streamed to the store, hashed on the way, then made visible by a row."""

import hashlib
import mimetypes
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import IO

from django.conf import settings
from django.core.files import File
from django.core.files.storage import storages
from django.db import transaction

from apps.core.actors import Actor
from apps.core.errors import Invalid, TooLarge
from apps.events.record import Fact, record
from apps.tenants import policies as tenant_policies
from apps.tenants.models import Tenant

from ..models import Artifact, Bundle
from .live import live_placement


@dataclass(slots=True)
class Upload:
    """A body on its way into a temporary file: its size and SHA-256 so far."""

    file: IO[bytes]
    limit: int
    noun: str
    size: int = 0
    _hash: "hashlib._Hash" = field(default_factory=hashlib.sha256)

    def take(self, chunks: Iterable[bytes]) -> None:
        """Write all chunks; raises TooLarge as soon as the limit is passed."""
        for chunk in chunks:
            self.size += len(chunk)
            if self.size > self.limit:
                raise TooLarge(f"The {self.noun} is larger than {self.limit} bytes.")
            self._hash.update(chunk)
            self.file.write(chunk)
        self.file.flush()

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()


def read_stream(stream: IO[bytes], size: int = 1 << 20) -> Iterator[bytes]:
    """The stream in pieces."""
    while chunk := stream.read(size):
        yield chunk


def bundle_path(sha256: str) -> str:
    """Where a bundle lies in the `bundles` storage."""
    return f"{sha256[:2]}/{sha256}.tar.gz"


def _put(store: str, path: str, upload: Upload) -> None:
    """Store an upload at a path that its digest is part of, unless it is there.

    A shorter file is what a killed process has left, or another one writes just now: it is never taken for whole.
    """
    storage = storages[store]
    if not storage.exists(path) or storage.size(path) != upload.size:
        storage.delete(path)
        upload.file.seek(0)
        storage.save(path, File(upload.file))


def store_bundle(*, actor: Actor, tenant: Tenant, chunks: Iterable[bytes]) -> Bundle:
    """Keep a tar.gz of code and small data; the same content again gives the same bundle."""
    tenant_policies.tenants.require(actor, "submit", tenant)
    with tempfile.TemporaryFile() as file:
        upload = Upload(file, settings.BUNDLE_MAX_BYTES, "bundle")
        upload.take(chunks)
        file.seek(0)
        if file.read(2) != b"\x1f\x8b":
            raise Invalid.field("body", "a tar.gz archive (it does not begin as gzip does).", "not_gzip")
        _put("bundles", bundle_path(upload.sha256), upload)
    with transaction.atomic():
        bundle, created = Bundle.objects.get_or_create(
            tenant=tenant, sha256=upload.sha256, defaults={"size": upload.size, "created_by_id": actor.user_id}
        )
        if created:
            facts = {"sha256": upload.sha256, "size": upload.size}
            record(actor, Fact("bundle.stored", "bundle", bundle.pk, tenant_id=tenant.pk, facts=facts))
    return bundle


def checked_artifact_name(name: str) -> str:
    """A relative path without tricks; raises Invalid."""
    parts = name.split("/")
    if (
        not name
        or len(name) > 500
        or any(part in ("", ".", "..") for part in parts)
        or re.search(r"[\x00-\x1f\\]", name)
    ):
        raise Invalid.field("path", f"{name!r} is not a relative path of at most 500 characters.")
    return name


def store_artifact(
    *, actor: Actor, node_id: int, placement_id: int, token: int, name: str, chunks: Iterable[bytes]
) -> Artifact:
    """Keep a file that a live attempt produced; a repeat replaces it. Raises Conflict for an old token, TooLarge.

    The file is stored before the row that makes it seen, so that nothing waits for the copy of a large one.
    """
    checked_artifact_name(name)
    live_placement(node_id, placement_id, token)
    with tempfile.TemporaryFile() as file:
        upload = Upload(file, settings.ARTIFACT_MAX_BYTES, "artifact")
        upload.take(chunks)
        path = f"{placement_id // 1000:06d}/{placement_id}/{upload.sha256[:16]}{os.path.splitext(name)[1][:16]}"
        _put("artifacts", path, upload)
    with transaction.atomic():
        job = live_placement(node_id, placement_id, token, lock=True).attempt.job
        artifact, _ = Artifact.objects.update_or_create(
            placement_id=placement_id,
            name=name,
            defaults={
                "path": path,
                "size": upload.size,
                "sha256": upload.sha256,
                "content_type": mimetypes.guess_type(name)[0] or "application/octet-stream",
            },
        )
        facts = {"name": name, "size": upload.size, "sha256": upload.sha256, "job": job.pk}
        topics = (f"job:{job.pk}",)
        record(
            actor, Fact("artifact.stored", "artifact", artifact.pk, tenant_id=job.tenant_id, facts=facts, topics=topics)
        )
    return artifact
