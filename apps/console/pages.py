"""What every page's view shares: who asks, how refusals look, one page of a list, and live partials."""

from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from django.contrib import messages
from django.contrib.auth.views import redirect_to_login
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse, QueryDict
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.utils.cache import patch_vary_headers
from django.utils.http import url_has_allowed_host_and_scheme

from apps.core.errors import DomainError, Forbidden, Invalid, NotFound
from apps.core.pagination import scanned
from apps.core.serializers import MAX_INTEGER
from apps.tenants.actors import request_actor

PAGE_SIZE = 50
PAGING = ("before", "after", "page")
M = TypeVar("M", bound=Model)


View = Callable[..., HttpResponseBase]


def page(view: View) -> View:
    """Give the view its actor; send nobody to the sign-in page; turn a DomainError into an answer for people."""

    @wraps(view)
    def wrapped(request: HttpRequest, **arguments: Any) -> HttpResponseBase:
        if not request.user.is_authenticated:
            return _sign_in(request)
        try:
            return view(request, request_actor(request), **arguments)
        except DomainError as error:
            return refusal(request, error)

    return wrapped


def _sign_in(request: HttpRequest) -> HttpResponse:
    if not request.htmx:  # type: ignore[attr-defined]
        return redirect_to_login(request.get_full_path())
    # A fragment's place is inside a page: the whole page goes to the sign-in.
    where = request.htmx.current_url_abs_path or "/"  # type: ignore[attr-defined]
    answer = HttpResponse(status=204)
    answer["HX-Redirect"] = redirect_to_login(where).url
    return answer


def refusal(request: HttpRequest, error: DomainError) -> HttpResponse:
    """The error as a page, as a message on the page that the form was on, or as a header for a fragment."""
    if request.htmx:  # type: ignore[attr-defined]
        answer = HttpResponse(status=error.status)
        answer["X-Problem"] = quote(error.detail)
        return answer
    if request.method == "POST" and not isinstance(error, NotFound):
        messages.error(request, error.detail)
        return back(request)
    template = "404.html" if isinstance(error, NotFound) else "403.html" if isinstance(error, Forbidden) else "400.html"
    status = error.status if error.status in (403, 404) else 400
    return render(request, template, {"detail": error.detail}, status=status)


def back(request: HttpRequest, fallback: str = "/") -> HttpResponse:
    """Return to the page that the form was on (`next`, else the referrer), never to another site."""
    for target in (request.POST.get("next", ""), request.headers.get("Referer", "")):
        if target and url_has_allowed_host_and_scheme(target, {request.get_host()}, require_https=request.is_secure()):
            return redirect(target)
    return redirect(fallback)


def show(
    request: HttpRequest,
    template: str,
    context: Mapping[str, Any],
    partials: Mapping[str, str] | None = None,
    status: int = 200,
) -> HttpResponse:
    """The page, or, when htmx asks for one of its live parts by element id, that part's own template."""
    target = request.htmx.target if request.htmx else None  # type: ignore[attr-defined]
    partial = (partials or {}).get(target or "")
    answer = render(request, partial or template, dict(context), status=status)
    patch_vary_headers(answer, ["HX-Request", "Cookie"])
    # A fragment has its page's address: kept by the browser it would come back in the page's place.
    answer["Cache-Control"] = "no-store" if partial else "private, no-cache"
    return answer


@dataclass(frozen=True, slots=True)
class Page(Generic[M]):
    """Rows of one page of a list, with the addresses of its neighbours and what they are called."""

    rows: list[M]
    before: str | None
    after: str | None
    words: tuple[str, str] = ("Newer", "Older")

    def __iter__(self) -> Iterator[M]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)


def numbered_page(request: HttpRequest, rows: QuerySet[M], *ordering: str, size: int = PAGE_SIZE) -> Page[M]:
    """A page of a list of moderate length in an order of its own (by name), from `?page=N`."""
    place = max(1, min(number(request, "page") or 1, 100_000))
    start = (place - 1) * size
    found = list(rows.order_by(*ordering)[start : start + size + 1])
    return Page(
        rows=found[:size],
        before=_link(request, page=place - 1) if place > 1 else None,
        after=_link(request, page=place + 1) if len(found) > size else None,
        words=("Previous", "Next"),
    )


def page_of(request: HttpRequest, rows: QuerySet[M], size: int = PAGE_SIZE, *, scans: bool = False) -> Page[M]:
    """Newest first by id, from `?before=ID` or `?after=ID`: a page costs the same wherever it lies.

    With `scans` (a filter has no index) it looks at a part of the list, and the following pages at the rest.
    """
    before, after = number(request, "before"), number(request, "after")
    beyond = None
    if after is not None:
        if scans:
            rows, beyond = scanned(rows, after, descending=False)
        found = list(rows.filter(pk__gt=after).order_by("pk")[: size + 1])
        newer, older = found[size - 1].pk if len(found) > size else beyond, found[0].pk if found else after + 1
        found = found[:size][::-1]
    else:
        if scans:
            rows, beyond = scanned(rows, before, descending=True)
        found = list((rows if before is None else rows.filter(pk__lt=before)).order_by("-pk")[: size + 1])
        newer = None if before is None else found[0].pk if found else before - 1
        older = found[size - 1].pk if len(found) > size else beyond
        found = found[:size]
    if not found and not scans:
        return Page(rows=[], before=_link(request) if before is not None else None, after=None)
    return Page(
        rows=found,
        before=_link(request, after=newer) if newer is not None else None,
        after=_link(request, before=older) if older is not None else None,
    )


def _link(request: HttpRequest, **position: int) -> str:
    query = request.GET.copy()
    for name in PAGING:
        query.pop(name, None)
    for name, value in position.items():
        query[name] = str(value)
    return f"?{query.urlencode()}"


def number(request: HttpRequest, name: str) -> int | None:
    """A whole number of the query; raises Invalid for anything else."""
    raw = request.GET.get(name, "")
    if not raw:
        return None
    if not (raw.isascii() and raw.isdigit() and len(raw) < 20 and int(raw) <= MAX_INTEGER):
        raise Invalid.field(name, f"{raw!r} is not a whole number.")
    return int(raw)


def known(action: str, actions: Container[str]) -> str:
    """The last part of an address, if it is one that is known; raises NotFound."""
    if action not in actions:
        raise NotFound(f"There is nothing called {action} here.")
    return action


def given(request: HttpRequest) -> QueryDict:
    """The query without fields that were left empty."""
    query = request.GET.copy()
    for name in [name for name, values in query.lists() if not any(value.strip() for value in values)]:
        del query[name]
    return query


def choice(request: HttpRequest, name: str, accepted: Any) -> str:
    """One of the accepted values of the query, or "" where it is absent; raises Invalid for anything else."""
    value = request.GET.get(name, "")
    if value and value not in accepted:
        raise Invalid.field(name, f"{value!r} is not one of {', '.join(map(str, accepted))}.")
    return value


def text(request: HttpRequest, name: str, most: int = 200) -> str:
    """A search text of the query, without blanks around it and without what PostgreSQL can't hold."""
    return request.GET.get(name, "").replace("\x00", "").strip()[:most]
