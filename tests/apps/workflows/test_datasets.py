"""Datasets: expressions, events of tasks and from outside, the runs they trigger, and webhooks."""

import json
import time
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from apps.core.actors import SYSTEM
from apps.core.errors import Forbidden, Invalid
from apps.workflows import commands, datasets
from apps.workflows.commands.webhooks import signature
from apps.workflows.dataset_models import Dataset, DatasetEvent, DatasetTrigger, WebhookDelivery
from apps.workflows.models import Run, Workflow
from rmctl.sdk.datasets import Dataset as Named
from rmctl.spec import SpecError, parse_workflow
from rmctl.spec.datasets import check_expression, holds, uris, words
from tests.apps.workflows.driver import bash, definition, end, finish, start, step
from tests.personas import World

A, B, C = "s3://lake/a", "s3://lake/b", "s3://lake/c"


def consumer(world: World, condition: Any, *, name: str = "reader", **fields: Any) -> Workflow:
    tasks = fields.pop("tasks", [bash("read")])
    fields["datasets"] = condition
    return commands.push(
        actor=SYSTEM, tenant=world.vision, definition=definition(*tasks, name=name, **fields)
    ).workflow


def update(world: World, *names: str, extra: Any = None) -> None:
    for uri in names:
        commands.update_dataset(actor=SYSTEM, tenant=world.vision, uri=uri, extra=extra)


def runs_of(workflow: Workflow) -> int:
    """How many runs there are once the loop has passed."""
    commands.create_dataset_runs(timezone.now())
    return workflow.runs.count()


# Expressions


@pytest.mark.parametrize(
    ("given", "canonical"),
    [
        (A, {"all": [A]}),
        ([A, B], {"all": [A, B]}),
        ({"any": [A, {"all": [B, C]}]}, {"any": [A, {"all": [B, C]}]}),
        ({"any": [A, [B, C]]}, {"any": [A, {"all": [B, C]}]}),
        ([], None),
    ],
)
def test_the_canonical_form(given: Any, canonical: Any) -> None:
    assert check_expression(given) == canonical
    if canonical:
        assert parse_workflow(definition(bash("a"), datasets=given)).definition["datasets"] == canonical


@pytest.mark.parametrize(
    "given", [{"some": [A]}, {"all": []}, {"all": A}, "has blank", 5, {"all": [A], "any": [A]}, [[5]]]
)
def test_a_wrong_expression_is_refused(given: Any) -> None:
    with pytest.raises(SpecError) as refused:
        parse_workflow(definition(bash("a"), datasets=given))
    assert refused.value.errors[0]["field"] == "datasets"


def test_the_sdk_joins_datasets() -> None:
    a, b, c = Named(A), Named(B), Named(C)
    assert (a & b & c).expression() == {"all": [A, B, C]}
    assert (a | (b & c)).expression() == {"any": [A, {"all": [B, C]}]}
    assert ((a | b) & c).expression() == {"all": [{"any": [A, B]}, C]}
    assert words((a | (b & c)).expression()) == f"{A} or ({B} and {C})"


EXPRESSIONS = st.recursive(
    st.sampled_from([A, B, C]),
    lambda inner: st.builds(
        lambda kind, items: {kind: items}, st.sampled_from(["all", "any"]), st.lists(inner, min_size=1, max_size=3)
    ),
    max_leaves=8,
)


@given(expression=EXPRESSIONS, updated=st.sets(st.sampled_from([A, B, C])))
def test_an_expression_is_what_python_says_of_it(expression: Any, updated: set[str]) -> None:
    def value(part: Any) -> bool:
        if isinstance(part, str):
            return part in updated
        [(kind, items)] = part.items()
        return min(map(value, items)) if kind == "all" else max(map(value, items))

    assert holds(expression, updated) == value(expression)
    assert not updated >= set(uris(expression)) or holds(expression, updated)


# Events


