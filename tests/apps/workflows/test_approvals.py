"""Questions to people: who is asked, who may answer, forms, defaults and time-outs, and what is left to read."""

from typing import Any

import pytest

from apps.core.errors import Conflict, DomainError, Forbidden, Invalid, NotFound
from apps.events.models import Event
from apps.jobs.models import Job
from apps.workflows import commands
from apps.workflows.approvals import asked, list_approvals
from apps.workflows.models import Approval, Run, Task, Wait
from tests.apps.workflows.driver import bash, end, finish, look, start, states
from tests.apps.workflows.test_waits import later
from tests.personas import World

pytestmark = pytest.mark.django_db

FORM = {"properties": {"why": {"type": "string"}, "n": {"type": "integer", "default": 1}}, "required": ["why"]}


def ask(*upstream: str, arguments: Any = None, **approval: Any) -> dict[str, Any]:
    task = {"id": "ask", "kind": "approval", "upstream": list(upstream), "approval": {"subject": "Go on?", **approval}}
    return task | ({"arguments": arguments} if arguments else {})


def answer(world: World, run: Run, option: str = "approve", persona: str = "member", **more: Any) -> Approval:
    approval = Approval.objects.filter(task__run=run).latest("pk")
    return commands.answer_approval(actor=world.actor(persona), approval_id=approval.pk, option=option, **more)


def test_an_answer_goes_to_the_tasks_behind(world: World) -> None:
    tasks = [
        bash("a"),
        ask(arguments={"rows": {"result": "a"}}, form=FORM, text="Look at the rows."),
        bash("b", arguments={"said": {"result": "ask"}}),
    ]
    run = start(world.vision, *tasks)
    end(run, "a", result=[1, 2])
    look()
    task = Task.objects.get(run=run, name="ask")
    assert (task.state, task.job) == ("deferred", None)
    assert "every member of the tenant" in task.detail and "Go on?" in task.detail
    approval = Approval.objects.get()
    assert (approval.shown, approval.text) == ({"rows": [1, 2]}, "Look at the rows.")
    answer(world, run, values={"why": "fine"}, comment="looks good")
    look()
    said = {"option": "approve", "values": {"why": "fine", "n": 1}, "by": "max"}
    assert Job.objects.get(task__run=run, task__name="b").spec["inputs"] == {"said": said}
    approval.refresh_from_db()
    assert approval.answered_by == world.users["member"] and approval.answered_at
    event = Event.objects.get(verb="approval.answered")
    assert event.actor == "user:max" and event.facts["comment"] == "looks good"
    assert finish(run) == "succeeded" and not Wait.objects.exists()


def test_a_rejection_skips_what_is_behind(world: World) -> None:
    run = start(world.vision, ask(), bash("b", "ask"), bash("c", "b", trigger_rule="all_done"))
    answer(world, run, "reject")
    look()
    assert states(run) == {"ask": "succeeded", "b": "skipped", "c": "skipped"}
    run.refresh_from_db()
    assert run.state == "succeeded"


@pytest.mark.parametrize(
    ("fields", "state", "behind", "said"),
    [
        ({}, "failed", "upstream_failed", "nobody has answered"),
        ({"soft_fail": True}, "skipped", "skipped", "nobody has answered"),
        ({"default": "approve"}, "succeeded", "queued", "approve, its default"),
        ({"default": "reject"}, "succeeded", "skipped", "reject, its default"),
    ],
)
def test_without_an_answer(world: World, fields: dict[str, Any], state: str, behind: str, said: str) -> None:
    run = start(world.vision, ask(timeout="1h", **fields), bash("b", "ask"))
    later(3600)
    look()
    assert states(run) == {"ask": state, "b": behind}
    assert said in Task.objects.get(run=run, name="ask").detail
    approval = Approval.objects.get()
    assert (approval.state, approval.option) == ("expired", fields.get("default", ""))
    assert Event.objects.filter(verb="approval.expired", actor="system").count() == 1
    with pytest.raises(Conflict):
        answer(world, run)


@pytest.mark.parametrize(
    ("fields", "may"),
    [
        ({}, {"member", "admin"}),
        ({"roles": ["admin"]}, {"admin"}),
        ({"users": ["max"]}, {"member"}),
        ({"users": ["max"], "roles": ["admin"]}, {"member", "admin"}),
    ],
)
def test_only_who_is_asked_may_answer(world: World, fields: dict[str, Any], may: set[str]) -> None:
    run = start(world.vision, ask(**fields))
    for persona in ("member", "admin", "operator", "auditor", "stranger"):
        if persona not in world.users:
            continue
        actor = world.actor(persona)
        mine = set(asked(actor, list_approvals(actor)))
        assert bool(mine) == (persona in may), persona
        if persona not in may:
            with pytest.raises((Forbidden, NotFound)):
                answer(world, run, persona=persona)
    answer(world, run, persona=sorted(may)[0])
    with pytest.raises(Conflict):
        answer(world, run, persona=sorted(may)[0])


@pytest.mark.parametrize(
    ("option", "values", "field"),
    [("maybe", {"why": "x"}, "option"), ("approve", {}, "values.why"), ("approve", {"why": "x", "n": "y"}, "values.n")],
)
def test_wrong_answers_name_their_field(world: World, option: str, values: dict[str, Any], field: str) -> None:
    run = start(world.vision, ask(form=FORM))
    with pytest.raises(Invalid) as refused:
        answer(world, run, option, values=values)
    assert refused.value.errors[0]["field"] == field
    assert Approval.objects.get().state == "open"


def test_a_cancelled_run_closes_its_questions(world: World) -> None:
    run = start(world.vision, ask())
    commands.cancel_run(actor=world.actor("member"), run_id=run.pk)
    assert Approval.objects.get().state == "closed"
    with pytest.raises(DomainError):
        answer(world, run)


def test_the_api(api: Any, world: World) -> None:
    run = start(world.vision, ask(form=FORM))
    member = api.as_("member")
    [row] = member.get("approvals?mine=true").json()["results"]
    assert (row["workflow"], row["task"], row["state"], row["options"]) == ("etl", "ask", "open", ["approve", "reject"])
    assert api.as_("stranger").get(f"approvals/{row['id']}").status_code == 404
    assert api.as_("operator").get("approvals?mine=true").json()["results"] == []
    path = f"approvals/{row['id']}/answer"
    assert member.post(path, {"option": "approve"}).json()["errors"][0]["field"] == "values.why"
    done = member.post(path, {"option": "approve", "values": {"why": "x"}}).json()
    assert (done["state"], done["option"], done["answered_by"]) == ("answered", "approve", "max")
    assert member.post(path, {"option": "approve", "values": {"why": "x"}}).status_code == 409
    look()
    run.refresh_from_db()
    assert run.state == "succeeded"
    tasks = member.get(f"runs/{run.pk}/tasks").json()["results"]
    assert tasks[0]["due_at"] is None
