"""The versions of a workflow: what each says, and what is different between two of them."""

from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import reverse
from django.views.decorators.http import require_safe

from apps.core.actors import Actor
from apps.core.errors import NotFound
from apps.execution.sources import Source, Sources, sources_of
from apps.workflows import policies
from apps.workflows.models import Workflow, WorkflowVersion
from apps.workflows.queries import list_versions, version_of

from .. import diffs, graphs
from ..pages import number, numbered_page, page, show, text
from .workflows import head_of, opened_groups, workflow_of

VERSIONS = 20
# Characters of a definition that a page shows; all of it is a download.
TEXT_MAX = 300_000


@require_safe
@page
def workflow_code(request: HttpRequest, actor: Actor, workflow_id: int) -> HttpResponse:
    """One version (`?version=`, the current one by default), against another (`?against=`) if asked."""
    found = workflow_of(actor, workflow_id)
    version, against = _asked(request, actor, found)
    context: dict[str, Any] = {
        "crumbs": [
            {"label": "Workflows", "url": reverse("console:workflows")},
            {"label": found.name, "url": reverse("console:workflow", args=[found.pk])},
            {"label": f"Version {version.number}"},
        ],
        **head_of(actor, found),
        "view": "code",
        "version": version,
        "against": against,
        "page": numbered_page(request, list_versions(actor, found.pk), "-number", size=VERSIONS),
    }
    if against is not None:
        context["difference"] = diffs.difference(against.definition, version.definition)
        context["lines"] = list(diffs.lines(against.definition, version.definition))
        context["files"] = diffs.changed_files(_sources(against), _sources(version))
    else:
        written = diffs.text(version.definition)
        context["text"] = written[:TEXT_MAX]
        context["cut"] = len(written) > TEXT_MAX
        context["sources"] = sources = _sources(version)
        context["source"] = _chosen(sources, version, text(request, "file"))
    return show(request, "console/workflows/code.html", context, {"workflow-head": "console/workflows/_head.html"})


@require_safe
@page
def workflow_code_graph(request: HttpRequest, actor: Actor, workflow_id: int) -> HttpResponse:
    """The graph of that version, with what is different from the other marked."""
    version, against = _asked(request, actor, policies.workflows.get(actor, pk=workflow_id))
    opened = opened_groups(request)
    if against is not None:
        return JsonResponse(diffs.graph(against.definition, version.definition, opened))
    return JsonResponse(graphs.of_version(version.definition, opened))


def _sources(version: WorkflowVersion) -> Sources:
    """The files that the tasks of a version run in."""
    bundle = version.definition.get("bundle")
    return sources_of(bundle) if bundle else Sources(())


def _chosen(sources: Sources, version: WorkflowVersion, name: str) -> Source | None:
    """The file that was asked for, else the first that a task runs, else the first."""
    if name:
        found = sources.named(name)
        if found is None:
            raise NotFound(f"Version {version.number} has no file {name}.")
        return found
    run = [task["file"] for task in version.definition["tasks"] if task.get("file")]
    first = sources.named(run[0]) if run else None
    return first or next(iter(sources.files), None)


def _asked(request: HttpRequest, actor: Actor, found: Workflow) -> tuple[WorkflowVersion, WorkflowVersion | None]:
    asked = number(request, "version")
    version = found.current if asked is None else version_of(actor, found.pk, asked)
    if version is None:
        raise NotFound(f"Workflow {found.name} has no version yet.")
    other = number(request, "against")
    return version, None if other is None else version_of(actor, found.pk, other)
