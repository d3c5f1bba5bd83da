"""What belongs to no app: health, the API's schema, and errors that no view answered."""

import json
import sys
from typing import Any

from django.db import DatabaseError, InterfaceError, OperationalError, connection
from django.http import Http404, HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.views import defaults
from django.views.decorators.http import require_safe
from drf_spectacular.views import SpectacularAPIView
from rest_framework.permissions import AllowAny
from rest_framework.renderers import JSONRenderer

from apps.core.problems import problem_response, wants_problem
from rmctl.spec import editor


@require_safe
def healthz(request: HttpRequest) -> HttpResponse:
    """200 when this process can reach the database, else 503."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError:
        return HttpResponse("The database does not answer.\n", status=503, content_type="text/plain")
    return HttpResponse("ok\n", content_type="text/plain", headers={"Cache-Control": "no-store"})


@require_safe
def editor_schema(request: HttpRequest, name: str) -> HttpResponse:
    """The JSON Schema of workflows or jobs, for the `$schema` of editors; public, from wherever they run."""
    try:
        body = json.dumps(editor.schema(name))
    except KeyError:
        return HttpResponse("There are workflow.json and job.json.\n", status=404, content_type="text/plain")
    headers = {"Access-Control-Allow-Origin": "*", "Cache-Control": "public, max-age=3600"}
    return HttpResponse(body, content_type="application/schema+json", headers=headers)


def closed(request: HttpRequest, rest: str = "") -> HttpResponse:
    """404 for pages of a library that are not part of the portal."""
    raise Http404


class SchemaView(SpectacularAPIView):  # type: ignore[misc]
    """The OpenAPI document; public, as it says nothing about anybody."""

    authentication_classes: Any = []
    permission_classes = [AllowAny]
    throttle_classes: Any = []
    renderer_classes = [JSONRenderer]


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Status 400."""
    if wants_problem(request):
        return problem_response(400, "The request cannot be read.")
    return defaults.bad_request(request, exception)


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Status 403."""
    if wants_problem(request):
        return problem_response(403, "You may not do this.")
    return defaults.permission_denied(request, exception)


def page_not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Status 404."""
    if wants_problem(request):
        return problem_response(404, f"There is no {request.path} in this API.")
    return defaults.page_not_found(request, exception)


def server_error(request: HttpRequest) -> HttpResponse:
    """Status 500, or 503 when it is the database that is away; the log has the cause."""
    if isinstance(sys.exc_info()[1], OperationalError | InterfaceError):
        if wants_problem(request):
            return problem_response(503, "The database is busy or away: nothing was changed, try again.")
        # Without the request: what the frame of a page shows would have to be asked of the database.
        page = render_to_string("503.html")
        return HttpResponse(page, status=503, headers={"Retry-After": "5", "Cache-Control": "no-store"})
    if wants_problem(request):
        return problem_response(500, "This is a mistake of the portal; it has been logged.")
    return defaults.server_error(request)
