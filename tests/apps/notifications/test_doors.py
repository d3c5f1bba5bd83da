"""Destinations through the REST API and the pages."""

from typing import Any

import pytest

from apps.core.actors import SYSTEM
from apps.notifications import commands
from apps.notifications.models import Delivery, Destination, Subscription
from apps.workflows.commands import pass_due
from tests.apps.workflows.driver import bash, start
from tests.console.conftest import People
from tests.console.conftest import people as people
from tests.console.conftest import plain_static_names as plain_static_names
from tests.personas import World, soon

URL = "https://hooks.example.org/T1/token-123"


def test_a_destination_is_made_changed_and_removed(world: World, api: Any) -> None:
    body = {"name": "oncall", "channel": "webhook", "url": URL}
    assert api.member.post("destinations", body).status_code == 403
    made = api.admin.post("destinations", body).json()
    assert made["secret"].startswith("rmnotify_") and made["host"] == "https://hooks.example.org"
    path = f"destinations/{made['id']}"
    seen = api.member.get(path)
    assert "secret" not in seen.json() and "token-123" not in seen.content.decode()
    changed = api.admin.patch(path, {"per_minute": 3, "enabled": False}).json()
    assert changed["per_minute"] == 3 and not changed["enabled"]
    assert api.admin.patch(path, {"to": ["a@example.org"]}).json()["errors"][0]["field"] == "to"
    assert api.admin.post("destinations", body).json()["errors"][0]["code"] == "taken"
    assert api.admin.delete(path).status_code == 204 and not Destination.objects.exists()


def test_members_subscribe_and_strangers_see_nothing(world: World, api: Any) -> None:
    start(world.vision, bash("a"))
    row, _ = commands.create_destination(
        actor=SYSTEM, tenant=world.vision, name="oncall", channel="slack", url=URL
    )
    path = f"destinations/{row.pk}/subscriptions"
    made = api.member.post(path, {"kinds": ["task.failed", "run.failed"], "workflow": "etl"}).json()
    assert made["workflow_name"] == "etl" and made["kinds"] == ["run.failed", "task.failed"]
    [error] = api.member.post(path, {"kinds": ["run.failed"], "workflow": "nope"}).json()["errors"]
    assert error["field"] == "workflow"
    assert api.member.post(path, {"kinds": ["budget.warned"], "workflow": "etl"}).status_code == 422
    assert api.member.post(path, {"kinds": []}).status_code == 422
    assert api.stranger.get("subscriptions").json()["results"] == []
    assert api.stranger.get("destinations").json()["results"] == []
    assert api.member.delete(f"subscriptions/{made['id']}").status_code == 204
    assert not Subscription.objects.exists()


def test_a_destination_that_a_definition_names_stays(world: World, api: Any) -> None:
    row, _ = commands.create_destination(actor=SYSTEM, tenant=world.vision, name="oncall", channel="slack", url=URL)
    start(world.vision, bash("a", notify=[{"on": "failure", "to": "oncall"}]))
    refused = api.admin.delete(f"destinations/{row.pk}")
    assert refused.status_code == 409 and "Workflow etl" in refused.json()["detail"]
    start(world.vision, bash("a"))
    assert api.admin.delete(f"destinations/{row.pk}").status_code == 204


def test_a_test_is_seen_among_the_deliveries(world: World, api: Any) -> None:
    row, _ = commands.create_destination(actor=SYSTEM, tenant=world.vision, name="oncall", channel="slack", url=URL)
    made = api.member.post(f"destinations/{row.pk}/test").json()
    [seen] = api.member.get("deliveries?state=pending&kind=test").json()["results"]
    assert seen["id"] == made["id"] and seen["destination_name"] == "oncall" and seen["payload"] is None
    assert api.member.post(f"deliveries/{made['id']}/send-again").json()["code"] == "already_pending"
    assert api.stranger.get("deliveries").json()["results"] == []


