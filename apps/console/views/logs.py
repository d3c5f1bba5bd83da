"""The log of a job: where a text stands in it, and all of it as a file."""

import io

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.views.decorators.http import require_safe

from apps.core.actors import Actor
from apps.core.streaming import file_response
from apps.execution.queries import job_placement
from apps.execution.search import StoredLog, find_in_log, needles_of
from apps.jobs.models import Placement

from ..pages import choice, number, page


def _placement(request: HttpRequest, actor: Actor, job_id: int) -> Placement:
    rank, group = number(request, "rank") or 0, number(request, "group") or 0
    return job_placement(actor, job_id, attempt=number(request, "attempt"), rank=rank, group=group)


@require_safe
@page
def log_find(request: HttpRequest, actor: Actor, job_id: int) -> HttpResponse:
    """The nearest match of `?q=` (nothing: of an error) `?way=` up or down from `?from=` (nothing: from the end)."""
    placement = _placement(request, actor, job_id)
    needles = needles_of(request.GET.get("q", ""))
    start = number(request, "from")
    up = choice(request, "way", ("up", "down")) != "down"
    found = find_in_log(placement.pk, needles, -1 if start is None else start, up=up)
    return JsonResponse({"at": found.at, "further": found.further, "size": found.size})


@require_safe
@page
def log_download(request: HttpRequest, actor: Actor, job_id: int) -> HttpResponseBase:
    """The whole log as it is now, in pieces."""
    placement = _placement(request, actor, job_id)
    stored = StoredLog(placement.pk)
    return file_response(
        request,
        io.BufferedReader(stored, 1 << 20),
        content_type="text/plain; charset=utf-8",
        size=stored.size,
        filename=f"job-{job_id}-{placement.attempt.token}-{placement.rank}.log",
    )
