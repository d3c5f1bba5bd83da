"""Sending: to a real server, with kills between the steps, a rate, and receivers that are down."""

import hashlib
import hmac
import ipaddress
import json
import smtplib
import socketserver
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from apps.core.actors import SYSTEM
from apps.core.errors import Conflict, Invalid
from apps.events.models import Event
from apps.notifications import commands, sending
from apps.notifications.destinations import credentials_of
from apps.notifications.models import Delivery, Destination, Kind
from apps.notifications.outgoing import TOTAL_SECONDS, Outcome, allowed, post
from apps.notifications.sending import ATTEMPTS_MAX, LEASE, claim, due_destinations, send, settle, work
from tests.personas import World

from .conftest import Receiver

SECRET = "a secret of the receiver"
pytestmark = pytest.mark.usefixtures("redis_empty")


def make(world: World, url: str, channel: str = "webhook", **fields: Any) -> Destination:
    if channel == "webhook":
        fields.setdefault("secret", SECRET)
    given = {"name": "oncall", "channel": channel, "url": url, **fields}
    return commands.create_destination(actor=SYSTEM, tenant=world.vision, **given)[0]


def message(destination: Destination, at: datetime | None = None, number: int | None = None) -> Delivery:
    at = at or timezone.now()
    return Delivery.objects.create(
        tenant_id=destination.tenant_id, destination=destination, kind=Kind.BUDGET_WARNED, event_id=number,
        facts={"of": "vision", "percent": 80, "used": 8, "amount": 10, "measure": "running"}, at=at, due_at=at,
    )  # fmt: skip


def states() -> list[str]:
    return list(Delivery.objects.order_by("pk").values_list("state", flat=True))


def test_a_webhook_is_signed_and_sent_once(world: World, receiver: Receiver) -> None:
    destination = make(world, receiver.url)
    delivery = message(destination)
    assert due_destinations(timezone.now()) == [destination.pk]
    assert work(destination.pk) == 1
    [(path, headers, body)] = receiver.requests
    assert path == "/hook/token-123"
    signed = hmac.new(SECRET.encode(), headers["X-Timestamp"].encode() + b"." + body, hashlib.sha256).hexdigest()
    assert headers["X-Signature"] == f"sha256={signed}"
    assert abs(int(headers["X-Timestamp"]) - time.time()) < 60
    assert headers["X-Delivery"] == str(delivery.key) == json.loads(body)["id"]
    assert headers["X-Event"] == "budget.warned" and headers["Host"] == f"127.0.0.1:{receiver.port}"
    assert states() == ["sent"] and due_destinations(timezone.now()) == []


def test_nothing_secret_is_shown_or_recorded(world: World, receiver: Receiver) -> None:
    destination = make(world, receiver.url)
    receiver.answers = [(500, {}, b"no")]
    message(destination)
    work(destination.pk)
    commands.change_destination(actor=SYSTEM, destination_id=destination.pk, url=f"{receiver.url}-2")
    everything = json.dumps(list(Event.objects.values("facts", "reason")), default=str)
    everything += json.dumps(list(Delivery.objects.values("payload", "last_error", "facts")), default=str)
    row = Destination.objects.values("shown", "last_error", "ciphertext").get()
    everything += json.dumps(row)
    assert "token-123" not in everything and SECRET not in everything
    assert row["shown"] == {"host": f"http://127.0.0.1:{receiver.port}"}


class TestKilled:
    """A sender is killed after each of its steps; another one goes on when its lease has ended."""

    def test_between_the_claim_and_the_request(self, world: World, receiver: Receiver) -> None:
        destination = make(world, receiver.url)
        message(destination)
        claimed = claim(destination.pk, timezone.now())
        assert claimed is not None
        assert claim(destination.pk, timezone.now()) is None and due_destinations(timezone.now()) == []
        later = timezone.now() + LEASE
        again = claim(destination.pk, later)
        assert again is not None
        settle(again, send(again), later)
        assert len(receiver.requests) == 1 and states() == ["sent"]

    def test_between_the_request_and_its_mark(self, world: World, receiver: Receiver) -> None:
        destination = make(world, receiver.url)
        delivery = message(destination)
        claimed = claim(destination.pk, timezone.now())
        assert claimed is not None and send(claimed).ok
        later = timezone.now() + LEASE
        again = claim(destination.pk, later)
        assert again is not None
        settle(again, send(again), later)
        (_, one, first), (_, two, second) = receiver.requests
        # The same message under the same name: the receiver can tell.
        assert one["X-Delivery"] == two["X-Delivery"] == str(delivery.key) and first == second
        assert states() == ["sent"] and Delivery.objects.get().attempts == 2

    def test_a_slow_one_that_is_overtaken_changes_nothing(self, world: World, receiver: Receiver) -> None:
        destination = make(world, receiver.url)
        message(destination)
        slow = claim(destination.pk, timezone.now())
        assert slow is not None
        later = timezone.now() + LEASE
        other = claim(destination.pk, later)
        assert other is not None
        settle(other, send(other), later)
        settle(slow, Outcome("It was too late."), later)
        assert states() == ["sent"]

    def test_in_the_middle_of_a_digest(self, world: World, receiver: Receiver) -> None:
        destination = make(world, receiver.url, per_minute=1)
        for number in range(4):
            message(destination, number=number + 1)
        now = timezone.now()
        assert claim(destination.pk, now) is not None
        message(destination, number=9)
        for later in (now + LEASE, now + 2 * LEASE):
            again = claim(destination.pk, later)
            assert again is not None
            settle(again, send(again), later)
        # As it was when it was first tried, and what came later by itself.
        assert sorted(json.loads(body)["count"] for _, _, body in receiver.requests) == [1, 4]
        assert states() == ["sent", "digested", "digested", "digested", "sent"]


