"""What an agent may do over HTTP: join, fetch the bundles of its own jobs, keep the files of its own tasks."""

import hashlib
from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import storages
from django.test import Client

from apps.core.actors import SYSTEM
from apps.execution.commands.files import bundle_path, store_bundle
from apps.execution.models import Artifact, Bundle
from apps.fleet import commands as fleet
from apps.fleet.models import Node
from apps.jobs.models import Job, Placement
from tests.personas import World, make_inventory

from .objects import make_job, run_job

SHA256 = "b" * 64


def agent(credential: str, method: str, path: str, body: bytes = b"", **headers: str) -> Any:
    client = Client(raise_request_exception=False)
    headers = {"Authorization": f"Agent {credential}", **headers}
    return client.generic(method, f"/api/v1/agent/{path}", body, "application/octet-stream", headers=headers)


@pytest.fixture
def placed(world: World, redis_empty: None) -> tuple[Placement, str]:
    """A live placement on a node of its own, and the node's credential."""
    node, credential = world.join("worker")
    job = make_job(world)
    placement = run_job(world, job, node)
    # As dispatch finds it; the way there is tested with the scheduler.
    Placement.objects.filter(pk=placement.pk).update(**{"state": "running"})
    spec = {**job.spec, "bundle": SHA256}
    Job.objects.filter(pk=job.pk).update(spec=spec, token=1)
    Bundle.objects.create(tenant=world.vision, sha256=SHA256, size=5)
    storages["bundles"].save(f"{SHA256[:2]}/{SHA256}.tar.gz", ContentFile(b"\x1f\x8b..."))
    return placement, credential


def test_joining_takes_one_request(world: World, api: Any) -> None:
    _, token = fleet.create_join_token(actor=SYSTEM, cluster=world.cluster)
    body = {"token": token, "name": "n1", "inventory": make_inventory()}
    answer = api.anonymous.post("agent/join", body)
    assert answer.status_code == 201
    assert answer.json()["cluster"] == "alpha-agents"
    assert Node.objects.get(pk=answer.json()["node"]).name == "n1"
    again = api.anonymous.post("agent/join", body)
    assert (again.status_code, again.json()["code"]) == (401, "join_token_invalid")


def test_a_join_is_never_answered_from_memory(world: World, api: Any) -> None:
    _, token = fleet.create_join_token(actor=SYSTEM, cluster=world.cluster)
    body = {"token": token, "name": "n1", "inventory": make_inventory()}
    first = api.anonymous.post("agent/join", body, Idempotency_Key="k")
    second = api.anonymous.post("agent/join", body, Idempotency_Key="k")
    assert (first.status_code, second.status_code) == (201, 401)


def test_a_node_fetches_the_bundle_of_its_own_live_job(world: World, placed: tuple[Placement, str]) -> None:
    placement, credential = placed
    answer = agent(credential, "GET", f"bundles/{SHA256}")
    assert answer.status_code == 200
    assert b"".join(answer.streaming_content).startswith(b"\x1f\x8b")
    _, other = world.join("other")
    assert agent(other, "GET", f"bundles/{SHA256}").status_code == 404
    Placement.objects.filter(pk=placement.pk).update(**{"state": "succeeded"})
    assert agent(credential, "GET", f"bundles/{SHA256}").status_code == 404


def test_a_node_keeps_files_of_its_own_tasks_only(world: World, placed: tuple[Placement, str]) -> None:
    placement, credential = placed
    path = f"placements/{placement.pk}/artifacts/deep/a b.txt"
    answer = agent(credential, "PUT", f"{path}?token=1", b"content")
    assert answer.status_code == 200, answer.content
    kept = Artifact.objects.get(name="deep/a b.txt")
    assert (kept.size, kept.content_type) == (7, "text/plain")
    with storages["artifacts"].open(kept.path) as file:
        assert file.read() == b"content"
    stale = agent(credential, "PUT", f"{path}?token=2", b"late")
    assert (stale.status_code, stale.json()["code"]) == (409, "stale_token")
    _, other = world.join("other")
    assert agent(other, "PUT", f"{path}?token=1", b"forged").status_code == 404
    assert agent(credential, "PUT", path, b"x").status_code == 422
    assert agent(credential, "PUT", f"placements/{placement.pk}/artifacts/../up?token=1", b"x").status_code in (
        404,
        422,
    )
    assert Artifact.objects.exclude(name="out/report.html").count() == 1


