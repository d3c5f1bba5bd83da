"""What `./portal test` makes of its arguments."""

from pathlib import Path

import pytest

from deploy.local.checks import FILES_FOR_WORKERS, MOST_WORKERS, workers


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project with one test file fewer in `few` than workers need."""
    for folder, count in (("tests/few", FILES_FOR_WORKERS - 1), ("tests/more", 1)):
        (tmp_path / folder).mkdir(parents=True)
        for number in range(count):
            (tmp_path / folder / f"test_{number}.py").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "cores", "given"),
    [
        ([], 2, ["-n", "2"]),
        ([], 1, []),
        ([], 64, ["-n", str(MOST_WORKERS)]),
        (["-x", "-q", "--color=no"], 2, ["-n", "2"]),
        (["tests"], 2, ["-n", "2"]),
        (["tests/few", "tests/more/test_0.py::test_a"], 2, ["-n", "2"]),
        (["tests/few"], 2, []),
        (["tests/more/test_0.py"], 2, []),
        (["-n", "3"], 2, []),
        (["-n0"], 2, []),
        (["--numprocesses=3"], 2, []),
        (["-p", "no:xdist"], 2, []),
        (["-x", "--pdb"], 2, []),
        (["-s"], 2, []),
    ],
)
def test_a_worker_for_each_core_unless_few_files_or_the_caller_say_otherwise(
    root: Path, arguments: list[str], cores: int, given: list[str]
) -> None:
    assert workers(root, arguments, cores) == given
