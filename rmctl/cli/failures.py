"""What went wrong, for people or as JSON, and the exit status that says so."""

import json
import sys
from collections.abc import Sequence
from typing import Any

FAILED, USAGE, DENIED, AWAY = 1, 2, 3, 4

as_json = False


def report(error: Exception) -> int:
    """Write one error to standard error; returns the exit status. Unexpected errors are raised again."""
    from rmctl.client import ApiError, ClientError, ConfigError, Unreachable
    from rmctl.sdk.options import SdkError
    from rmctl.spec import SpecError

    if isinstance(error, ApiError):
        _write(error.detail, error.errors, code=error.code, status=error.status)
        return {401: DENIED, 403: DENIED, 404: DENIED, 400: USAGE, 409: USAGE, 413: USAGE, 422: USAGE}.get(
            error.status, FAILED
        )
    if isinstance(error, SpecError):
        _write("The spec is refused.", error.errors, code="invalid_spec")
        return USAGE
    if isinstance(error, Unreachable):
        _write(str(error), code="unreachable")
        return AWAY
    if isinstance(error, SdkError | ConfigError | UsageError):
        _write(str(error), code="usage")
        return USAGE
    if isinstance(error, ClientError) or _of_agent(error):
        _write(str(error), code="failed")
        return FAILED
    raise error


def _of_agent(error: Exception) -> bool:
    """Whether the agent raised it on purpose; asked without loading the agent."""
    module = sys.modules.get("rmctl.agent.errors")
    return module is not None and isinstance(error, module.AgentError)


class UsageError(Exception):
    """The command line asks for something that cannot be; the message says what can."""


def _write(message: str, errors: Sequence[Any] = (), *, code: str = "", status: int | None = None) -> None:
    if as_json:
        body = {"detail": message, "code": code, "status": status, "errors": list(errors)}
        print(json.dumps(body, ensure_ascii=False), file=sys.stderr)
        return
    from rich.text import Text

    from rmctl.cli.output import clean, stderr

    line = Text("error: ", style="bold red")
    line.append(clean(message, lines=True), style="not bold default")
    console = stderr()
    console.print(line, soft_wrap=True)
    for fault in errors:
        where, said = clean(str(fault.get("field", ""))), clean(str(fault.get("message", "")))
        if said and said not in message:
            console.print(
                Text("  ").append(where, style="cyan").append(f"{': ' if where else ''}{said}"),
                soft_wrap=True,
            )