class TestDown:
    def test_it_is_tried_again_ever_later_and_given_up(self, world: World, receiver: Receiver) -> None:
        destination = make(world, receiver.url)
        message(destination)
        receiver.answers = [(503, {}, b"busy")] * ATTEMPTS_MAX
        now, waits = timezone.now(), []
        for _ in range(ATTEMPTS_MAX):
            claimed = claim(destination.pk, now)
            assert claimed is not None
            settle(claimed, send(claimed), now)
            destination.refresh_from_db()
            delivery = Delivery.objects.get()
            assert destination.resumes_at is not None and claim(destination.pk, now) is None
            waits.append((max(destination.resumes_at, delivery.due_at or now) - now).total_seconds())
            now += timedelta(seconds=waits[-1])
        assert all(24 <= wait <= 7200 for wait in waits) and waits[-1] > 10 * waits[0]
        assert 2 * 3600 < sum(waits[:-1]) < 6 * 3600
        assert delivery.state == "dead" and delivery.last_error == "It answers 503 Service Unavailable: busy"
        assert Event.objects.filter(verb="delivery.dead").count() == 1

    def test_retry_after_is_kept(self, world: World, receiver: Receiver) -> None:
        destination = make(world, receiver.url)
        message(destination)
        receiver.answers = [(429, {"Retry-After": "600"}, b"")]
        now = timezone.now()
        work(destination.pk)
        destination.refresh_from_db()
        assert destination.resumes_at is not None and destination.resumes_at - now >= timedelta(seconds=600)

    def test_gone_is_given_up_at_once(self, world: World, receiver: Receiver) -> None:
        destination = make(world, receiver.url)
        message(destination)
        receiver.answers = [(410, {}, b"")]
        work(destination.pk)
        assert states() == ["dead"]

    def test_it_holds_up_no_other(self, world: World, receiver: Receiver) -> None:
        dead = make(world, "http://127.0.0.1:9/", name="dead")
        good = make(world, receiver.url, name="good")
        message(dead)
        message(good)
        assert set(due_destinations(timezone.now())) == {dead.pk, good.pk}
        work(dead.pk)
        assert due_destinations(timezone.now()) == [good.pk]
        work(good.pk)
        assert states() == ["pending", "sent"]
        assert "ConnectError" in Delivery.objects.earliest("pk").last_error

    def test_one_that_is_never_taken_holds_up_no_other(self, world: World, receiver: Receiver) -> None:
        destination = make(world, receiver.url)
        message(destination)
        receiver.answers = [(400, {}, b"invalid_payload")]
        work(destination.pk)
        message(destination)
        later = timezone.now() + timedelta(minutes=1)
        claimed = claim(destination.pk, later)
        assert claimed is not None
        settle(claimed, send(claimed), later)
        assert states() == ["pending", "sent"]
        destination.refresh_from_db()
        assert destination.failures == 0

    def test_what_is_a_day_old_is_given_up(self, world: World, receiver: Receiver) -> None:
        destination = make(world, receiver.url)
        message(destination, timezone.now() - timedelta(hours=25))
        assert work(destination.pk) == 0
        assert states() == ["dead"] and "24 hours" in Delivery.objects.get().last_error

    def test_an_answer_that_drips_ends_in_time(self, settings: Any, monkeypatch: Any) -> None:
        from apps.notifications import outgoing

        settings.NOTIFY_NETWORKS = [ipaddress.ip_network("127.0.0.0/8")]
        monkeypatch.setattr(outgoing, "TOTAL_SECONDS", 0.3)
        stop = threading.Event()

        class Drip(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                self.request.recv(65536)
                while not stop.wait(0.05):
                    try:
                        self.request.sendall(b"H")
                    except OSError:
                        return

        server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Drip)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        began = time.monotonic()
        outcome = post(f"http://127.0.0.1:{server.server_address[1]}/", b"{}", {})
        took = time.monotonic() - began
        stop.set()
        server.shutdown()
        thread.join()
        server.server_close()
        assert outcome.error == "No answer within 0.3 s." and took < TOTAL_SECONDS / 3


