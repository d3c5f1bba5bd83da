"""Two writers of one budget at once: one row comes out, nothing is lost, and nobody's change is overwritten unseen."""

import threading
from collections.abc import Callable

import pytest
from django.db import connections

from apps.core.actors import SYSTEM
from apps.core.errors import Conflict
from apps.events.models import Event
from apps.quotas import budgets
from apps.quotas.models import Budget
from tests.personas import World, make_world

WRITERS = 8


@pytest.fixture
def shared_world(transactional_db: None, redis_empty: None) -> World:
    return make_world()


def at_once(*calls: Callable[[], object]) -> list[str]:
    """Make the calls in threads of their own that begin together; the codes of those refused."""
    refused: list[str] = []
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], object]) -> None:
        barrier.wait()
        try:
            call()
        except Conflict as error:
            refused.append(error.code)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=[call]) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return refused


def test_of_two_of_a_kind_one_is_made(shared_world: World) -> None:
    def make(amount: int) -> Callable[[], object]:
        return lambda: budgets.create_budget(
            actor=SYSTEM, tenant=shared_world.vision, workflow="etl", measure="running", amount=amount
        )

    assert at_once(*map(make, range(WRITERS))) == ["exists"] * (WRITERS - 1)
    assert Budget.objects.count() == Event.objects.filter(verb="budget.created").count() == 1


def test_changes_of_different_things_are_both_kept(shared_world: World) -> None:
    one = budgets.create_budget(
        actor=SYSTEM, tenant=shared_world.vision, measure="cpu_hours", period="day", amount=1
    )
    assert not at_once(
        lambda: budgets.change_budget(actor=SYSTEM, budget_id=one.pk, amount=2),
        lambda: budgets.change_budget(actor=SYSTEM, budget_id=one.pk, hard=False),
    )
    one.refresh_from_db()
    assert (one.amount, one.hard) == (2, False)


def test_of_writers_who_saw_the_same_one_wins(shared_world: World) -> None:
    one = budgets.create_budget(actor=SYSTEM, tenant=shared_world.vision, measure="running", amount=1)
    seen = budgets.stamp(one)

    def change(amount: int) -> Callable[[], object]:
        return lambda: budgets.change_budget(actor=SYSTEM, budget_id=one.pk, amount=amount, seen=seen)

    assert at_once(*(change(amount) for amount in range(2, 2 + WRITERS))) == ["changed_meanwhile"] * (WRITERS - 1)
    assert Event.objects.filter(verb="budget.changed").count() == 1
