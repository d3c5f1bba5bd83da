"""Who hears of what, and what it says."""

import json
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from apps.core.actors import SYSTEM
from apps.core.errors import Invalid
from apps.events.models import Event
from apps.events.record import Fact, record
from apps.notifications import commands, formats
from apps.notifications.messages import payload_of
from apps.notifications.models import Delivery, Destination, Kind
from apps.notifications.reading import VERBS, tell
from apps.workflows.commands import push
from tests.apps.workflows.driver import bash, begin, definition, end, finish, look, start, step
from tests.personas import World


def make(world: World, name: str = "oncall", **fields: Any) -> Destination:
    given = {"channel": "webhook", "url": "https://example.org/hook/token-123", **fields}
    return commands.create_destination(actor=SYSTEM, tenant=world.vision, name=name, **given)[0]


def told(*kinds: str) -> list[tuple[str, str]]:
    """Let everything that was recorded be told; (destination, kind) of what came of it."""
    tell(list(Event.objects.filter(verb__in=VERBS).order_by("id")))
    rows = Delivery.objects.order_by("pk").values_list("destination__name", "kind")
    return [(name, kind) for name, kind in rows if not kinds or kind in kinds]


def subscribe(destination: Destination, *kinds: str, workflow: str | None = None) -> None:
    commands.subscribe(actor=SYSTEM, destination_id=destination.pk, kinds=kinds, workflow=workflow)


@pytest.mark.usefixtures("redis_empty")
class TestWhoHears:
    def test_a_subscription_of_the_tenant_hears_of_every_workflow(self, world: World) -> None:
        subscribe(make(world), "run.failed")
        for name in ("etl", "train"):
            finish(start(world.vision, bash("a"), name=name), lambda task: ("failed", None))
        finish(start(world.vision, bash("a"), name="good"))
        assert told() == [("oncall", "run.failed")] * 2

    def test_a_subscription_of_a_workflow_hears_of_that_one(self, world: World) -> None:
        push(actor=SYSTEM, tenant=world.vision, definition=definition(bash("a"), name="etl"))
        subscribe(make(world), "run.failed", "run.succeeded", workflow="etl")
        finish(start(world.vision, bash("a"), name="etl"))
        finish(start(world.vision, bash("a"), name="other"))
        assert told() == [("oncall", "run.succeeded")]

    def test_the_rules_of_a_definition(self, world: World) -> None:
        make(world)
        make(world, "team")
        rules = [{"on": ["failure", "retry"], "to": ["oncall"]}]
        task = bash("a", notify=[{"on": ["failure"], "to": ["team"]}])
        finish(start(world.vision, task, bash("b"), notify=rules), lambda task: ("failed", None))
        # The task's own rule is about the task, the workflow's about the run.
        assert told() == [("team", "task.failed"), ("oncall", "run.failed")]

    def test_telling_twice_makes_no_second_message(self, world: World) -> None:
        subscribe(make(world), "run.failed", "task.failed")
        finish(start(world.vision, bash("a")), lambda task: ("failed", None))
        assert told() == told() == [("oncall", "task.failed"), ("oncall", "run.failed")]

    def test_what_happened_before_is_not_told(self, world: World) -> None:
        destination = make(world)
        finish(start(world.vision, bash("a"), name="old"), lambda task: ("failed", None))
        subscribe(destination, "run.failed")
        assert told() == []
        commands.change_destination(actor=SYSTEM, destination_id=destination.pk, enabled=False)
        finish(start(world.vision, bash("a"), name="off"), lambda task: ("failed", None))
        assert told() == []
        commands.change_destination(actor=SYSTEM, destination_id=destination.pk, enabled=True)
        assert told() == []

    def test_another_tenants_destination_hears_nothing(self, world: World) -> None:
        given = {"channel": "webhook", "url": "https://example.org/"}
        other, _ = commands.create_destination(actor=SYSTEM, tenant=world.speech, name="oncall", **given)
        subscribe(other, *VERBS.values())
        finish(start(world.vision, bash("a")), lambda task: ("failed", None))
        assert told() == []

    def test_a_mapped_task_is_told_once(self, world: World) -> None:
        subscribe(make(world), "task.failed")
        mapped = bash("a", map={"over": {"x": {"value": [1, 2, 3]}}})
        run = start(world.vision, mapped)
        finish(run, lambda task: ("failed", None))
        assert told() == [("oncall", "task.failed")]
        assert Delivery.objects.get().facts["task"] == "a"

    def test_a_retry_and_not_a_loss(self, world: World) -> None:
        make(world)
        run = start(world.vision, bash("a", notify=[{"on": "retry", "to": "oncall"}]))
        job = run.tasks.get().job_id
        lost = Fact("job.requeued", "job", job, tenant_id=world.vision.pk, facts={"end_reason": "lost"})
        tried = Fact("job.requeued", "job", job, tenant_id=world.vision.pk, facts={"retry": 1}, reason="Retry 1 of 2.")
        record(SYSTEM, lost, tried)
        assert told() == [("oncall", "task.retried")]
        payload = payload_of(Delivery.objects.select_related("tenant").get())
        assert payload["task"] == {"name": "a", "job": job, "retry": 1} and "Retry 1 of 2." in payload["text"]

    def test_a_question_to_people(self, world: World) -> None:
        subscribe(make(world), "approval.opened")
        question = {"id": "ask", "kind": "approval", "approval": {"subject": "Go live?"}}
        run = start(world.vision, question)
        assert told() == [("oncall", "approval.opened")]
        payload = payload_of(Delivery.objects.select_related("tenant").get())
        assert payload["subject"] == "etl: Go live?"
        assert payload["approval"]["options"] == ["approve", "reject"]
        assert f"/approvals/{payload['approval']['id']}/" in payload["url"]
        assert payload["run"]["id"] == run.pk


