"""The closed list of reasons, and amounts as people read them."""

import re
from pathlib import Path

import pytest

from engine.amounts import amount_text
from engine.reasons import GRAVITY, TITLES, Reason, gravest, mildest


def test_the_list_is_the_one_of_the_contract() -> None:
    text = (Path(__file__).parents[2] / "docs" / "architecture.md").read_text()
    line = re.search(r"Reasons of a pending job[^:]*: (.*)\.", text)
    assert line is not None
    assert re.findall(r"`(\w+)`", line[1]) == [reason.value for reason in Reason]


def test_every_reason_has_a_title_and_a_gravity() -> None:
    assert set(TITLES) == set(Reason)
    assert sorted(GRAVITY) == sorted(Reason)
    assert len(set(TITLES.values())) == len(Reason) and all(TITLES.values())


def test_waiting_is_milder_than_what_never_passes() -> None:
    reasons = [Reason.NO_NODE_MATCHES, Reason.WAITING_FOR_QUOTA, Reason.EXCEEDS_MAX_QUOTA]
    assert mildest(reasons) == Reason.WAITING_FOR_QUOTA
    assert gravest(reasons) == Reason.NO_NODE_MATCHES


@pytest.mark.parametrize(
    ("resource", "amount", "expected"),
    [
        ("cpu", 0, "0 cpu"),
        ("cpu", 1500, "1.5 cpu"),
        ("cpu", 1000000, "1000 cpu"),
        ("gpu", 1000, "1 GPU"),
        ("gpu", 250, "0.25 GPU"),
        ("memory", 512, "512 B memory"),
        ("memory", 3 << 29, "1.5 GiB memory"),
        ("storage", 2 << 60, "2048 PiB storage"),
        ("memory", -(1 << 30), "-1 GiB memory"),
        ("licences", 7, "7 licences"),
    ],
)
def test_amounts_read_well(resource: str, amount: int, expected: str) -> None:
    assert amount_text(resource, amount) == expected
