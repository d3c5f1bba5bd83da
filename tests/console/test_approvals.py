"""The page of a question: who sees the form, what a wrong answer says, what stands there afterwards."""

from typing import Any

import pytest

from apps.workflows.models import Approval
from tests.apps.workflows.driver import bash, look, start, states
from tests.personas import World

from .conftest import People

pytestmark = pytest.mark.django_db

FORM = {"properties": {"share": {"type": "integer", "minimum": 1, "title": "Share"}}, "required": ["share"]}


def asking(world: World, **approval: Any) -> Any:
    ask = {"id": "ask", "kind": "approval", "approval": {"subject": "Publish it?", "form": FORM, **approval}}
    return start(world.vision, ask, bash("after", "ask"))


def test_a_question_is_answered_on_its_page(world: World, people: People) -> None:
    run = asking(world)
    found = Approval.objects.get()
    member = people.as_("member")
    assert "Publish it?" in member.get("/approvals/").content.decode()
    assert "Publish it?" not in people.as_("operator").get("/approvals/").content.decode()
    assert "Publish it?" in people.as_("operator").get("/approvals/?state=open").content.decode()
    path = f"/approvals/{found.pk}/"
    assert 'data-testid="answer-form"' in member.get(path).content.decode()
    wrong = member.post(path, {"option": "approve", "share": "0", "comment": "so be it"})
    said = wrong.content.decode()
    assert wrong.status_code == 422 and "minimum is 1, not 0." in said and "so be it" in said
    assert member.post(path, {"option": "approve", "share": "7"}).status_code == 302
    look()
    assert states(run) == {"ask": "succeeded", "after": "queued"}
    said = member.get(path).content.decode()
    assert "answer-form" not in said and "max" in said
    assert "Publish it?" in member.get(f"/runs/{run.pk}/tasks/ask/").content.decode()


@pytest.mark.parametrize("persona", ["operator", "auditor", "stranger", "nobody"])
def test_who_is_not_asked_cannot_answer(world: World, people: People, persona: str) -> None:
    asking(world)
    path = f"/approvals/{Approval.objects.get().pk}/"
    other = people.as_(persona)
    assert "answer-form" not in other.get(path).content.decode()
    other.post(path, {"option": "approve", "share": "7"})
    assert Approval.objects.get().state == "open"
