"""Datasets: their names, and expressions over them that say when a workflow runs."""

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from .errors import BadValue, describe

MAX_URI = 500
MAX_DATASETS = 100
MAX_DEPTH = 10
_URI = re.compile(r"[!-~]+")

Expression = dict[str, list[Any]]


def check_uri(uri: Any) -> str:
    """A dataset's name as it is. Raises BadValue."""
    if not isinstance(uri, str) or len(uri) > MAX_URI or not _URI.fullmatch(uri):
        raise BadValue(
            "bad_uri",
            f"{describe(uri)} is not the name of a dataset: a URI such as s3://bucket/table, at most {MAX_URI} "
            "characters without blanks.",
        )
    return uri


Uri = Annotated[str, AfterValidator(check_uri)]
Outlets = Annotated[list[Uri], Field(max_length=MAX_DATASETS)]


def check_expression(given: Any) -> Expression | None:
    """An expression in its canonical form: `{"all": […]}` or `{"any": […]}` of names and expressions.

    One name and a list of names mean all of them. Raises BadValue.
    """
    if given is None or given == []:
        return None
    found = _expression([given] if isinstance(given, str) else given, 0)
    if len(set(uris(found))) > MAX_DATASETS:
        raise BadValue("too_many", f"At most {MAX_DATASETS} datasets are waited for at once.")
    return found


def check_some(given: Any) -> Expression:
    """The same of an expression that has to be there. Raises BadValue."""
    found = check_expression(given)
    if found is None:
        raise BadValue("required", "Give at least one dataset.")
    return found


def _expression(given: Any, depth: int) -> Expression:
    if isinstance(given, list):
        given = {"all": given}
    if depth > MAX_DEPTH:
        raise BadValue("too_deep", f"The datasets are nested more than {MAX_DEPTH} levels.")
    if not isinstance(given, dict) or len(given) != 1 or not given.keys() <= {"all", "any"}:
        raise BadValue("bad_datasets", f'Give a name, a list, {{"all": […]}} or {{"any": […]}}, not {describe(given)}.')
    [(kind, items)] = given.items()
    if not isinstance(items, list) or not items:
        raise BadValue("bad_datasets", f'"{kind}" takes a list of at least one name or expression.')
    return {kind: [check_uri(item) if isinstance(item, str) else _expression(item, depth + 1) for item in items]}


def uris(expression: Expression | str | None) -> Iterator[str]:
    """The names in an expression."""
    if isinstance(expression, str):
        yield expression
    elif expression is not None:
        for items in expression.values():
            for item in items:
                yield from uris(item)


def waited_by(task: Mapping[str, Any]) -> Iterator[str]:
    """The names that a task of a definition waits for."""
    return uris(task.get("wait_for_dataset", {}).get("datasets"))


def holds(expression: Expression | str, updated: Collection[str]) -> bool:
    """Whether the expression is met by the datasets that were updated."""
    if isinstance(expression, str):
        return expression in updated
    [(kind, items)] = expression.items()
    return (all if kind == "all" else any)(holds(item, updated) for item in items)


def words(expression: Expression | str, *, inner: bool = False) -> str:
    """The expression for people: `a and (b or c)`."""
    if isinstance(expression, str):
        return expression
    [(kind, items)] = expression.items()
    text = (" and " if kind == "all" else " or ").join(words(item, inner=True) for item in items)
    return f"({text})" if inner and len(items) > 1 else text
