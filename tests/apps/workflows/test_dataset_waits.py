"""Tasks that wait for datasets: rows that an update brings due."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from apps.core.actors import SYSTEM
from apps.core.errors import Invalid
from apps.jobs.models import Job
from apps.workflows import commands, datasets
from apps.workflows.clearing import Choice
from apps.workflows.dataset_models import Dataset, DatasetEvent
from apps.workflows.models import Run, Wait, Workflow
from tests.apps.workflows.driver import bash, definition, end, look, start, states, step
from tests.apps.workflows.test_waits import later, settle, task
from tests.personas import World

pytestmark = pytest.mark.django_db

A, B = "s3://lake/a", "s3://lake/b"


def waiting(condition: Any, name: str = "w", *upstream: str, **options: Any) -> dict[str, Any]:
    fields = {name: options.pop(name) for name in ("arguments", "outlets") if name in options}
    spec = {"datasets": condition, **options}
    return {"id": name, "kind": "wait_for_dataset", "wait_for_dataset": spec, "upstream": list(upstream), **fields}


def update(world: World, *names: str, extra: Any = None, ago: float = 0) -> None:
    for uri in names:
        made = commands.update_dataset(actor=SYSTEM, tenant=world.vision, uri=uri, extra=extra)
        DatasetEvent.objects.filter(pk=made.pk).update(at=made.at - timedelta(seconds=ago))


def test_an_update_by_a_task_of_another_run_lets_it_go_on(world: World) -> None:
    update(world, A, ago=60)
    run = start(world.vision, waiting(A), bash("use", arguments={"got": {"result": "w"}}))
    settle()
    assert states(run) == {"w": "deferred", "use": "waiting"}
    assert task(run, "w").detail.startswith(f"Waits until {A} has been updated since ")
    assert task(run, "w").job is None
    maker = start(world.vision, bash("make", outlets=[A]), name="maker")
    end(maker, "make", result={"rows": 5})
    step()
    look()
    assert states(run)["w"] == "succeeded" and not Wait.objects.exists()
    got = Job.objects.get(task__run=run, task__name="use").spec["inputs"]["got"]
    assert (list(got), got[A]["extra"], got[A]["source_run_id"]) == ([A], {"rows": 5}, maker.pk)


def test_all_or_any_of_several(world: World) -> None:
    run = start(world.vision, waiting([A, B], "all"), waiting({"any": [A, B]}, "any"))
    settle()
    update(world, A)
    look()
    assert states(run) == {"all": "deferred", "any": "succeeded"}
    update(world, A)
    look()
    assert states(run)["all"] == "deferred"
    update(world, B)
    look()
    assert states(run)["all"] == "succeeded"


DAY = {"data_interval_start": datetime(2026, 3, 1, tzinfo=UTC), "data_interval_end": datetime(2026, 3, 2, tzinfo=UTC)}


@pytest.mark.parametrize(
    ("options", "interval", "since"),
    [
        ({}, True, DAY["data_interval_end"]),
        ({"since": "data_interval_start"}, True, DAY["data_interval_start"]),
        ({"since": "triggered"}, True, None),
        ({}, False, None),
        ({"arguments": {"before": {"value": "6h"}}}, True, datetime(2026, 3, 1, 18, tzinfo=UTC)),
        ({"arguments": {"since": {"value": "2026-03-05T12:00"}}}, True, datetime(2026, 3, 5, 11, tzinfo=UTC)),
    ],
)
def test_since_when_updates_count(world: World, options: Any, interval: bool, since: datetime | None) -> None:
    """A run without an interval counts from when it was triggered; a time without offset is in the workflow's zone."""
    data = definition(bash("a"), waiting(A, "w", "a", **options), timezone="Europe/Berlin")
    pushed = commands.push(actor=SYSTEM, tenant=world.vision, definition=data)
    run = commands.trigger(actor=SYSTEM, workflow_id=pushed.workflow.pk)
    if interval:
        Run.objects.filter(pk=run.pk).update(**DAY)
    step()
    end(run, "a")
    step()
    assert Wait.objects.get(task__run=run).updated_since == (since or run.created_at)