class TestRate:
    def test_a_flood_becomes_a_few_messages_that_say_how_many(self, world: World, receiver: Receiver) -> None:
        destination = make(world, receiver.url, per_minute=3)
        for number in range(40):
            message(destination, number=number + 1)
        assert work(destination.pk) == 3
        bodies = [json.loads(body) for _, _, body in receiver.requests]
        assert [body["count"] for body in bodies] == [1, 1, 38]
        assert bodies[2]["counts"] == {"budget.warned": 38} and len(bodies[2]["more"]) == 20
        assert "(and 37 more)" in bodies[2]["subject"]
        assert states().count("sent") == 3 and states().count("digested") == 37
        message(destination, number=99)
        assert claim(destination.pk, timezone.now()) is None
        assert claim(destination.pk, timezone.now() + timedelta(seconds=21)) is not None


class TestAgain:
    def test_a_dead_one_goes_under_its_name(self, world: World, receiver: Receiver) -> None:
        destination = make(world, receiver.url)
        delivery = message(destination)
        receiver.answers = [(410, {}, b"")]
        work(destination.pk)
        with pytest.raises(Conflict):
            commands.send_again(actor=SYSTEM, delivery_id=message(destination, number=5).pk)
        commands.send_again(actor=world.actor("member"), delivery_id=delivery.pk)
        work(destination.pk)
        assert states() == ["sent", "sent"]
        assert [headers["X-Delivery"] for _, headers, _ in receiver.requests].count(str(delivery.key)) == 2

    def test_a_test_message(self, world: World, receiver: Receiver) -> None:
        destination = make(world, receiver.url)
        commands.send_test(actor=world.actor("member"), destination_id=destination.pk)
        work(destination.pk)
        assert json.loads(receiver.requests[0][2])["subject"] == "Test of oncall"
        commands.change_destination(actor=SYSTEM, destination_id=destination.pk, enabled=False)
        with pytest.raises(Conflict):
            commands.send_test(actor=SYSTEM, destination_id=destination.pk)


class TestAddresses:
    @pytest.mark.parametrize(
        "address",
        ["127.0.0.1", "10.1.2.3", "169.254.169.254", "192.168.0.1", "100.64.0.1", "0.0.0.0", "224.0.0.1", "::1",
         "::ffff:127.0.0.1", "fe80::1", "fd00::1", "64:ff9b::7f00:1", "2002:7f00:1::", "::"],
    )  # fmt: skip
    def test_private_ones_are_refused(self, address: str) -> None:
        assert not allowed(ipaddress.ip_address(address))

    @pytest.mark.parametrize("address", ["93.184.215.14", "2606:2800:21f::1", "64:ff9b::5db8:d70e"])
    def test_global_ones_are_not(self, address: str) -> None:
        assert allowed(ipaddress.ip_address(address))

    def test_an_operator_opens_networks(self, settings: Any) -> None:
        settings.NOTIFY_NETWORKS = [ipaddress.ip_network("10.0.0.0/8")]
        assert allowed(ipaddress.ip_address("10.1.2.3")) and allowed(ipaddress.ip_address("::ffff:10.1.2.3"))
        assert not allowed(ipaddress.ip_address("127.0.0.1"))

    @pytest.mark.parametrize(
        "url", ["ftp://a/", "file:///etc/passwd", "https://user:pw@host/", "https://", "http://127.0.0.1/", "http://[::1]/",
                "https://a b/", "https://host:99999/", ""],
    )  # fmt: skip
    def test_what_may_not_be_stored(self, world: World, url: str) -> None:
        with pytest.raises(Invalid) as refused:
            make(world, url)
        assert refused.value.errors[0]["field"] == "url"

    def test_a_name_of_a_private_address_is_not_sent_to(
        self, world: World, receiver: Receiver, settings: Any
    ) -> None:
        settings.NOTIFY_NETWORKS = []
        destination = make(world, f"http://localhost:{receiver.port}/")
        message(destination)
        work(destination.pk)
        assert receiver.requests == []
        assert "private to this network" in Delivery.objects.get().last_error

    def test_the_address_that_was_looked_at_is_connected_to(self, receiver: Receiver, monkeypatch: Any) -> None:
        """A name that answers differently the second time is asked once."""
        import asyncio

        asked = []

        async def getaddrinfo(_self: Any, host: str, port: int, **_: Any) -> Any:
            asked.append(host)
            return [(2, 1, 6, "", ("127.0.0.1", port))]

        monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)
        assert post(f"http://example.org:{receiver.port}/x", b"{}", {}).ok
        assert asked == ["example.org"]
        assert receiver.requests[0][1]["Host"] == f"example.org:{receiver.port}"

    def test_redirects_are_not_followed(self, world: World, receiver: Receiver) -> None:
        receiver.answers = [(302, {"Location": receiver.url}, b"")]
        outcome = post(receiver.url, b"{}", {})
        assert "redirect" in outcome.error and len(receiver.requests) == 1


