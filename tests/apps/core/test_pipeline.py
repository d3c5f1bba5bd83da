"""Statements that are sent without waiting do the same as those that are waited for, and fail as loudly."""

import pytest
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext

from apps.core import pipeline
from apps.core.bulk import append, insert, update_rows
from apps.core.errors import StaleState
from apps.core.rows import Answer, Part, fetch
from apps.fleet.models import Region

pytestmark = pytest.mark.django_db


def regions(*names: str) -> list[Region]:
    return insert(Region(name=name, round_trips={}) for name in names)


def test_what_was_sent_is_there_in_its_order() -> None:
    with transaction.atomic(), pipeline.pipelined():
        one, two = regions("one", "two")
        append([Region(name="three", round_trips={})])
        update_rows(Region, ("name",), [(one.pk, "first"), (two.pk, "second")])
        update_rows(Region, ("name",), [(one.pk, "again")])
        assert [name for (name,) in Answer("SELECT name FROM fleet_region ORDER BY id")] == ["again", "second", "three"]
    assert list(Region.objects.order_by("pk").values_list("name", flat=True)) == ["again", "second", "three"]


def test_the_first_error_is_raised_as_itself_and_nothing_is_written() -> None:
    regions("one")
    with pytest.raises(IntegrityError, match="one"), transaction.atomic():  # noqa: SIM117
        with pipeline.pipelined():
            append([Region(name="two", round_trips={})])
            append([Region(name="one", round_trips={})])
            update_rows(Region, ("name",), [(1, "three")])
            pipeline.when_answered(lambda: pytest.fail("A check was made of a pipeline that failed."))
    assert list(Region.objects.values_list("name", flat=True)) == ["one"]


def test_an_error_shows_itself_to_whoever_looks_behind_it() -> None:
    regions("one")
    with pytest.raises(IntegrityError, match="one"), transaction.atomic(), pipeline.pipelined():
        append([Region(name="one", round_trips={})])
        fetch("SELECT 1")


def test_checks_are_made_when_everything_is_answered_and_take_it_all_back() -> None:
    (one,) = regions("one")
    seen = []
    with pytest.raises(StaleState, match="moved meanwhile"), transaction.atomic():  # noqa: SIM117
        with pipeline.pipelined():
            gone = update_rows(Region, ("carbon",), [(one.pk, 1.0, "two")], guard="name")

            def check() -> None:
                seen.append(len(gone))
                raise StaleState("It moved meanwhile.")

            pipeline.when_answered(check)
            update_rows(Region, ("name",), [(one.pk, "other")])
            assert not seen
    assert seen == [0]
    assert Region.objects.get().name == "one"


def test_outside_of_a_pipeline_a_check_is_made_at_once() -> None:
    seen: list[int] = []
    pipeline.when_answered(lambda: seen.append(1))
    assert seen == [1]


def test_one_within_another_ends_with_that() -> None:
    seen: list[str] = []
    with transaction.atomic(), pipeline.pipelined():
        with pipeline.pipelined():
            regions("one")
            pipeline.when_answered(lambda: seen.append("inner"))
        seen.append("between")
    assert seen == ["between", "inner"]


@pytest.mark.django_db(transaction=True)
def test_there_is_none_without_a_transaction() -> None:
    with pytest.raises(transaction.TransactionManagementError), pipeline.pipelined():
        pass


def test_a_part_has_its_columns_and_reads_others_when_asked() -> None:
    (one,) = insert([Region(name="one", carbon=20.0, round_trips={"two": 7.5})])
    part = Part(Region, "r", "id", "round_trips")
    (row,) = fetch(f"SELECT {part.columns} FROM fleet_region r")
    found = part.make(row)
    with CaptureQueriesContext(connection) as queries:
        assert (found.pk, found.round_trips) == (one.pk, {"two": 7.5})
        assert not queries.captured_queries
        assert found.carbon == 20.0
        assert len(queries.captured_queries) == 1


def test_a_part_of_columns_that_there_are_not_is_refused() -> None:
    with pytest.raises(AssertionError, match="Region"):
        Part(Region, "r", "id", "colour")