@pytest.mark.django_db
def test_a_success_records_an_event_with_the_result(world: World) -> None:
    run = start(world.vision, bash("make", outlets=[A, B]), bash("fails", outlets=[C]))
    end(run, "make", result={"rows": 5})
    end(run, "fails", "failed")
    step()
    events = {event.dataset.uri: event for event in DatasetEvent.objects.all()}
    assert events.keys() == {A, B}
    assert (events[A].run, events[A].task, events[A].extra) == (run, "make", {"rows": 5})


@pytest.mark.django_db
def test_a_mapped_task_makes_one_event_when_all_of_it_has_succeeded(world: World) -> None:
    task = bash("make", outlets=[A], map={"over": {"x": {"value": [1, 2, 3]}}})
    run = start(world.vision, task)
    end(run, "make", index=0)
    step()
    assert not DatasetEvent.objects.exists()
    assert finish(run) == "succeeded"
    assert DatasetEvent.objects.get().extra == {}


@pytest.mark.django_db
def test_a_success_by_hand_records_an_event_and_triggers(world: World) -> None:
    commands.push(actor=SYSTEM, tenant=world.vision, definition=definition(bash("b"), name="after", datasets=[A]))
    mapped = bash("m", outlets=[B], map={"over": {"x": {"value": [1]}}})
    run = start(world.vision, bash("make", outlets=[A]), mapped, bash("fails", outlets=[C]))
    commands.mark(actor=SYSTEM, run_id=run.pk, tasks=["fails"], state="failed")
    assert not DatasetEvent.objects.exists()
    commands.mark(actor=SYSTEM, run_id=run.pk, tasks=["make", "m[0]"], state="succeeded")
    rows = DatasetEvent.objects.order_by("dataset__uri").values_list("dataset__uri", "run", "task", "extra")
    assert list(rows) == [(A, run.pk, "make", {}), (B, run.pk, "m", {})]
    assert DatasetTrigger.objects.get().workflow.name == "after"


