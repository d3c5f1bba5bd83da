"""What the frame of every page needs: the theme, the navigation, who is signed in and which tenant they look at."""

from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.urls import reverse

from apps.core.actors import Actor
from apps.tenants.actors import request_actor
from apps.tenants.models import Tenant
from apps.tenants.queries import list_tenants

THEMES = (("system", "System", "monitor"), ("light", "Light", "sun"), ("dark", "Dark", "moon"))
TENANT_COOKIE = "tenant"

# (title, [(label, icon, url name, first part of the path)])
NAVIGATION: tuple[tuple[str, list[tuple[str, str, str, str]]], ...] = (
    ("", [("Overview", "layout-dashboard", "overview", "/")]),
    (
        "Work",
        [
            ("Jobs", "terminal", "jobs", "/jobs/"),
            ("Queue", "list-ordered", "queue", "/queue/"),
            ("What if", "target", "what-if", "/whatif/"),
            ("Workflows", "workflow", "workflows", "/workflows/"),
            ("Runs", "activity", "runs", "/runs/"),
            ("Services", "rocket", "services", "/services/"),
            ("Backfills", "history", "backfills", "/backfills/"),
            ("Approvals", "inbox", "approvals", "/approvals/"),
            ("Datasets", "boxes", "datasets", "/datasets/"),
            ("Slot pools", "sliders-horizontal", "slot-pools", "/slot-pools/"),
            ("Notifications", "zap", "notifications", "/notifications/"),
        ],
    ),
    (
        "Fleet",
        [
            ("Nodes", "server", "nodes", "/nodes/"),
            ("Pools", "layers", "pools", "/pools/"),
            ("Contributions", "building-2", "contributions", "/contributions/"),
            ("Regions", "map-pin", "regions", "/regions/"),
        ],
    ),
    (
        "Governance",
        [
            ("Quotas", "gauge", "quotas", "/quotas/"),
            ("Domains", "network", "domains", "/domains/"),
            ("Tenants", "users", "tenants", "/tenants/"),
            ("Events", "scroll-text", "events", "/events/"),
        ],
    ),
)
TABS = ("overview", "jobs", "runs", "nodes")


def console(request: HttpRequest) -> dict[str, Any]:
    """The context processor; pages without a signed-in person only need the theme."""
    theme = request.COOKIES.get("theme", "system")
    context: dict[str, Any] = {"theme": theme if theme in ("light", "dark") else "system"}
    user = getattr(request, "user", None)
    if user is None or not user.is_authenticated or _is_fragment(request):
        return context
    actor = request_actor(request)
    tenants = visible_tenants(request, actor)
    navigation: list[dict[str, Any]] = [
        {
            "title": title,
            "items": [
                {
                    "label": label,
                    "icon": icon,
                    "url": reverse(f"console:{name}"),
                    "current": _is_at(request, path),
                }
                for label, icon, name, path in items
            ],
        }
        for title, items in NAVIGATION
    ]
    places = [item for group in navigation for item in group["items"]]
    tabs = [item for item in places if item["label"].lower() in TABS]
    return {
        **context,
        "theme_choices": [{"value": value, "label": label, "icon": icon} for value, label, icon in THEMES],
        "navigation": navigation,
        "tabs": tabs,
        "tenants": tenants,
        "tenant": chosen_tenant(request, actor),
        "role_words": _role_words(actor, tenants),
        "providers_configured": bool(settings.SOCIALACCOUNT_PROVIDERS["openid_connect"]["APPS"]),
    }


def _is_fragment(request: HttpRequest) -> bool:
    """Whether htmx asks for a part of a page; when it restores one from the history it wants all of it."""
    htmx = getattr(request, "htmx", None)
    return bool(htmx) and not htmx.history_restore_request


def _is_at(request: HttpRequest, path: str) -> bool:
    return request.path == path if path == "/" else request.path.startswith(path)


def visible_tenants(request: HttpRequest, actor: Actor) -> list[Tenant]:
    """The tenants that the actor may look at; one query for each request."""
    cached: list[Tenant] | None = getattr(request, "_console_tenants", None)
    if cached is None:
        cached = list(list_tenants(actor))
        request._console_tenants = cached  # type: ignore[attr-defined]
    return cached


def chosen_tenant(request: HttpRequest, actor: Actor) -> Tenant | None:
    """The tenant that lists are narrowed to, if the person has chosen one that they may (still) see."""
    slug = request.COOKIES.get(TENANT_COOKIE, "")
    if not slug:
        return None
    return next((tenant for tenant in visible_tenants(request, actor) if tenant.slug == slug), None)


def _role_words(actor: Actor, tenants: list[Tenant]) -> str:
    if actor.operator:
        return "Operator"
    if actor.auditor:
        return "Auditor"
    names = {tenant.pk: tenant.slug for tenant in tenants}
    roles = [f"{role} of {names[pk]}" for pk, role in actor.tenant_roles.items() if pk in names]
    if actor.domain_roles:
        roles.append("provider")
    return ", ".join(roles).capitalize() or "No role yet"
