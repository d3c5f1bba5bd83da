"""All conformance cases pass, and the runner tells the truth about failures and kinds it does not know."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from .conformance import ADAPTERS, check, main, read_cases

CASES = read_cases(Path(__file__).parent)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_case(case: dict[str, Any]) -> None:
    assert check(case) == ("passed", "")


def test_every_supported_kind_has_cases() -> None:
    assert {case["kind"] for case in CASES} == set(ADAPTERS)


@pytest.mark.parametrize("kind", sorted(ADAPTERS))
def test_a_wrong_expectation_fails(kind: str) -> None:
    case = copy.deepcopy(next(case for case in CASES if case["kind"] == kind))
    case["expect"] |= {"unheard_of": 1}
    result, why = check(case)
    assert result == "failed" and "unheard_of" in why


def test_other_kinds_are_reported_as_unsupported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, case in enumerate([{"kind": "weather"}, CASES[0]]):
        (tmp_path / f"{number}.json").write_text(json.dumps(case))
    assert main([str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["total"] == {"passed": 1, "unsupported": 1}


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    assert main([str(tmp_path)]) == 2
