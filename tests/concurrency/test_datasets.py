"""Events of datasets that come at the same time, and loops that are killed: no trigger is lost, none counts twice."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection, transaction
from django.utils import timezone

from apps.core.actors import SYSTEM
from apps.workflows import commands
from apps.workflows.dataset_models import DatasetEvent, DatasetTrigger
from apps.workflows.models import Run, Workflow
from tests.apps.workflows.driver import bash, definition
from tests.personas import World

pytestmark = pytest.mark.django_db(transaction=True)
A, B = "s3://lake/a", "s3://lake/b"


def consumer(world: World, condition: Any) -> Workflow:
    return commands.push(
        actor=SYSTEM, tenant=world.vision, definition=definition(bash("read"), name="reader", datasets=condition)
    ).workflow


def together(*works: Callable[[], Any]) -> None:
    """Run all at once, each with a connection of its own; raises what any of them raised."""
    barrier, errors = threading.Barrier(len(works)), list[BaseException]()

    def one(work: Callable[[], Any]) -> None:
        try:
            barrier.wait()
            work()
        except BaseException as error:
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=one, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    if errors:
        raise errors[0]


def drain() -> None:
    commands.create_dataset_runs(timezone.now())


def assert_each_event_once(workflow: Workflow) -> None:
    """Every event has triggered exactly one run, and no run came without one."""
    triggers = DatasetTrigger.objects.filter(workflow=workflow)
    assert triggers.filter(run=None).count() == 0
    assert triggers.count() == triggers.values("event").distinct().count() == DatasetEvent.objects.count()
    assert set(triggers.values_list("run", flat=True)) == set(workflow.runs.values_list("pk", flat=True))


def test_events_and_loops_at_the_same_time(world: World) -> None:
    workflow = consumer(world, {"any": [A, B]})

    def update(uri: str) -> None:
        commands.update_dataset(actor=SYSTEM, tenant=world.vision, uri=uri)

    for _ in range(10):
        together(lambda: update(A), lambda: update(B), drain, lambda: update(A), drain)
    drain()
    assert DatasetEvent.objects.count() == 30
    assert_each_event_once(workflow)


def test_two_events_that_together_meet_the_condition_make_one_run(world: World) -> None:
    workflow = consumer(world, [A, B])

    def update(uri: str) -> None:
        commands.update_dataset(actor=SYSTEM, tenant=world.vision, uri=uri)
        drain()

    for count in range(1, 8):
        together(lambda: update(A), lambda: update(B))
        drain()
        assert workflow.runs.count() == count
    assert_each_event_once(workflow)


def test_an_event_that_commits_behind_the_run_is_left_for_the_next(world: World) -> None:
    workflow = consumer(world, A)
    written, made = threading.Event(), threading.Event()

    def late() -> None:
        with transaction.atomic():
            commands.update_dataset(actor=SYSTEM, tenant=world.vision, uri=A)
            written.set()
            assert made.wait(30)

    def early() -> None:
        assert written.wait(30)
        commands.update_dataset(actor=SYSTEM, tenant=world.vision, uri=A)
        drain()
        assert workflow.runs.count() == 1
        made.set()

    commands.update_dataset(actor=SYSTEM, tenant=world.vision, uri=B)  # The dataset is there already.
    commands.update_dataset(actor=SYSTEM, tenant=world.vision, uri=A)
    drain()
    Run.objects.all().delete()
    DatasetEvent.objects.all().delete()
    together(late, early)
    drain()
    assert workflow.runs.count() == 2
    assert_each_event_once(workflow)


def test_a_loop_that_is_killed_in_the_middle_loses_nothing(world: World) -> None:
    """The backend is ended between the run and the commit, as a kill of the worker does."""
    workflow = consumer(world, A)
    commands.update_dataset(actor=SYSTEM, tenant=world.vision, uri=A)

    def killed() -> None:
        with transaction.atomic():
            drain()
            assert workflow.runs.count() == 1
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    with pytest.raises(Exception, match=r"terminat|closed"):
        together(killed)
    assert workflow.runs.count() == 0
    drain()
    assert workflow.runs.count() == 1
    assert_each_event_once(workflow)
