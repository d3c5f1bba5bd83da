"""Beats of all nodes are written together: no member whose end is being stored may make them wait."""

import threading
from typing import Any

import pytest
from django.db import connection, transaction
from django.utils import timezone

from apps.jobs import commands as jobs
from apps.jobs.models import Placement
from tests.personas import make_world
from tests.work import FAKE, granted, members, report, simulated_node


def test_a_member_that_is_just_ending_is_passed_by(
    transactional_db: None, redis_empty: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FAKE, "submit", lambda node_ids: None)
    world = make_world()
    simulated_node(world)
    ending, other = (members(granted(world))[0] for _ in range(2))
    for member in (ending, other):
        report(member, "started")
    told = [jobs.Checkpoint(member.node_id, member.pk, 1, timezone.now()) for member in (ending, other)]
    locked, stored = threading.Event(), threading.Event()
    waited: list[bool] = []

    def end() -> None:
        try:
            with transaction.atomic():
                Placement.objects.select_for_update().get(pk=ending.pk)
                locked.set()
                waited.append(not stored.wait(10))
        finally:
            connection.close()

    thread = threading.Thread(target=end)
    thread.start()
    assert locked.wait(10)
    jobs.store_checkpoints(told)
    stored.set()
    thread.join()

    def kept(member: Placement) -> Any:
        return Placement.objects.get(pk=member.pk).checkpoint_at

    assert waited == [False]
    assert kept(ending) is None and kept(other) is not None
    jobs.store_checkpoints(told)  # The next beat says it again.
    assert kept(ending) is not None