class MailServer(socketserver.ThreadingTCPServer):
    """As much of SMTP as one mail needs."""

    allow_reuse_address = True
    daemon_threads = True
    mails: list[str]
    refuses = False


class Smtp(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        server: Any = self.server
        self.wfile.write(b"220 test\r\n")
        while line := self.rfile.readline().decode().strip():
            verb = line.split()[0].upper()
            if verb == "DATA":
                self.wfile.write(b"354 go on\r\n")
                lines = []
                while (text := self.rfile.readline().decode()) != ".\r\n":
                    lines.append(text)
                server.mails.append("".join(lines))
            elif verb == "RCPT" and server.refuses:
                self.wfile.write(b"550 no such person\r\n")
                continue
            elif verb == "QUIT":
                self.wfile.write(b"221 bye\r\n")
                return
            self.wfile.write(b"250 ok\r\n")


@pytest.fixture
def mail_server(settings: Any) -> Iterator[MailServer]:
    server = MailServer(("127.0.0.1", 0), Smtp)
    server.mails = []
    settings.MAIL_CONFIGURED = True
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", server.server_address[1]
    settings.EMAIL_USE_TLS = settings.EMAIL_USE_SSL = False
    settings.EMAIL_HOST_USER = settings.EMAIL_HOST_PASSWORD = ""
    settings.DEFAULT_FROM_EMAIL = "RMPortal <portal@example.org>"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


class TestMail:
    def test_it_is_sent_to_all(self, world: World, mail_server: MailServer) -> None:
        destination = make(world, "", "email", to=["a@example.org", "b@example.org"])
        delivery = message(destination)
        work(destination.pk)
        assert states() == ["sent"]
        [mail] = mail_server.mails
        assert "To: a@example.org, b@example.org" in mail and "Subject: vision: 80 % of a budget used" in mail
        assert f"Message-ID: <{delivery.key}@example.org>" in mail and "/tenants/vision/" in mail

    def test_what_the_server_refuses_is_tried_again(self, world: World, mail_server: MailServer) -> None:
        destination = make(world, "", "email", to=["a@example.org"])
        message(destination)
        mail_server.refuses = True
        work(destination.pk)
        assert states() == ["pending"]
        assert smtplib.SMTPRecipientsRefused.__name__ in Delivery.objects.get().last_error

    def test_without_a_mail_server_there_are_no_mails(self, world: World) -> None:
        with pytest.raises(Invalid) as refused:
            make(world, "", "email", to=["a@example.org"])
        assert "RMPORTAL_SMTP_URL" in str(refused.value)


def test_a_secret_that_can_no_longer_be_read_is_said(world: World, receiver: Receiver) -> None:
    destination = make(world, receiver.url)
    Destination.objects.update(ciphertext="other key")
    message(destination)
    work(destination.pk)
    assert "set it again" in Delivery.objects.get().last_error


def test_dispatch_does_not_wait_for_senders(world: World, monkeypatch: Any) -> None:
    """Two destinations are worked for at once, and none twice."""
    going, done = threading.Barrier(3, timeout=10), threading.Event()
    seen: list[int] = []

    def slow(pk: int) -> int:
        seen.append(pk)
        going.wait()
        done.wait(10)
        return 0

    monkeypatch.setattr(sending, "work", slow)
    monkeypatch.setattr(sending, "close_old_connections", lambda: None)
    for name in ("a", "b"):
        message(make(world, "https://example.org/", name=name))
    sending.dispatch(timezone.now())
    going.wait()
    sending.dispatch(timezone.now())
    done.set()
    assert len(seen) == 2 and credentials_of(Destination.objects.earliest("pk")).secret == SECRET
