"""Programs of the tasks that `http`, `sql` and `wait_for_file` make: `python -m rmctl.operators.http` and so on.

Each reads its arguments from RM_INPUTS like any task, its connection from the environment, and writes RM_RESULT.
"""

import sys
from collections.abc import Callable
from typing import Any, NoReturn

from rmctl.runner import FAIL_STATUS, RunnerError, _encode, _inputs, _write


class Refused(Exception):
    """The task fails; trying again is of no use if `final`."""

    def __init__(self, message: str, *, final: bool = False) -> None:
        super().__init__(message)
        self.final = final


def main(operate: Callable[[dict[str, Any]], Any]) -> NoReturn:
    """Run an operator as the program of a task: its result is kept, a failure is said in one line."""
    try:
        _write(_encode(operate(_inputs()), "the operator"))
    except RunnerError as error:
        sys.exit(f"error: {error}")
    except Refused as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(FAIL_STATUS if error.final else 1)
    sys.exit(0)
