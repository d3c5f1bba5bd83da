"""Operators: tasks whose program ships with rmctl, or that run an image. Like dag.py it imports nothing heavy.

They are scripts with arguments, so templates, connections, retries and all other options are as everywhere. With
`expand` (as of `bash`) there is an instance for each request, statement or path; what it gives is left out elsewhere.
"""

from .dag import Task
from .mapping import over_of
from .options import SdkError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any


def http(
    identifier: str,
    url: "Any" = None,
    *,
    method: str = "GET",
    connection: "str | None" = None,
    headers: "Mapping[str, str] | None" = None,
    params: "Mapping[str, Any] | None" = None,
    json: "Any" = None,
    content: "Any" = None,
    expected: "Sequence[int] | None" = None,
    timeout: float = 60,
    artifact: "str | None" = None,
    expand: "Any" = None,
    **options: "Any",
) -> Task:
    """One HTTP request. Its result is `{"status", "headers", "json" or "text"}`; with `artifact` the body is kept as
    that file. A status that is not `expected` (200 to 299) fails it; a fault of the request is not tried again.

    A `connection` gives host, login and password, a `token` in its extra, and further `headers`; `url` is then a path.
    """
    given = {
        "url": url, "method": method, "connection": connection, "headers": headers, "params": params, "json": json,
        "content": content, "expected": list(expected) if expected else None, "timeout": timeout, "artifact": artifact,
    }  # fmt: skip
    return _program(identifier, "http", given, "url", options, expand)


def sql(
    identifier: str,
    statement: "Any" = None,
    *,
    connection: str,
    parameters: "Any" = None,
    rows: int = 1000,
    artifact: "str | None" = None,
    expand: "Any" = None,
    **options: "Any",
) -> Task:
    """One SQL statement in a transaction, through SQLAlchemy. Its result is the list of its rows as objects, at most
    `rows`, or `{"rowcount": …}`; with `artifact` the rows are kept as that CSV file. `:name` takes a parameter.

    The type of the connection is the dialect, such as `postgresql+psycopg`, its schema the database.
    """
    given = {"statement": statement, "connection": connection, "parameters": parameters, "rows": rows}
    return _program(identifier, "sql", {**given, "artifact": artifact}, "statement", options, expand)


def wait_for_file(
    identifier: str,
    path: "Any" = None,
    *,
    poke_interval: "Any" = "1m",
    exponential_backoff: "bool | float" = False,
    max_wait: "Any" = "1h",
    timeout: "Any" = "7d",
    soft_fail: bool = False,
    expand: "Any" = None,
    **options: "Any",
) -> Task:
    """Wait until a file is there: a path or glob as the node sees it, or an http address. Its result is the list of
    paths, or the address."""
    factor = 2.0 if exponential_backoff is True else float(exponential_backoff or 1.0)
    poke = {
        "interval": poke_interval, "factor": factor, "max_interval": max_wait, "timeout": timeout,
        "soft_fail": soft_fail,
    }  # fmt: skip
    return _program(identifier, "file", {"path": path}, "path", options, expand, {"poke": poke})


def container(
    identifier: str,
    image: str,
    command: "str | Sequence[str]",
    *,
    arguments: "Any" = None,
    expand: "Any" = None,
    **options: "Any",
) -> Task:
    """A command, or the text of a script, in a container image."""
    if isinstance(command, str):
        script = command
    else:
        from shlex import join

        script = f"exec {join(command)}"
    options["image"] = image
    return Task(identifier, "bash", options=options, script=script, arguments=arguments, over=expand)


def _program(
    identifier: str,
    name: str,
    given: "Mapping[str, Any]",
    needed: str,
    options: "dict[str, Any]",
    expand: "Any",
    extra: "Mapping[str, Any] | None" = None,
) -> Task:
    """A task that runs a program of rmctl.operators with these arguments."""
    where = f"Task {identifier}"
    if "image" in options:
        raise SdkError(f"{where}: it runs with the node's own Python; leave image out.")
    wanted = given.get("connection")
    if wanted is not None:
        if not isinstance(wanted, str):
            raise SdkError(f"{where}: name the connection literally, so that the task is given it.")
        options["connections"] = [*options.get("connections", ()), wanted]
    over = over_of(where, expand)
    mapped = over.names() if over is not None else set()
    if "connection" in mapped:
        raise SdkError(f"{where}: all instances have the same connection; make a task for each.")
    if given[needed] is None and over is None:
        raise SdkError(f"{where}: give its {needed}.")
    arguments = {key: value for key, value in given.items() if value is not None and key not in mapped}
    script = f"exec python -m rmctl.operators.{name}"
    return Task(identifier, "bash", options=options, script=script, arguments=arguments, over=over, extra=extra)