class TestPages:
    @pytest.fixture
    def row(self, world: World) -> Destination:
        return commands.create_destination(
            actor=SYSTEM, tenant=world.vision, name="oncall", channel="webhook", url=URL, secret="a" * 20
        )[0]

    def test_the_form_shows_the_secret_once(self, world: World, people: People) -> None:
        body = {"tenant": "vision", "name": "oncall", "channel": "webhook", "url": URL, "per_minute": "5"}
        wrong = people.admin.post("/notifications/new/", {**body, "url": "http://10.0.0.1/"})
        assert wrong.status_code == 422 and "private to this network" in wrong.content.decode()
        answer = people.admin.post("/notifications/new/", body)
        assert "rmnotify_" in answer.content.decode() and answer["Cache-Control"] == "no-store"
        found = Destination.objects.get()
        page = people.admin.get(f"/notifications/{found.pk}/").content.decode()
        assert "rmnotify_" not in page and "token-123" not in page and "https://hooks.example.org" in page

    def test_one_is_subscribed_tested_and_switched_off(self, world: World, people: People, row: Destination) -> None:
        path = f"/notifications/{row.pk}/"
        people.member.post(f"{path}subscribe", {"kinds": ["run.failed", "run.deadline"], "workflow": ""})
        assert Subscription.objects.get().kinds == ["run.failed", "run.deadline"]
        people.member.post(f"{path}test")
        page = people.member.get(path).content.decode()
        assert "run.deadline" in page and 'data-testid="delivery-table"' in page and "Waits" in page
        people.member.post(f"{path}disable")
        row.refresh_from_db()
        assert row.enabled
        people.admin.post(f"{path}disable")
        row.refresh_from_db()
        assert not row.enabled
        people.admin.post(f"{path}change", {"per_minute": "7", "url": "", "secret": ""})
        row.refresh_from_db()
        assert row.per_minute == 7 and row.shown == {"host": "https://hooks.example.org"}
        refused = people.admin.post(f"{path}change", {"per_minute": "7", "secret": "short"})
        assert refused.status_code == 422 and "from 16 to 200 bytes" in refused.content.decode()

    def test_a_dead_one_is_sent_again(self, world: World, people: People, row: Destination) -> None:
        made = commands.send_test(actor=SYSTEM, destination_id=row.pk)
        Delivery.objects.filter(pk=made.pk).update(**{"state": "dead", "last_error": "It answers 410 Gone."})
        page = people.member.get("/notifications/?state=dead").content.decode()
        assert "It answers 410 Gone." in page and 'data-testid="again"' in page
        assert people.member.post(f"/notifications/deliveries/{made.pk}/again").status_code == 302
        made.refresh_from_db()
        assert made.state == "pending"

    def test_the_cards_of_a_workflow_and_a_tenant(self, world: World, people: People, row: Destination) -> None:
        run = start(world.vision, bash("a", notify=[{"on": "failure", "to": "oncall"}]))
        path = f"/workflows/{run.workflow_id}/notifications/"
        card = people.member.get(path).content.decode()
        assert '<span class="tag">Failure</span>' in card and "of a<" in card and "in its definition" in card
        people.member.post(path, {"destination": row.pk, "kinds": ["run.succeeded"]})
        assert Subscription.objects.get().workflow_id == run.workflow_id
        assert "subscribed" in people.member.get(path).content.decode()
        assert path in people.member.get(f"/workflows/{run.workflow_id}/").content.decode()
        assert "oncall" in people.member.get("/tenants/vision/notifications/").content.decode()

    def test_a_run_shows_what_it_missed(self, world: World, people: People) -> None:
        run = start(world.vision, bash("a"), deadline="2h")
        page = f"/runs/{run.pk}/"
        assert 'data-testid="missed"' not in people.member.get(page).content.decode()
        pass_due(soon(3 * 3600))
        said = people.member.get(page).content.decode()
        assert 'data-testid="missed"' in said and "deadline, 2h after" in said

    def test_a_run_counts_what_many_of_its_tasks_missed(self, world: World, people: People) -> None:
        run = start(world.vision, *(bash(f"t{number}", deadline="1h") for number in range(8)))
        pass_due(soon(2 * 3600))
        said = people.member.get(f"/runs/{run.pk}/").content.decode()
        assert said.count("its deadline, 1h after") == 5 and "3 more missed theirs." in said

    def test_a_message_that_waits_names_its_workflow(self, world: World, people: People, row: Destination) -> None:
        run = start(world.vision, bash("a"))
        made = commands.send_test(actor=SYSTEM, destination_id=row.pk)
        Delivery.objects.filter(pk=made.pk).update(kind="task.failed", facts={"run": run.pk, "task": "a"}, payload=None)
        said = people.member.get("/notifications/").content.decode()
        assert f"{run.workflow.name}: task a of run {run.pk} failed" in said and "Task failed" in said


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("smtp://u:p%40x@mail.example.org", ("mail.example.org", 587, "p@x", False, True)),
        ("smtp://mail:25?starttls=0", ("mail", 25, "", False, False)),
        ("smtps://mail", ("mail", 465, "", True, False)),
    ],
)
def test_the_mail_server_of_the_environment(url: str, expected: tuple[Any, ...]) -> None:
    from rmportal.environment import mail

    keys = ("EMAIL_HOST", "EMAIL_PORT", "EMAIL_HOST_PASSWORD", "EMAIL_USE_SSL", "EMAIL_USE_TLS")
    assert tuple(mail(url)[key] for key in keys) == expected


def test_wrong_settings_stop_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    from django.core.exceptions import ImproperlyConfigured

    from rmportal.environment import mail, networks

    for url in ("http://mail", "smtp://", "smtp://mail?tls=1"):
        with pytest.raises(ImproperlyConfigured, match="RMPORTAL_SMTP_URL"):
            mail(url)
    monkeypatch.setenv("RMPORTAL_NOTIFY_NETWORKS", "10.0.0.0/8, 192.168.0.0/16")
    assert [str(network) for network in networks("RMPORTAL_NOTIFY_NETWORKS")] == ["10.0.0.0/8", "192.168.0.0/16"]
    monkeypatch.setenv("RMPORTAL_NOTIFY_NETWORKS", "10.0.0.1/8")
    with pytest.raises(ImproperlyConfigured, match="RMPORTAL_NOTIFY_NETWORKS"):
        networks("RMPORTAL_NOTIFY_NETWORKS")


