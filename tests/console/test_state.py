"""The tab with what a workflow keeps, and what the panel of a task says of its cache."""

from typing import Any

import pytest

from apps.core.actors import SYSTEM
from apps.events.models import Event
from apps.workflows import commands
from apps.workflows.models import StateValue
from tests.apps.workflows.driver import bash, finish, start, step
from tests.personas import World

from .conftest import People

pytestmark = pytest.mark.django_db


def text(answer: Any) -> str:
    assert answer.status_code == 200
    return str(answer.content.decode())


def test_the_state_of_a_workflow_is_shown_set_and_deleted(world: World, people: People) -> None:
    run = start(world.vision, bash("a"))
    path = f"/workflows/{run.workflow_id}/state/"
    assert "Nothing yet" in text(people.member.get(path))
    people.member.post(f"{path}set", {"key": "cursor", "value": '{"day": "<b>"}'})
    kept = StateValue.objects.get()
    assert kept.value == {"day": "<b>"}
    page = text(people.member.get(path))
    assert "&lt;b&gt;" in page and "<b>" not in page and kept.updated_by in page
    said = text(people.member.post(f"{path}set", {"key": "cursor", "value": "not json"}, follow=True))
    assert "is not JSON" in said
    # Somebody has written since the page was drawn: what they wrote stays.
    commands.set_state(actor=SYSTEM, workflow_id=run.workflow_id, key="cursor", value=2)
    said = text(people.member.post(f"{path}delete", {"key": "cursor", "version": kept.version}, follow=True))
    assert "read it again" in said and StateValue.objects.get().value == 2
    people.member.post(f"{path}delete", {"key": "cursor", "version": StateValue.objects.get().version})
    assert not StateValue.objects.exists()
    people.member.post(f"{path}set", {"key": "own", "value": "1", "run": run.pk})
    assert "own" in text(people.member.get(f"/runs/{run.pk}/state/"))
    assert people.member.get(f"/runs/{run.pk + 1}/state/").status_code == 404
    assert "Set a value" not in text(people.auditor.get(path))


def test_who_wrote_leads_to_the_instance_that_did(world: World, people: People) -> None:
    run = start(world.vision, bash("a"))
    commands.set_state(actor=SYSTEM, run_id=run.pk, key="k", value=1)
    Event.objects.filter(verb="state.set").update(facts={"key": "k", "run": run.pk, "task": "a[3]", "version": 1})
    assert f'href="/runs/{run.pk}/?task=a&amp;index=3"' in text(people.member.get(f"/runs/{run.pk}/state/"))


def test_hit_and_miss_are_shown_with_what_changed(world: World, people: People) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer", "default": 1}}}
    task = bash("a", cache="1h", arguments={"n": {"param": "n"}})
    first = start(world.vision, task, params=schema)
    finish(first, lambda task: ("succeeded", {"answer": 42}))
    page = f"/workflows/{first.workflow_id}/"
    assert 'name="no_cache"' in text(people.member.get(page))
    runs = {}
    for name, form in (("hit", {"p.n": "1"}), ("miss", {"p.n": "2"}), ("bypass", {"p.n": "1", "no_cache": "1"})):
        params = {"n": int(form["p.n"])}
        run = commands.trigger(
            actor=SYSTEM, workflow_id=first.workflow_id, params=params, no_cache="no_cache" in form
        )
        step()
        runs[name] = run
    panels = {name: text(people.member.get(f"/runs/{run.pk}/tasks/a/")) for name, run in runs.items()}
    assert "cache hit" in panels["hit"] and "42" in panels["hit"] and f"/runs/{first.pk}/" in panels["hit"]
    assert "cache miss" in panels["miss"] and "argument n" in panels["miss"] and "changed" in panels["miss"]
    assert "cache bypass" in panels["bypass"] and "without the cache" in text(
        people.member.get(f"/runs/{runs['bypass'].pk}/")
    )
    assert "Result cache" in text(people.member.get(page)) and "33 %" in text(people.member.get(page))
    assert 'name="from_cache"' in text(people.member.get(f"/runs/{runs['hit'].pk}/clear"))
