"""`rmctl dev`: run a workflow here, without a portal."""

import sys
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import typer
from rich.console import Console

from rmctl.cli.failures import FAILED, UsageError
from rmctl.cli.output import print_json
from rmctl.cli.push import refuse, show_findings
from rmctl.cli.session import pairs
from rmctl.cli.workflows import json_or_text
from rmctl.dev.answers import parsed
from rmctl.dev.execute import Machine
from rmctl.dev.run import Options, Run
from rmctl.dev.show import Show
from rmctl.dev.stored import Stored
from rmctl.sdk.check import Checked, check_file
from rmctl.sdk.compile import CompiledWorkflow, Draft
from rmctl.spec import check_params
from rmctl.spec.errors import did_you_mean


@dataclass(frozen=True, slots=True)
class Request:
    """The command line."""

    file: Path
    params: list[str] | None
    task: str | None
    workflow: str | None
    logical_time: str | None
    variables: Path | None
    answers: list[str] | None
    isolated: bool
    wait: bool
    folder: Path | None


def dev(request: Request, as_json: bool) -> None:
    """Run it; ends with status 0 only if the run succeeded, and 2 if a workflow of the file does not compile.

    Other findings are shown, and it runs: what is half written may be tried.
    """
    checked = check_file(request.file, datetime.now(UTC))
    if not checked.compiled or None in checked.compiled:
        refuse(request.file, checked, as_json)
    show_findings(checked.findings)
    draft, workflow = _chosen(checked, request.workflow)
    given = {key: json_or_text(text) for key, text in pairs(request.params, "--param").items()}
    options = Options(
        params=check_params(workflow.spec.params, given),
        logical_time=_moment(request.logical_time),
        only=_task(workflow, request.task),
        wait=request.wait,
        answers=parsed(request.answers),
        ask=lambda question, default: str(typer.prompt(f"  {question}", default=default or None, err=True)),
    )
    _known_tasks(workflow, options)
    _files_are_here(request.file, draft, workflow)
    folder = request.folder or Path(tempfile.mkdtemp(prefix=f"rmctl-dev-{workflow.spec.name[:40]}-"))
    folder.mkdir(parents=True, exist_ok=True)
    machine = Machine(
        folder.absolute(), workflow.bundle, draft.shipped, Stored(request.variables), isolated=request.isolated
    )
    # Bound to the stream of this moment: while a task runs in this process, what it prints goes elsewhere.
    stream = sys.stderr if as_json else sys.stdout
    console = Console(
        file=stream, width=None if stream.isatty() else 400, highlight=False, markup=False, emoji=False
    )
    run = Run(workflow, machine, Show(console, Path.cwd()), options)
    run.go()
    if as_json:
        print_json({"state": run.state, "tasks": run.states, "results": run.results, "folder": str(machine.folder)})
    sys.exit(0 if run.state == "succeeded" else FAILED)


def _chosen(checked: Checked, name: str | None) -> tuple[Draft, CompiledWorkflow]:
    pairs_of = zip(checked.drafts, checked.compiled, strict=True)
    found = {workflow.spec.name: (draft, workflow) for draft, workflow in pairs_of if workflow is not None}
    if name is None and len(found) > 1:
        raise UsageError(f"The file has the workflows {', '.join(found)}: name one with --workflow.")
    if name is not None and name not in found:
        raise UsageError(f"The file has no workflow {name}; it has {', '.join(found)}.")
    return found[name] if name is not None else next(iter(found.values()))


def _task(workflow: CompiledWorkflow, name: str | None) -> str | None:
    if name is not None and name not in workflow.spec.compiled:
        raise UsageError(f"There is no task {name}.{did_you_mean(name, workflow.spec.compiled)}")
    return name


def _known_tasks(workflow: CompiledWorkflow, options: Options) -> None:
    asking = [name for name, task in workflow.spec.compiled.items() if task.kind == "approval"]
    for name in options.answers:
        if name not in asking:
            there = f"; those that ask are {', '.join(asking)}" if asking else "; no task of it asks"
            raise UsageError(f"--answer {name}: this is no approval of the workflow{there}.")


def _files_are_here(file: Path, draft: Draft, workflow: CompiledWorkflow) -> None:
    """Refuse a definition whose functions are only in a bundle of a portal, as one that was exported."""
    named = {task["file"] for task in workflow.definition["tasks"] if "file" in task}
    if missing := sorted(named - draft.shipped.keys()):
        raise UsageError(
            f"{file}: {', '.join(missing)} is in a bundle of the portal: take the bundle out of {file.name}, and put "
            "its files beside it."
        )


def _moment(text: str | None) -> datetime:
    if text is None:
        return datetime.now(UTC).replace(microsecond=0)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"--logical-time {text!r}: give a time such as 2026-03-01 or 2026-03-01T06:00:00Z.") from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
