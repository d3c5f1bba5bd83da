"""Finding a text in a log that is stored in pieces, up and down, also where it lies across them; and all of it."""

import io

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import storages
from django.db import connection
from django.test.utils import CaptureQueriesContext

from apps.core.errors import Invalid
from apps.execution import search
from apps.execution.models import LogChunk
from apps.execution.search import ERRORS, StoredLog, find_in_log, needles_of
from apps.jobs.models import Placement
from tests.personas import World
from tests.work import granted, members, simulated_node

LINES = [f"line {number:04d} says nothing\n".encode() for number in range(400)]
LINES[17] = b"ValueError: seventeen\n"
LINES[301] = "Fatal: größe 301\n".encode()
TEXT = b"".join(LINES)


@pytest.fixture
def log(world: World, monkeypatch: pytest.MonkeyPatch) -> Placement:
    """A log in chunks of 700 bytes, looked at 512 bytes at a time, 2 KiB a request."""
    monkeypatch.setattr(search, "PIECE_BYTES", 512)
    monkeypatch.setattr(search, "SCAN_BYTES", 2048)
    simulated_node(world)
    (placement,) = members(granted(world))
    store(placement, TEXT, 700)
    return placement


def store(placement: Placement, text: bytes, length: int) -> None:
    for offset in range(0, len(text), length):
        data = text[offset : offset + length]
        path = storages["logs"].save(f"test/search/{placement.pk}/{offset}", ContentFile(data))
        LogChunk.objects.create(placement=placement, offset=offset, length=len(data), path=path)
    Placement.objects.filter(pk=placement.pk).update(log_size=len(text))


def every(log: Placement, needles: tuple[bytes, ...], *, up: bool) -> list[int]:
    """All matches, one asked for after the other as the page does."""
    found: list[int] = []
    start = -1 if up else 0
    for _ in range(500):
        answer = find_in_log(log.pk, needles, start, up=up)
        assert answer.size == len(TEXT)
        if answer.at is not None:
            found.append(answer.at)
            start = answer.at if up else answer.at + 1
        elif answer.further is None:
            return found
        else:
            assert answer.further < start or start < 0 or not up
            start = answer.further
    raise AssertionError("the search does not end")


@pytest.mark.parametrize("needle", ["seventeen", "says nothing\nline", "LINE 0399", "größe", "\n", "absent"])
def test_both_ways_find_what_is_there(log: Placement, needle: str) -> None:
    wanted, small, at = needle.lower().encode(), TEXT.lower(), -1
    there = []
    while (at := small.find(wanted, at + 1)) >= 0:
        there.append(at)
    assert every(log, needles_of(needle), up=False) == there
    assert every(log, needles_of(needle), up=True) == there[::-1]


def test_errors_are_what_programs_write(log: Placement) -> None:
    assert needles_of("") == ERRORS
    lines = [TEXT[:at].count(b"\n") for at in every(log, ERRORS, up=True)]
    assert lines == [301, 17]


def test_one_request_looks_at_a_part(log: Placement) -> None:
    first = find_in_log(log.pk, (b"absent",), -1, up=True)
    assert (first.at, first.further) == (None, len(TEXT) - 2048)
    assert find_in_log(log.pk, (b"absent",), 0, up=False).further == 2048
    assert find_in_log(log.pk, (b"absent",), 10**12, up=False).further is None


def test_a_text_that_is_too_long_is_refused() -> None:
    with pytest.raises(Invalid, match="at most 200 bytes"):
        needles_of("x" * 201)


def test_all_of_it_is_read_without_the_database(log: Placement) -> None:
    stored = StoredLog(log.pk)
    assert stored.size == len(TEXT)
    with CaptureQueriesContext(connection) as asked, io.BufferedReader(stored, 1024) as file:
        assert file.read(100) == TEXT[:100]
        assert file.read() == TEXT[100:]
    assert not asked.captured_queries
