"""Answers to the questions of a workflow: those given in advance, else from whoever sits at the terminal."""

import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

from rmctl.sdk.options import SdkError
from rmctl.spec import SpecError, check_params
from rmctl.spec.kinds import Approval


class NoAnswer(Exception):
    """Nobody can be asked; the message says how to give the answer in advance."""


def parsed(given: list[str] | None) -> dict[str, dict[str, Any]]:
    """`task=option`, or `task={"option": …, "values": {…}}` where the form has fields. Raises SdkError."""
    answers = {}
    for text in given or []:
        task, equals, answer = text.partition("=")
        if not equals:
            raise SdkError(f"--answer {text!r}: give TASK=OPTION.")
        entry: Any = {"option": answer}
        if answer.startswith("{"):
            try:
                entry = json.loads(answer)
            except ValueError as error:
                raise SdkError(f"--answer {task}: this is not JSON: {error}.") from None
        answers[task] = entry
    return answers


def answer(
    task: str, asked: Approval, given: Mapping[str, Any] | None, ask: Callable[[str, str], str]
) -> dict[str, Any]:
    """The result of an approval. Raises NoAnswer, and SdkError for an answer that the question does not take."""
    if given is None and not sys.stdin.isatty():
        raise NoAnswer(f"nobody can be asked here; give --answer {task}={asked.options[0]}")
    while True:
        entry = given if given is not None else _asked(asked, ask)
        option = entry.get("option")
        problem = "" if option in asked.options else f"{option!r} is not one of {', '.join(asked.options)}."
        values: dict[str, Any] = {}
        if not problem:
            try:
                values = check_params(asked.form, entry.get("values") or {}) if asked.form else {}
            except SpecError as error:
                problem = str(error).replace("params.", "")
        if not problem:
            return {"option": option, "values": values, "by": "dev"}
        if given is not None:
            raise SdkError(f"--answer {task}: {problem}")
        print(problem, file=sys.stderr)


def _asked(asked: Approval, ask: Callable[[str, str], str]) -> dict[str, Any]:
    values = {}
    for name, schema in asked.form.get("properties", {}).items():
        default = json.dumps(schema["default"]) if "default" in schema else ""
        text = ask(f"{name} ({schema.get('title') or schema.get('type', 'value')})", default)
        if text:
            try:
                values[name] = json.loads(text)
            except ValueError:
                values[name] = text
    return {"option": ask(" / ".join(asked.options), asked.default or ""), "values": values}
