"""What tasks kept, shown in the browser: reports, pictures and text, without any of the portal's rights."""

from django.core.files.storage import storages
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.views.decorators.http import require_safe

from apps.core.actors import Actor
from apps.core.streaming import file_response
from apps.execution import policies

from ..pages import page

# What a browser may show in place; everything else is offered for saving.
SHOWN = ("text/html", "text/plain", "text/csv", "application/json", "application/pdf", "image/")
# Scripts of a report may run, but in an origin of their own: they reach no cookie, no page and no network.
POLICY = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:; frame-ancestors 'self'"
)


@require_safe
@page
def artifact(request: HttpRequest, actor: Actor, artifact_id: int) -> HttpResponseBase:
    """One artifact, in place where a browser can show it."""
    found = policies.artifacts.get(actor, pk=artifact_id)
    shown = found.content_type.startswith(SHOWN)
    answer = file_response(
        request,
        storages["artifacts"].open(found.path, "rb"),
        content_type=found.content_type,
        size=found.size,
        filename="" if shown else found.name.rsplit("/", 1)[-1],
    )
    answer["Content-Security-Policy"] = POLICY
    return answer
