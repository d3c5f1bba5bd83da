"""`rmctl deploy` and `rmctl services` against a portal on a real socket: output, JSON and exit statuses."""

from pathlib import Path
from typing import Any

import pytest

from rmctl.cli import services

from .portal import Asked, FakePortal, page, problem

SERVICE = {
    "id": 5, "name": "web", "tenant": "vision", "condition": "starting", "ready": 0, "replicas": 2, "revision": 3,
    "rollout": "rolling", "detail": "0 of 2 replicas of revision 3 ready.",
}  # fmt: skip
FILE = "name: web\nreplicas: 2\njob: {groups: [{command: [serve]}]}\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "web.yaml"
    path.write_text(FILE)
    return path


def ends(portal: FakePortal, state: str) -> None:
    """The rollout has ended at the second look."""
    looks = iter(["rolling"])

    def answer(_: Asked) -> Any:
        return 200, {"service": {**SERVICE, "rollout": next(looks, state)}, "members": [], "rollouts": []}

    portal.on("POST services", (200, {**SERVICE, "changed": True}))
    portal.on("GET services/5", answer)


def test_deploy_sends_the_file_and_says_what_is_new(portal: FakePortal, rm: Any, file: Path) -> None:
    portal.on("POST services", (200, {**SERVICE, "changed": False}))
    done = rm("deploy", str(file), "--replicas", "4", "-t", "vision")
    assert done.status == 0 and "nothing is new, revision 3" in done.out
    [asked] = portal.requests("POST", "services")
    assert asked.body == {
        "name": "web", "replicas": 4, "tenant": "vision", "job": {"groups": [{"command": ["serve"]}]},
    }  # fmt: skip


@pytest.mark.parametrize(("state", "status"), [("complete", 0), ("failed", 1), ("superseded", 1)])
def test_deploy_waits_and_ends_as_the_rollout_does(
    portal: FakePortal, rm: Any, file: Path, monkeypatch: pytest.MonkeyPatch, state: str, status: int
) -> None:
    monkeypatch.setattr(services, "POLL_SECONDS", 0.0)
    ends(portal, state)
    assert rm("deploy", str(file), "--wait").status == status


def test_what_is_wrong_is_refused_before_anything_is_sent(portal: FakePortal, rm: Any, file: Path) -> None:
    file.write_text(FILE.replace("groups", "group"))
    done = rm("deploy", str(file))
    assert done.status == 2 and "job.group" in done.err and not portal.requests("POST", "services")
    assert rm("deploy", str(file.parent / "none.yaml")).status == 2


def test_services_are_named_and_acted_on(portal: FakePortal, rm: Any) -> None:
    portal.on("GET services", page(SERVICE))
    portal.on("POST services/5/scale", (200, {**SERVICE, "replicas": 4}))
    portal.on("POST services/5/stop", problem(404, "not_found", "There is no service 5 that you can see."))
    assert rm("services", "scale", "web", "4").status == 0
    assert portal.requests("POST", "services/5/scale")[0].body == {"replicas": 4, "reason": ""}
    assert rm("services", "stop", "5").status == 3
    listed = rm("services", "list")
    assert listed.status == 0 and "starting" in listed.out
    portal.on("GET services", page())
    assert rm("services", "stop", "other").status == 2