def test_a_file_that_was_broken_off_is_never_taken_for_whole(
    world: World, placed: tuple[Placement, str]
) -> None:
    placement, credential = placed
    url = f"placements/{placement.pk}/artifacts/result.txt?token=1"
    assert agent(credential, "PUT", url, b"all of it").status_code == 200
    archive = b"\x1f\x8b and all of it"
    store_bundle(actor=SYSTEM, tenant=world.vision, chunks=[archive])
    uploads = [
        ("artifacts", Artifact.objects.get(name="result.txt").path, b"all of it"),
        ("bundles", bundle_path(hashlib.sha256(archive).hexdigest()), archive),
    ]
    for store, path, _ in uploads:  # As a process leaves it that is killed in the middle.
        storages[store].delete(path)
        storages[store].save(path, ContentFile(b"\x1f\x8b"))
    assert agent(credential, "PUT", url, b"all of it").status_code == 200
    store_bundle(actor=SYSTEM, tenant=world.vision, chunks=[archive])
    for store, path, whole in uploads:
        with storages[store].open(path) as file:
            assert file.read() == whole, store
    assert Artifact.objects.get(name="result.txt").path == uploads[0][1]


def test_a_revoked_credential_opens_nothing(world: World, placed: tuple[Placement, str]) -> None:
    placement, credential = placed
    fleet.revoke_credentials(actor=SYSTEM, node_id=placement.node_id)
    for method, path in (("GET", f"bundles/{SHA256}"), ("PUT", f"placements/{placement.pk}/artifacts/x?token=1")):
        answer = agent(credential, method, path, b"x")
        assert answer.status_code == 401 and answer["WWW-Authenticate"].startswith("Agent")


def test_an_artifact_too_large_is_refused_by_its_length(
    world: World, placed: tuple[Placement, str], settings: Any
) -> None:
    placement, credential = placed
    settings.ARTIFACT_MAX_BYTES = 10
    answer = agent(credential, "PUT", f"placements/{placement.pk}/artifacts/big?token=1", b"x" * 11)
    assert answer.status_code == 413


def test_people_read_logs_and_artifacts_of_their_tenant(world: World, api: Any, placed: tuple[Placement, str]) -> None:
    placement, _ = placed
    Placement.objects.filter(pk=placement.pk).update(**{"state": "succeeded"})
    job = placement.attempt.job_id
    log = api.member.get(f"jobs/{job}/logs?offset=2")
    assert log.content == b"llo\n"
    assert (log["X-Log-Size"], log["X-Log-Complete"], log["Content-Type"]) == ("6", "true", "text/plain; charset=utf-8")
    assert api.member.get(f"jobs/{job}/logs?offset=-2").content == b"o\n"
    assert api.member.get(f"jobs/{job}/logs?rank=7").status_code == 404
    (row,) = api.member.get(f"jobs/{job}/artifacts").json()["results"]
    content = api.member.get(f"jobs/{job}/artifacts/{row['id']}")
    assert b"".join(content.streaming_content) == b"report"
    assert "sandbox" in content["Content-Security-Policy"] and "attachment" in content["Content-Disposition"]
    other = make_job(world, "other")
    assert api.member.get(f"jobs/{other.pk}/artifacts/{row['id']}").status_code == 404


def test_uploading_a_bundle_twice_is_one_bundle(world: World, api: Any) -> None:
    client, headers = Client(), api.member.headers
    send = {"data": b"\x1f\x8b" + b"data", "content_type": "application/octet-stream", "headers": headers}
    first, second = (client.post("/api/v1/bundles?tenant=vision", **send) for _ in range(2))
    assert first.status_code == second.status_code == 201
    assert first.json()["sha256"] == second.json()["sha256"]
    assert Bundle.objects.count() == 1
    assert client.post("/api/v1/bundles?tenant=speech", **send).status_code == 404
    wrong = client.post("/api/v1/bundles", **{**send, "data": b"plain text"})
    assert (wrong.status_code, wrong.json()["code"]) == (422, "not_gzip")
    assert client.post("/api/v1/bundles?dry_run=1", **send).status_code == 422