@pytest.mark.django_db
def test_an_event_and_the_success_are_one(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from apps.workflows import apply

    run = start(world.vision, bash("make", outlets=[A]))
    end(run, "make")
    monkeypatch.setattr(apply, "record_updates", lambda *_: 1 / 0)
    assert step().failed == 1
    assert run.tasks.get().state == "queued" and not DatasetEvent.objects.exists()
    monkeypatch.undo()
    step()
    assert run.tasks.get().state == "succeeded" and DatasetEvent.objects.count() == 1


# What they trigger


@pytest.mark.django_db
def test_a_pair_of_workflows(world: World) -> None:
    reader = consumer(world, A)
    run = start(world.vision, bash("make", outlets=[A]), name="writer")
    assert runs_of(reader) == 0
    end(run, "make", result={"rows": 5})
    step()
    assert runs_of(reader) == 1
    assert runs_of(reader) == 1
    made = reader.runs.get()
    event = DatasetEvent.objects.get()
    assert (made.trigger, made.data_interval_start, made.data_interval_end) == ("dataset", event.at, event.at)
    assert datasets.triggering(made) == [event]
    assert datasets.triggering_events(made)[A][0]["extra"] == {"rows": 5}


@pytest.mark.django_db
def test_all_of_waits_for_each(world: World) -> None:
    reader = consumer(world, [A, B])
    update(world, A, A)
    assert runs_of(reader) == 0
    waiting = datasets.waiting_of(Workflow.objects.select_related("current").get(pk=reader.pk))
    assert waiting is not None
    assert (waiting.met, [(uri, there) for uri, _, there in waiting.datasets]) == (False, [(A, True), (B, False)])
    update(world, B)
    assert runs_of(reader) == 1
    assert len(datasets.triggering(reader.runs.get())) == 3
    update(world, B)
    assert runs_of(reader) == 1


@pytest.mark.django_db
def test_nested(world: World) -> None:
    reader = consumer(world, {"any": [A, {"all": [B, C]}]})
    update(world, B)
    assert runs_of(reader) == 0
    update(world, C)
    assert runs_of(reader) == 1
    update(world, A)
    assert runs_of(reader) == 2


@pytest.mark.django_db
def test_datasets_and_times_together(world: World) -> None:
    reader = consumer(world, A, schedule="@daily")
    update(world, A)
    assert runs_of(reader) == 1
    assert reader.next_run_at is not None
    commands.create_due_runs(reader.next_run_at)
    assert sorted(reader.runs.values_list("trigger", flat=True)) == ["dataset", "schedule"]


@pytest.mark.django_db
def test_a_paused_workflow_gets_its_run_when_it_is_resumed(world: World) -> None:
    reader = consumer(world, A)
    commands.pause(actor=SYSTEM, workflow_id=reader.pk)
    update(world, A, A)
    assert runs_of(reader) == 0
    commands.resume(actor=SYSTEM, workflow_id=reader.pk)
    assert runs_of(reader) == 1


@pytest.mark.django_db
def test_what_a_new_version_no_longer_waits_for_triggers_nothing(world: World) -> None:
    reader = consumer(world, [A, B])
    update(world, A)
    consumer(world, B)
    assert not DatasetTrigger.objects.exists()
    update(world, A)
    assert runs_of(reader) == 0
    consumer(world, None)
    update(world, A, B)
    assert runs_of(reader) == 0
    assert not reader.dataset_uses.exists()


@pytest.mark.django_db
def test_events_of_another_tenant_are_others(world: World) -> None:
    reader = consumer(world, A)
    other = world.vision.__class__.objects.exclude(pk=world.vision.pk).first()
    assert other is not None
    commands.update_dataset(actor=SYSTEM, tenant=other, uri=A)
    assert runs_of(reader) == 0
    assert Dataset.objects.filter(uri=A).count() == 2


@pytest.mark.django_db
def test_templates_read_the_events(world: World) -> None:
    script = f"echo {{{{ triggering_dataset_events['{A}'][0].extra.rows }}}}"
    reader = consumer(world, A, tasks=[bash("read", script=script)])
    update(world, A, extra={"rows": 7})
    runs_of(reader)
    step()
    task = reader.runs.get().tasks.select_related("job").get()
    assert task.job is not None
    assert task.job.spec["inputs"]["rm:template"]["events"][A][0]["extra"] == {"rows": 7}


@pytest.mark.django_db
def test_lineage(world: World) -> None:
    consumer(world, A, name="first", tasks=[bash("x", outlets=[B])])
    consumer(world, B, name="second", tasks=[bash("y", outlets=[C])])
    found = datasets.lineage(Dataset.objects.get(uri=B))
    labels = {node["id"]: node["label"] for node in found["nodes"]}
    assert {(labels[edge["source"]], labels[edge["target"]]) for edge in found["edges"]} == {
        (A, "first"), ("first", B), (B, "second"), ("second", C)
    }  # fmt: skip


@pytest.mark.django_db
def test_only_members_say_that_a_dataset_was_updated(world: World) -> None:
    with pytest.raises(Forbidden):
        commands.update_dataset(actor=world.actor("stranger"), tenant=world.vision, uri=A)
    with pytest.raises(Invalid):
        commands.update_dataset(actor=world.actor("member"), tenant=world.vision, uri="no uri")
    with pytest.raises(Invalid):
        commands.update_dataset(actor=world.actor("member"), tenant=world.vision, uri=A, extra={"x": "y" * 20_000})


# Webhooks


def send(webhook: Any, secret: str, body: bytes = b"{}", *, at: float | None = None, **headers: str) -> Any:
    """Call the webhook as its sender does."""
    stamp = str(int(time.time() if at is None else at))
    signed = {"X-Timestamp": stamp, "X-Signature": signature(secret, stamp, body), **headers}
    path = f"/api/v1/webhooks/{webhook.pk}/deliveries"
    return Client().post(path, body, content_type="application/json", headers=signed)


@pytest.mark.django_db
def test_a_webhook_triggers_a_workflow_once(world: World, redis_empty: None) -> None:
    params = {"properties": {"n": {"type": "integer", "default": 3}}}
    reader = consumer(world, None, params=params)
    webhook, secret = commands.create_webhook(actor=SYSTEM, tenant=world.vision, name="hook", workflow="reader")
    assert secret not in webhook.ciphertext
    answer = send(webhook, secret, b'{"n": 5}', **{"X-Delivery": "one"})
    assert (answer.status_code, answer.json()["repeated"]) == (200, False)
    run = Run.objects.get(pk=answer.json()["run"])
    assert (run.workflow, run.trigger, run.params) == (reader, "webhook", {"n": 5})
    again = send(webhook, secret, b'{"n": 6}', **{"X-Delivery": "one"})
    assert again.json() == {"run": run.pk, "event": None, "repeated": True}
    assert reader.runs.count() == 1


@pytest.mark.django_db
def test_a_replay_under_another_name_does_nothing(world: World, redis_empty: None) -> None:
    reader = consumer(world, None)
    webhook, secret = commands.create_webhook(actor=SYSTEM, tenant=world.vision, name="hook", workflow="reader")
    now = time.time()
    for name in ("one", "two"):
        assert send(webhook, secret, at=now, **{"X-Delivery": name}).status_code == 200
    assert reader.runs.count() == 1


@pytest.mark.django_db
def test_a_webhook_updates_a_dataset(world: World, redis_empty: None) -> None:
    reader = consumer(world, A)
    webhook, secret = commands.create_webhook(actor=SYSTEM, tenant=world.vision, name="hook", dataset=A)
    answer = send(webhook, secret, b'{"rows": 5}')
    event = DatasetEvent.objects.get(pk=answer.json()["event"])
    assert (event.extra, event.source) == ({"rows": 5}, "webhook hook")
    assert runs_of(reader) == 1


@pytest.mark.django_db
@pytest.mark.parametrize("wrong", ["secret", "body", "old", "future", "no time", "nothing", "gone"])
def test_a_wrong_signature_is_refused(world: World, redis_empty: None, wrong: str) -> None:
    reader = consumer(world, None)
    webhook, secret = commands.create_webhook(actor=SYSTEM, tenant=world.vision, name="hook", workflow="reader")
    if wrong == "gone":
        webhook.pk += 1
    shift = {"old": -301, "future": 301}.get(wrong, 0)
    headers = {"no time": {"X-Timestamp": "x"}}
    headers["body"] = {"X-Signature": signature(secret, str(int(time.time())), b"other")}
    headers["nothing"] = {"X-Signature": "", "X-Timestamp": ""}
    given = "other" if wrong == "secret" else secret
    answer = send(webhook, given, at=time.time() + shift, **headers.get(wrong, {}))
    assert (answer.status_code, answer.json()["code"]) == (401, "bad_signature")
    assert reader.runs.count() == 0 and not WebhookDelivery.objects.exists()


@pytest.mark.django_db
def test_what_the_workflow_does_not_take_is_refused_and_may_come_again(world: World, redis_empty: None) -> None:
    reader = consumer(world, None)
    webhook, secret = commands.create_webhook(actor=SYSTEM, tenant=world.vision, name="hook", workflow="reader")
    for body in (b'{"unknown": 1}', b"[1]", b"{", b"\xff"):
        assert send(webhook, secret, body, **{"X-Delivery": "one"}).status_code == 422, body
    assert send(webhook, secret, b"", **{"X-Delivery": "one"}).status_code == 200
    assert reader.runs.count() == 1


@pytest.mark.django_db
def test_the_secret_is_shown_once(world: World, redis_empty: None) -> None:
    consumer(world, None)
    headers = {"Authorization": f"Bearer {world.token('member')}"}
    body = json.dumps({"tenant": "vision", "name": "hook", "workflow": "reader"})
    made = Client().post("/api/v1/webhooks", body, content_type="application/json", headers=headers)
    assert made.status_code == 201 and made.json()["secret"].startswith("rmhook_")
    [row] = Client().get("/api/v1/webhooks", headers=headers).json()["results"]
    assert "secret" not in row and row["workflow"] == "reader"
    twice = Client().post("/api/v1/webhooks", body, content_type="application/json", headers=headers)
    assert twice.status_code == 422
