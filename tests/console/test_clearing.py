"""The dialogs of a run and the pages of backfills."""

from datetime import UTC, datetime

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from apps.core.actors import SYSTEM
from apps.workflows import commands
from apps.workflows.models import Backfill, Run
from tests.apps.workflows.driver import bash, definition, finish, start, states
from tests.personas import World

from .conftest import People

pytestmark = pytest.mark.django_db


@pytest.fixture
def run(world: World) -> Run:
    found = start(world.vision, bash("a"), bash("b", "a"), schedule="@daily")
    finish(found, lambda task: ("failed" if task.name == "a" else "succeeded", None))
    return found


def test_the_dialog_previews_what_its_boxes_say(people: People, run: Run) -> None:
    path = reverse("console:run-clear", args=[run.pk])
    whole = people.member.get(path).content.decode()
    assert "<form" in whole and 'name="downstream" value="1" checked' in whole
    alone = people.member.get(path, {"shown": "1", "tasks": "a"}).content.decode()
    assert "<form" not in alone
    assert "</span>a</span>" in alone and "</span>b</span>" not in alone
    behind = people.member.get(path, {"shown": "1", "tasks": "a", "downstream": "1"}).content.decode()
    assert "</span>b</span>" in behind
    refused = people.member.get(path, {"shown": "1", "tasks": "nope"}).content.decode()
    assert "there is no task nope" in refused
    assert states(run) == {"a": "failed", "b": "upstream_failed"}


def test_clear_note_and_mark_from_the_page(people: People, run: Run) -> None:
    page = people.member.get(reverse("console:run", args=[run.pk])).content.decode()
    assert 'data-testid="clear-open"' in page
    people.member.post(reverse("console:run-clear", args=[run.pk]), {"shown": "1", "tasks": "a", "downstream": "1"})
    assert states(run) == {"a": "waiting", "b": "waiting"}
    people.member.post(reverse("console:run-note", args=[run.pk]), {"note": "source was late"})
    people.member.post(reverse("console:run-mark", args=[run.pk]), {"tasks": "a", "state": "succeeded"})
    assert states(run)["a"] == "succeeded"
    head = people.member.get(reverse("console:run", args=[run.pk])).content.decode()
    assert "source was late" in head
    panel = people.member.get(reverse("console:run-task", args=[run.pk, "a"])).content.decode()
    assert 'data-testid="tries"' in panel and "by user:max" in panel
    assert 'data-testid="mark-failed"' not in panel


def test_the_newest_version_is_offered_when_there_is_one(people: People, world: World, run: Run) -> None:
    path = reverse("console:run-clear", args=[run.pk])
    assert 'name="newest"' not in people.member.get(path).content.decode()
    spec = definition(bash("a"), bash("c", "a"), schedule="@daily")
    commands.push(actor=SYSTEM, tenant=world.vision, definition=spec)
    assert 'name="newest"' in people.member.get(path).content.decode()
    told = people.member.get(path, {"shown": "1", "newest": "1"}).content.decode()
    assert "New in that version, will run:</strong> c" in told
    assert "leaves the run:</strong> b" in told


def test_the_form_previews_makes_and_refuses(people: People, run: Run) -> None:
    path = reverse("console:backfill-new", args=[run.workflow_id])
    days = {"first": "2026-01-01", "last": "2026-01-03"}
    answer = people.member.get(path, days, headers={"HX-Request": "true", "HX-Target": "backfill-preview"})
    assert 'data-testid="preview-count">3<' in answer.content.decode()
    wrong = people.member.post(path, {**days, "last": "2025-01-01", "max_active_runs": "2"})
    assert wrong.status_code == 422 and "is before first" in wrong.content.decode()
    assert people.member.post(path, {"max_active_runs": "many"}).status_code == 422
    assert not Backfill.objects.exists()
    more = {"max_active_runs": "2", "order": "backward", "note": "again", "no_cache": "1"}
    made = people.member.post(path, {**days, **more})
    found = Backfill.objects.get()
    assert made["Location"] == reverse("console:backfill", args=[found.pk])
    assert (found.total, found.order, found.max_active_runs, found.note) == (3, "backward", 2, "again")
    assert found.no_cache and "Without the cache" in people.member.get(made["Location"]).content.decode()
    assert found.first == datetime(2026, 1, 1, tzinfo=UTC)


def test_a_backfill_is_controlled_from_its_page(people: People, run: Run) -> None:
    first, last = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 3, tzinfo=UTC)
    found = commands.create_backfill(actor=SYSTEM, workflow_id=run.workflow_id, first=first, last=last).backfill
    path = reverse("console:backfill", args=[found.pk])
    assert "0</strong> of 3 logical times" in people.member.get(path).content.decode()
    for action, state in (("pause", "paused"), ("resume", "running"), ("cancel", "cancelled"), ("rerun", "running")):
        page = people.member.get(path).content.decode()
        assert f'data-testid="{action}"' in page, action
        people.member.post(reverse("console:backfill-action", args=[found.pk, action]))
        found.refresh_from_db()
        assert found.state == state
    listed = people.member.get(reverse("console:backfills")).content.decode()
    assert f'href="{path}"' in listed
    assert 'data-testid="pause"' not in people.auditor.get(path).content.decode()


def test_pages_cost_the_same_however_many_there_are(people: People, run: Run) -> None:
    def cost(path: str) -> int:
        people.member.get(path)
        with CaptureQueriesContext(connection) as caught:
            people.member.get(path)
        return len(caught)

    first = datetime(2026, 1, 1, tzinfo=UTC)
    made = commands.create_backfill(actor=SYSTEM, workflow_id=run.workflow_id, first=first, last=first).backfill
    paths = [reverse("console:backfills"), reverse("console:backfill", args=[made.pk])]
    before = [cost(path) for path in paths]
    for day in range(2, 8):
        moment = first.replace(day=day)
        more = commands.create_backfill(actor=SYSTEM, workflow_id=run.workflow_id, first=moment, last=moment).backfill
        Run.objects.filter(backfill=more).update(backfill=made)
    assert [cost(path) for path in paths] == before
