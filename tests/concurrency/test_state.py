"""Fifty writers of one key: each counts up once by compare-and-set, and no count is lost."""

import threading

import pytest
from django.db import connections

from apps.core.actors import SYSTEM
from apps.core.errors import Conflict
from apps.events.models import Event
from apps.workflows import commands
from apps.workflows.models import StateValue
from tests.api.objects import make_run
from tests.personas import World, make_world

WRITERS = 50


@pytest.fixture
def shared_world(transactional_db: None, redis_empty: None) -> World:
    return make_world()


def test_fifty_writers_lose_no_count(shared_world: World) -> None:
    workflow = make_run(shared_world).workflow_id
    conflicts: list[int] = []
    failures: list[BaseException] = []
    # As many at once as the database takes; the others come as soon as these have written.
    room = threading.Semaphore(25)

    def count() -> None:
        try:
            while True:
                row = StateValue.objects.filter(workflow=workflow, run=None, key="n").first()
                value, version = (row.value, row.version) if row is not None else (0, 0)
                try:
                    commands.set_state(actor=SYSTEM, workflow_id=workflow, key="n", value=value + 1, expected=version)
                    return
                except Conflict:
                    conflicts.append(version)
        except BaseException as error:
            failures.append(error)
        finally:
            connections.close_all()

    def run() -> None:
        with room:
            count()

    threads = [threading.Thread(target=run) for _ in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert StateValue.objects.get(workflow=workflow).value == WRITERS
    events = Event.objects.filter(verb="state.set").order_by("id")
    versions = sorted(event.facts["version"] for event in events)
    assert len(versions) == len(set(versions)) == WRITERS
    # Otherwise nobody was in anybody's way, and this has shown nothing.
    assert conflicts