def test_a_moment_that_is_none_fails_and_says_so(world: World) -> None:
    run = start(world.vision, bash("a"), waiting(A, arguments={"since": {"result": "a"}}))
    end(run, "a", result="soon")
    step()
    assert states(run)["w"] == "failed" and "is not a time" in task(run, "w").detail


@pytest.mark.parametrize(("soft", "state"), [(False, "failed"), (True, "skipped")])
def test_its_time_ends(world: World, soft: bool, state: str) -> None:
    run = start(world.vision, waiting([A, B], timeout=60, soft_fail=soft))
    settle()
    update(world, B)
    look()
    later(60)
    look()
    assert states(run)["w"] == state
    assert task(run, "w").detail.startswith(f"Its time of 1m is over: no update of {A} since ")


def test_a_wait_for_many_datasets_is_told_in_few_words(world: World) -> None:
    names = [f"s3://lake/{'x' * 100}/{number}" for number in range(100)]
    run = start(world.vision, waiting(names, timeout=60))
    settle()
    assert task(run, "w").detail.startswith("Waits until what it waits for of 100 datasets has been updated since ")
    later(60)
    look()
    assert f"no update of {names[0]}, {names[1]}, {names[2]} and 97 more since" in task(run, "w").detail


def test_an_update_that_commits_while_the_wait_begins_is_found_by_the_second_look(world: World) -> None:
    run = start(world.vision, waiting(A))
    look()
    dataset = Dataset.objects.get(uri=A)
    DatasetEvent.objects.create(dataset=dataset, at=timezone.now(), source="elsewhere")
    look()
    assert states(run)["w"] == "deferred"
    later(5)
    look()
    assert states(run)["w"] == "succeeded"


def test_a_wait_that_is_cleared_goes_on_with_the_same_update(world: World) -> None:
    run = start(world.vision, waiting(A))
    update(world, A)
    settle()
    run.refresh_from_db()
    assert run.state == "succeeded"
    commands.clear(actor=SYSTEM, run_id=run.pk, choice=Choice())
    assert states(run)["w"] == "waiting"
    settle()
    run.refresh_from_db()
    assert run.state == "succeeded"


def test_updates_of_datasets_that_no_task_waits_for_look_for_nobody(world: World) -> None:
    update(world, A, B)
    with CaptureQueriesContext(connection) as before:
        update(world, A)
    run = start(world.vision, waiting(B))
    with CaptureQueriesContext(connection) as after:
        update(world, A)
    assert len(before) == len(after)
    assert not any("workflows_wait" in query["sql"] for query in after)
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute("EXPLAIN SELECT task_id FROM workflows_wait WHERE datasets && %s::bigint[]", [[1]])
        assert "wait_for_datasets" in " ".join(row[0] for row in cursor.fetchall())
    assert states(run)["w"] == "deferred"


def test_who_waits_is_in_the_lineage_and_keeps_the_dataset(world: World) -> None:
    run = start(world.vision, waiting(A, outlets=[B]), name="reader")
    dataset = Dataset.objects.get(uri=A)
    assert [(use.task, use.waits, use.makes) for use in datasets.uses_of(dataset)] == [("w", True, False)]
    found = datasets.dataset_of(SYSTEM, dataset.pk)
    assert (found.producers, found.consumers) == (0, 1)
    flow = f"workflow:{run.workflow_id}"
    assert {"source": f"dataset:{dataset.pk}", "target": flow} in datasets.lineage(dataset)["edges"]
    Workflow.objects.get(pk=run.workflow_id).dataset_uses.all().delete()
    with pytest.raises(Invalid, match="let their runs end"):
        commands.delete_dataset(actor=SYSTEM, dataset_id=dataset.pk)
    commands.cancel_run(actor=SYSTEM, run_id=run.pk)
    commands.delete_dataset(actor=SYSTEM, dataset_id=dataset.pk)
    assert not Dataset.objects.filter(uri=A).exists()


def test_a_push_warns_of_datasets_that_nothing_updates(world: World) -> None:
    data = definition(waiting([A, B]), bash("make", outlets=[B]))
    pushed = commands.push(actor=SYSTEM, tenant=world.vision, definition=data)
    [warning] = pushed.warnings
    assert (warning["code"], warning["field"]) == ("silent_dataset", "tasks[0].wait_for_dataset.datasets")
    assert A in warning["message"]
