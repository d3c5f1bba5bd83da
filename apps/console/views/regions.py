"""Regions: what operators say of the ways between them and of their power, with its form."""

from collections.abc import Mapping
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from apps.core.actors import Actor
from apps.core.errors import DomainError, FieldError, Invalid
from apps.fleet import commands, policies, queries
from apps.fleet.models import Region

from ..forms import Field, Form, Reader
from ..pages import page, show

PATHS = {"name": "name", "carbon": "carbon", "round_trips": "round_trips"}


@require_safe
@page
def regions(request: HttpRequest, actor: Actor) -> HttpResponse:
    """All regions of which something is said, with every way."""
    found = list(queries.list_regions(actor))
    ways: dict[str, dict[str, float]] = {row.name: dict(row.round_trips) for row in found}
    for row in found:
        for other, milliseconds in row.round_trips.items():
            ways.setdefault(other, {})[row.name] = milliseconds
    context = {
        "crumbs": [{"label": "Regions"}],
        "rows": [{"region": row, "ways": sorted(ways[row.name].items())} for row in found],
        "may_set": policies.regions.allows(actor, "set", None),
    }
    return show(request, "console/regions/page.html", context, {"region-list": "console/regions/_list.html"})


@require_http_methods(["GET", "HEAD", "POST"])
@page
def region_new(request: HttpRequest, actor: Actor) -> HttpResponse:
    """Say something of a region."""
    policies.regions.require(actor, "set", "")
    return _edit(request, actor, None)


@require_http_methods(["GET", "HEAD", "POST"])
@page
def region_edit(request: HttpRequest, actor: Actor, region: str) -> HttpResponse:
    """Change what is said of a region."""
    return _edit(request, actor, policies.regions.get(actor, "set", name=region))


@require_POST
@page
def region_forget(request: HttpRequest, actor: Actor, region: str) -> HttpResponse:
    """Forget what was said of a region."""
    commands.delete_region(actor=actor, name=region)
    messages.success(request, f"Nothing is said of region {region} any more.")
    return redirect("console:regions")


def _edit(request: HttpRequest, actor: Actor, found: Region | None) -> HttpResponse:
    form = _form(found)
    if request.method == "POST":
        form.fill(request.POST)
        try:
            name = found.name if found else form["name"].value.strip()
            commands.set_region(actor=actor, name=name, **_data(request.POST))
        except DomainError as error:
            form.refuse(error, PATHS)
        else:
            messages.success(request, f"Region {name} is saved; placement by latency and energy follows it.")
            return redirect("console:regions")
    context = {
        "crumbs": [{"label": "Regions", "url": reverse("console:regions")}, {"label": found.name if found else "New"}],
        "form": form,
        "region": found,
    }
    status = 422 if request.method == "POST" else 200
    return show(request, "console/regions/edit.html", context, status=status)


def _form(found: Region | None) -> Form:
    fields = (
        Field("name", "Name", mono=True, placeholder="eu-central", help="As clusters and jobs name it."),
        Field("carbon", "Carbon", mono=True, optional=True, placeholder="not known", help="Grams of CO₂ a kWh."),
        Field(
            "round_trips",
            "Round trips",
            "textarea",
            mono=True,
            optional=True,
            rows=5,
            placeholder="us-east=92\nasia=210",
            help="One region a line, with the milliseconds there and back. A way is said once, in either region.",
        ),
    )
    form = Form({field.name: field for field in fields})
    if found is not None:
        ways = "\n".join(f"{other}={milliseconds:g}" for other, milliseconds in sorted(found.round_trips.items()))
        form.fill(
            {"name": found.name, "carbon": "" if found.carbon is None else f"{found.carbon:g}", "round_trips": ways}
        )
    return form


def _data(values: Mapping[str, str]) -> dict[str, Any]:
    """What was typed. Raises Invalid for what cannot be read."""
    errors: list[FieldError] = []
    read = Reader(values, errors, PATHS)
    carbon = read.number("carbon") if read.text("carbon") else None
    ways: dict[str, float] = {}
    for other, typed in read.pairs("round_trips", "region=milliseconds").items():
        try:
            ways[other] = float(typed)
        except ValueError:
            read.fault("round_trips", f"{typed!r} is not a number of milliseconds.")
    if errors:
        raise Invalid(errors[0]["message"], errors=errors)
    return {"carbon": carbon, "round_trips": ways}
