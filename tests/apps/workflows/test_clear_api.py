"""The REST routes that clear, mark and note runs, and those of backfills."""

from typing import Any

import pytest

from apps.core.actors import SYSTEM
from apps.workflows import commands
from apps.workflows.models import Backfill, Run, Task, TaskTry
from tests.apps.workflows.driver import bash, definition, finish, start, states
from tests.personas import World

pytestmark = pytest.mark.django_db

JANUARY = {"first": "2026-01-01T00:00:00Z", "last": "2026-01-05T00:00:00Z"}


@pytest.fixture
def run(world: World) -> Run:
    found = start(world.vision, bash("a"), bash("b", "a"), schedule="@daily")
    finish(found, lambda task: ("failed" if task.name == "b" else "succeeded", None))
    return found


def test_a_dry_run_says_what_would_be_cleared_and_changes_nothing(api: Any, run: Run) -> None:
    body = {"only_failed": True}
    told = api.member.post(f"runs/{run.pk}/clear?dry_run=1", body)
    assert (told.status_code, told["X-Dry-Run"]) == (200, "true")
    answer = told.json()
    job = Task.objects.get(name="b").job_id
    assert answer["tasks"] == [{"name": "b", "index": -1, "label": None, "state": "failed", "job": job}]
    assert (answer["count"], answer["in_flight"], answer["version"]) == (1, 0, 1)
    assert answer["estimate"] == {"task_hours": 0.0, "cpu_hours": 0.0, "money": None, "unknown": ["b"]}
    assert states(run) == {"a": "succeeded", "b": "failed"}
    assert not TaskTry.objects.exists()
    # What is then done is what was said.
    done = api.member.post(f"runs/{run.pk}/clear", body)
    assert done.json() == answer
    assert states(run) == {"a": "succeeded", "b": "waiting"}
    assert api.member.get(f"runs/{run.pk}").json()["state"] == "queued"


def test_a_repeated_request_clears_once(api: Any, run: Run) -> None:
    answers = [
        api.member.post(f"runs/{run.pk}/clear", {"tasks": ["b"]}, Idempotency_Key="once") for _ in range(2)
    ]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json() == answers[1].json()
    assert TaskTry.objects.count() == 1


def test_tries_mark_and_note(api: Any, run: Run) -> None:
    api.member.post(f"runs/{run.pk}/clear", {"tasks": ["b"]})
    [old] = api.auditor.get(f"runs/{run.pk}/tries?name=b").json()["results"]
    assert (old["number"], old["state"], old["version"], old["closed_by"]) == (1, "failed", 1, "user:max")
    marked = api.member.post(f"runs/{run.pk}/mark", {"tasks": ["b"], "state": "skipped", "reason": "not needed"})
    assert marked.status_code == 200
    assert states(run)["b"] == "skipped"
    noted = api.member.post(f"runs/{run.pk}/note", {"note": "late source"}).json()
    assert (noted["note"], noted["note_by"]) == ("late source", "max")


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("clear", {"tasks": ["nope"]}, 422, "unknown_task"),
        ("clear", {"tasks": ["a"], "upstreams": True}, 422, "unknown_field"),
        ("mark", {"tasks": ["a"], "state": "failed"}, 409, "has_succeeded"),
        ("mark", {"tasks": ["b"], "state": "failed"}, 409, "already_so"),
        ("mark", {"tasks": [], "state": "failed"}, 422, "required"),
        ("mark", {"tasks": ["b"], "state": "running"}, 422, "invalid_choice"),
    ],
)
def test_refusals_name_what_is_wrong(
    api: Any, run: Run, path: str, body: dict[str, Any], status: int, code: str
) -> None:
    answer = api.member.post(f"runs/{run.pk}/{path}", body)
    told = answer.json()
    assert answer.status_code == status, told
    assert code in {told["code"], *(error["code"] for error in told["errors"])}, told


def test_a_backfill_from_its_preview_to_its_end(api: Any, run: Run) -> None:
    body = {"workflow": run.workflow_id, **JANUARY, "max_active_runs": 2}
    plan = api.member.post("backfills?dry_run=1", body).json()["plan"]
    assert (plan["times"], plan["runs"]) == (5, 5)
    assert plan["slots"][0] == {"logical_time": "2026-01-01T00:00:00Z", "action": "run", "run": None, "state": None}
    assert not Backfill.objects.exists()
    made = api.member.post("backfills", body)
    assert made.status_code == 201
    pk = made.json()["id"]
    assert api.auditor.get(f"backfills/{pk}").json()["counts"] == {"queued": 5}
    listed = api.member.get(f"backfills?workflow={run.workflow_id}&state=running").json()["results"]
    assert [row["id"] for row in listed] == [pk]
    assert len(api.member.get(f"runs?backfill={pk}").json()["results"]) == 5
    assert api.member.post(f"backfills/{pk}/pause", {"reason": "later"}).json()["state"] == "paused"
    assert api.member.post(f"backfills/{pk}/resume").json()["state"] == "running"
    assert api.member.post(f"backfills/{pk}/cancel").json()["counts"] == {"cancelled": 5}
    refused = api.member.post(f"backfills/{pk}/cancel")
    assert (refused.status_code, refused.json()["code"]) == (409, "already_ended")
    again = api.member.post(f"backfills/{pk}/rerun", {"newest": True}).json()
    assert (again["state"], again["counts"]) == ("running", {"queued": 5})
    repeated = api.member.post("backfills", body)
    assert (repeated.status_code, repeated.json()["code"]) == (409, "nothing_to_run")


def test_without_a_schedule_a_backfill_is_refused(api: Any, world: World) -> None:
    plain = commands.push(actor=SYSTEM, tenant=world.vision, definition=definition(bash("a"), name="plain")).workflow
    answer = api.member.post("backfills", {"workflow": plain.pk, **JANUARY})
    assert (answer.status_code, answer.json()["code"]) == (422, "no_schedule")
