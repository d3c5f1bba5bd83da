"""`rmctl push`, and with --check everything that is wrong with a file, each fault with its line."""

import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.text import Text

from rmctl.cli.failures import USAGE
from rmctl.cli.output import clean, print_json, stderr, stdout
from rmctl.cli.session import client, tenant_of
from rmctl.client import ApiError, Client, ConfigError, Unreachable
from rmctl.sdk.check import ERROR, WARNING, Checked, Finding, check_file, shown
from rmctl.sdk.compile import CompiledWorkflow, Draft
from rmctl.spec.errors import field_error

STYLES = {ERROR: "bold red", WARNING: "yellow"}


def push(file: Path, tenant: str | None, as_json: bool) -> None:
    """Compile, upload, push; what is pushed twice stays one version. Ends with status 2 when there are faults."""
    checked = check_file(file, datetime.now(UTC))
    if checked.errors:
        refuse(file, checked, as_json)
    answers = []
    with client() as asked:
        tenant = tenant_of(tenant)
        for draft, workflow in zip(checked.drafts, checked.compiled, strict=True):
            assert workflow is not None
            if workflow.bundle is not None:
                asked.upload_bundle(workflow.bundle, tenant)
            try:
                answer = asked.push(workflow.definition, tenant)
            except ApiError as error:
                if _about_fields(error):
                    _take(checked, draft, error.errors, ERROR)
                    refuse(file, checked, as_json)
                raise
            answers.append(answer)
            _take(checked, draft, answer.get("warnings") or [], WARNING)
            if not as_json:
                _pushed(asked, workflow, answer)
    if as_json:
        print_json(answers)
    else:
        show_findings(checked.findings)


def _pushed(asked: Client, workflow: CompiledWorkflow, row: dict[str, Any]) -> None:
    files = f", {len(workflow.files)} files" if workflow.files else ""
    tasks = f"{len(workflow.spec.tasks)} tasks{files}"
    said = f"version {row['version']} ({tasks})" if row["created"] else f"unchanged, version {row['version']}"
    stdout().print(f"{workflow.spec.name}: {said}: {asked.url}/workflows/{row['id']}/")


def _about_fields(error: ApiError) -> bool:
    return bool(error.errors) and error.status in (400, 409, 422)


def _take(checked: Checked, draft: Draft, faults: Iterable[Mapping[str, Any]], severity: str) -> None:
    """Note what the portal said about a workflow, with the lines of the file; not what was found here, in its words."""
    name = draft.definition.get("name")
    noted = {(found.field, found.code) for found in checked.findings if found.workflow == name}
    for fault in faults:
        field, message, code = (str(fault.get(part, "")) for part in ("field", "message", "code"))
        plain = field_error(field.removeprefix("definition."), message, code)
        if (draft.named(plain)["field"], code) not in noted:
            checked.add(draft, plain, severity)


def refuse(file: Path, checked: Checked, as_json: bool) -> None:
    """Show the findings and end."""
    if as_json:
        print_json(_report(file, checked, None))
    else:
        show_findings(checked.findings)
    sys.exit(USAGE)


def check(file: Path, tenant: str | None, offline: bool, as_json: bool) -> None:
    """Show all that is wrong and ask the portal about what only it knows. Ends with status 2 when there are errors."""
    checked = check_file(file, datetime.now(UTC))
    note, url = ("", "") if offline else _ask(checked, tenant)
    if as_json:
        print_json(_report(file, checked, url or None))
    else:
        show_findings(checked.findings)
        broken = {finding.workflow for finding in checked.errors}
        for workflow in checked.compiled:
            if workflow is not None and workflow.spec.name not in broken:
                digest = workflow.spec.digest()[:12]
                name, tasks = workflow.spec.name, len(workflow.spec.tasks)
                stdout().print(f"{file.name}: {name} is fine ({tasks} tasks, {digest})")
        if note:
            stderr().print(f"note: {clean(note)}", style="yellow", soft_wrap=True)
    sys.exit(USAGE if checked.errors else 0)


def _ask(checked: Checked, tenant: str | None) -> tuple[str, str]:
    """Ask the portal about every workflow that compiles; a note if it could not be asked, and its address."""
    try:
        asked = client()
    except ConfigError:
        return "no portal is configured, so secrets, connections, quotas and nodes were not looked at.", ""
    with asked:
        tenant = tenant_of(tenant)
        for draft, workflow in zip(checked.drafts, checked.compiled, strict=True):
            if workflow is None:
                continue
            try:
                warnings = asked.try_push(workflow.definition, tenant).get("warnings") or []
            except Unreachable as error:
                return f"{error}; secrets, connections, quotas and nodes were not looked at.", ""
            except ApiError as error:
                if not _about_fields(error):
                    raise
                _take(checked, draft, error.errors, ERROR)
            else:
                _take(checked, draft, warnings, WARNING)
        return "", asked.url


def _report(file: Path, checked: Checked, url: str | None) -> dict[str, Any]:
    """The findings for scripts; `asked` is the portal that was asked."""
    compiled = [workflow for workflow in checked.compiled if workflow is not None]
    return {
        "file": str(file),
        "ok": not checked.errors,
        "asked": url,
        "findings": [finding.as_dict() for finding in checked.findings],
        "workflows": [
            {"name": w.spec.name, "digest": w.spec.digest(), "files": w.files, "definition": w.definition}
            for w in compiled
        ],
    }


def show_findings(findings: list[Finding]) -> None:
    """`etl.py:12: error: tasks.load.arguments.rows: …`, one to a line."""
    here, console = Path.cwd(), stderr()
    for finding in findings:
        line = Text()
        if finding.place is not None and finding.code != "unusable_file":
            line.append(f"{shown(finding.place, here)}: ", style="bold")
        line.append(f"{finding.severity}: ", style=STYLES[finding.severity])
        where = f"{finding.field}: " if finding.field else ""
        line.append(clean(where), style="cyan").append(clean(finding.message, lines=True))
        console.print(line, soft_wrap=True)
