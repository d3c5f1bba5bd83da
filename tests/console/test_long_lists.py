"""Searching a long list: a page looks at a part of it, says so, and leads on to the rest."""

import re
from html import unescape

import pytest

from apps.core import pagination
from tests.api.objects import make_job
from tests.personas import World

from .conftest import People


def address(body: str, label: str) -> str | None:
    """Where the link with this label leads to."""
    found = re.search(rf'<a class="button[^"]*" href="([^"]+)">(?:<svg.*?</svg>)?{label}', body, re.S)
    return unescape(found.group(1)) if found else None


def test_a_search_that_found_nothing_yet_leads_further_back(
    world: World, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = make_job(world, "needle")
    for number in range(4):
        make_job(world, f"hay-{number}")
    monkeypatch.setattr(pagination, "SCAN_ROWS", 3)

    def body(query: str) -> str:
        return str(people.operator.get(f"/jobs/{query}").content.decode())

    first = body("?q=needle")
    assert "No match in this part of the list" in first
    further = address(first, "Look further back")
    assert further is not None
    second = body(further)
    assert f'id="job-{wanted.pk}"' in second
    assert address(second, "Older") is None
    back = address(second, "Newer")
    assert back is not None and "No match" in body(back)
    assert f'id="job-{wanted.pk}"' in body(f"?q={wanted.pk}")  # An id is found wherever it lies.
