"""`rmctl import airflow`: what it writes and says."""

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import typer

from rmctl.cli.output import clean, print_json, stdout


class Nodes(NamedTuple):
    """What nodes have: a Python with Airflow, and modules in their own Python."""

    airflow_python: str
    modules: Sequence[str]


def airflow(
    files: Sequence[Path],
    interpreter: str | None,
    root: Path | None,
    nodes: Nodes,
    out: Path,
    strict: bool,
    as_json: bool,
) -> None:
    """Import the files. Ends with status 1 when anything is lost or a file could not be read."""
    from rmctl.airflow.convert import convert
    from rmctl.airflow.dag import Options
    from rmctl.airflow.read import read
    from rmctl.airflow.write import write

    facts = read(files, interpreter, root)
    options = Options(os.path.abspath(nodes.airflow_python), datetime.now(UTC), frozenset(nodes.modules))
    imported = list(convert(facts, options))
    unread = [file for file in facts["files"] if file["error"] or not file["dags"]]
    lost = bool(unread) or any(one.lost for one in imported)
    written: dict[str, Path] = {}
    for one in imported:
        if not one.refused and not (strict and lost):
            written[one.name] = write(one, out)
    if as_json:
        print_json(_data(imported, unread, written))
    else:
        _show(imported, unread, written)
        if strict and lost:
            stdout().print("nothing is written: with --strict all has to be carried")
    if lost:
        raise typer.Exit(1)


def _data(imported: Sequence[Any], unread: Sequence[Any], written: dict[str, Path]) -> dict[str, Any]:
    return {
        "workflows": [
            {
                "name": one.name,
                "source": one.source,
                "file": str(written[one.name]) if one.name in written else None,
                "tasks": one.ways,
                "findings": [finding.plain() for finding in one.findings],
            }
            for one in imported
        ],
        "unread": [{"file": file["file"], "reason": _reason(file)} for file in unread],
    }


def _show(imported: Sequence[Any], unread: Sequence[Any], written: dict[str, Path]) -> None:
    console = stdout()
    for one in imported:
        counts = ", ".join(f"{len(names)} {way}" for way, names in one.ways.items() if names)
        console.print(f"{one.name}: {counts} → {written.get(one.name, 'not written')}", soft_wrap=True)
        for finding in one.findings:
            console.print(f"  {clean(finding)}", soft_wrap=True)
    for file in unread:
        console.print(f"{file['file']}: not read: {clean(_reason(file), lines=True)}", soft_wrap=True)


def _reason(file: dict[str, Any]) -> str:
    return str(file["error"] or "there is no DAG in it")
