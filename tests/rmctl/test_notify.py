"""`rmctl notify`."""

from typing import Any

from .portal import FakePortal

ROW = {"id": 3, "name": "oncall", "channel": "webhook", "host": "https://h", "to": [], "enabled": True, "waiting": 0,
       "dead": 0, "last_error": ""}  # fmt: skip


def page(*rows: dict[str, Any]) -> tuple[int, Any]:
    return 200, {"next": None, "previous": None, "results": list(rows)}


def test_a_destination_is_made_and_its_secret_shown(portal: FakePortal, rm: Any) -> None:
    portal.on("POST destinations", (201, {**ROW, "secret": "rmnotify_x"}))
    done = rm("notify", "create", "oncall", "--url", "https://h/x", "-t", "vision")
    assert done.out == "destination 3: oncall\nsecret (shown once): rmnotify_x\n"
    sent = {"name": "oncall", "channel": "webhook", "url": "https://h/x", "tenant": "vision"}
    assert portal.asked[-1].body == sent
    portal.on("POST destinations", (201, {**ROW, "secret": ""}))
    done = rm("notify", "create", "mail", "--kind", "email", "--to", "a@x.org", "--to", "b@x.org", "-t", "vision")
    assert "secret" not in done.out and portal.asked[-1].body["to"] == ["a@x.org", "b@x.org"]


def test_it_is_found_by_name(portal: FakePortal, rm: Any) -> None:
    portal.on("GET destinations", page(ROW))
    portal.on("POST destinations/3/test", (201, {"id": 9, "destination_name": "oncall"}))
    assert rm("notify", "test", "oncall").out.startswith("delivery 9 goes to oncall")
    portal.on("POST destinations/3/subscriptions", (201, {"id": 5, "destination_name": "oncall"}))
    done = rm("notify", "subscribe", "3", "--on", "run.failed", "--on", "run.deadline", "--workflow", "etl")
    assert done.out == "subscription 5 of oncall\n"
    assert portal.asked[-1].body == {"kinds": ["run.failed", "run.deadline"], "workflow": "etl"}
    refused = rm("notify", "test", "nobody")
    assert refused.status == 2 and "there are: oncall" in refused.err


def test_it_is_changed(portal: FakePortal, rm: Any) -> None:
    portal.on("PATCH destinations/3", (200, ROW))
    assert rm("notify", "change", "3", "--off", "--per-minute", "5").out == "destination 3: oncall is changed\n"
    assert portal.asked[-1].body == {"per_minute": 5, "enabled": False}
    assert rm("notify", "change", "3").status == 2


def test_messages_are_listed_and_sent_again(portal: FakePortal, rm: Any) -> None:
    row = {"id": 9, "at": "2026-01-01T00:00:00Z", "destination_name": "oncall", "kind": "run.failed", "attempts": 10,
           "subject": "etl: run 1 failed", "state": "dead", "last_error": "It answers 500."}  # fmt: skip
    portal.on("GET deliveries", page(row))
    assert "It answers 500." in rm("notify", "deliveries", "--state", "dead").out
    assert portal.asked[-1].query["state"] == "dead"
    portal.on("POST deliveries/9/send-again", (200, row))
    assert rm("notify", "again", "9").out == "delivery 9 goes to oncall again\n"