@pytest.mark.usefixtures("redis_empty")
class TestWhatItSays:
    def failed(self, world: World, **fields: Any) -> dict[str, Any]:
        subscribe(make(world), "run.failed")
        run = start(world.vision, bash("check"), bash("load", "check"), **fields)
        begin(run, "check")
        step()
        end(run, "check", "failed")
        step()
        told()
        return payload_of(Delivery.objects.select_related("tenant").get())

    def test_a_run_that_failed(self, world: World, settings: Any) -> None:
        settings.PORTAL_URL = "https://portal.example.org"
        payload = self.failed(world)
        run = payload["run"]["id"]
        assert payload["schema"] == 1 and payload["kind"] == "run.failed" and payload["tenant"] == "vision"
        assert payload["subject"] == f"etl: run {run} failed"
        assert payload["url"] == f"https://portal.example.org/runs/{run}/"
        assert payload["failed_tasks"] == [{"name": "check", "detail": "Its job exited with status 1."}]
        assert "Failed: check. Its job exited with status 1." in payload["text"]
        assert payload["workflow"]["name"] == "etl" and payload["run"]["state"] == "failed"

    def test_the_end_of_the_log_from_the_error_on(self, world: World) -> None:
        from apps.notifications.messages import log_of
        from tests.api.objects import make_job, run_job

        job = make_job(world)
        run_job(world, job, world.node())
        assert log_of(job.pk) == "hello"

    @pytest.mark.parametrize(
        ("log", "said"),
        [
            (b"a\n" * 50, ["a"] * 10),
            (b"ok\n\x1b[31mTraceback (most recent call last)\x1b[0m\n  x\nValueError: no\n", 4),
            (b"start\n" + b"Error: first\n" + b"x\n" * 50 + b"last\n", "Error: first"),
        ],
    )
    def test_what_of_a_log_is_told(self, monkeypatch: Any, world: World, log: bytes, said: Any) -> None:
        from types import SimpleNamespace

        from apps.notifications import messages
        from tests.api.objects import make_job, run_job

        job = make_job(world)
        run_job(world, job, world.node())
        monkeypatch.setattr(messages, "read_log", lambda *_: SimpleNamespace(data=log))
        lines = messages.log_of(job.pk).splitlines()
        if isinstance(said, list):
            assert lines == said
        elif isinstance(said, int):
            assert len(lines) == said and "\x1b" not in "".join(lines)
        else:
            assert lines[0] == said and lines[-1] == "last" and len(lines) == 11

    def test_each_kind_can_be_said_of_what_is_gone(self, world: World) -> None:
        destination = make(world)
        for kind in Kind:
            delivery = Delivery(
                tenant=world.vision, destination=destination, kind=kind, facts={"run": 2**40}, at=timezone.now()
            )
            payload = payload_of(delivery)
            assert payload["subject"] and payload["text"] and payload["url"], kind
            for form in formats.FORMATS.values():
                assert json.loads(form(payload))

    def test_chat_messages_cannot_be_forged_by_names(self) -> None:
        payload = {"subject": "<!channel> *a*", "text": "x & <http://a|b> @all `y`", "url": "https://p/"}
        payload["log"] = "```\n<x>"
        slack = json.loads(formats.slack(payload))["text"]
        assert "<!channel>" not in slack and "&lt;!channel&gt;" in slack and "<https://p/|Open in RMPortal>" in slack
        mattermost = json.loads(formats.mattermost(payload))["text"]
        assert "@all" not in mattermost and r"\*a\*" in mattermost and mattermost.count("```") == 2
        card = json.loads(formats.teams(payload))["attachments"][0]
        assert card["contentType"] == "application/vnd.microsoft.card.adaptive"
        assert card["content"]["actions"][0]["url"] == "https://p/"


def test_a_push_names_destinations_that_are_not_there(world: World, redis_empty: None) -> None:
    make(world)
    rules = [{"on": ["failure"], "to": ["oncall", "nobody"]}]
    with pytest.raises(Invalid) as refused:
        push(actor=SYSTEM, tenant=world.vision, definition=definition(bash("a", notify=rules), notify=rules))
    assert [error["field"] for error in refused.value.errors] == ["notify[0].to", "tasks[0].notify[0].to"]
    assert "Tenant vision has no destination nobody." in refused.value.errors[0]["message"]


def test_a_deadline_that_is_missed_is_told_and_the_run_goes_on(world: World, redis_empty: None) -> None:
    from apps.workflows.commands import pass_due
    from apps.workflows.models import Deadline

    make(world)
    run = start(world.vision, bash("a"), deadline="2h", notify=[{"on": "deadline", "to": "oncall"}])
    due = Deadline.objects.get()
    assert due.due_at is not None and due.due_at - due.since == timedelta(hours=2)
    pass_due(timezone.now() + timedelta(hours=1))
    assert told() == []
    pass_due(timezone.now() + timedelta(hours=3))
    assert told() == [("oncall", "run.deadline")]
    payload = payload_of(Delivery.objects.select_related("tenant").get())
    assert payload["deadline"]["after"] == "2h" and "has missed its deadline" in payload["subject"]
    assert finish(run) == "succeeded"
    look()
