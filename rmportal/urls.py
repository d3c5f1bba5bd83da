"""Every address of the portal: the REST API under /api/v1/, sign-in under /accounts/, pages at the root."""

from django.urls import URLPattern, URLResolver, include, path

from apps.tenants import oidc

from . import views

api: list[URLPattern | URLResolver] = [
    path("", include("apps.tenants.urls")),
    path("", include("apps.fleet.urls")),
    path("", include("apps.quotas.urls")),
    path("", include("apps.events.urls")),
    path("", include("apps.jobs.urls")),
    path("", include("apps.execution.urls")),
    path("", include("apps.scheduling.urls")),
    path("", include("apps.workflows.urls")),
    path("", include("apps.services.urls")),
    path("", include("apps.notifications.urls")),
    path("schema", views.SchemaView.as_view()),
]

# allauth's ways to change the address that an account is known by, or to give a password to an account without one.
CLOSED = (
    "email/",
    "confirm-email/",
    "confirm-email/<path:rest>",
    "password/set/",
    "password/reset/",
    "password/reset/<path:rest>",
    "3rdparty/signup/",
)

urlpatterns = [
    path("healthz", views.healthz),
    path("schemas/<slug:name>.json", views.editor_schema),
    path("api/v1/", include(api)),
    # Before allauth's own, which they replace.
    path("accounts/oidc/<slug:provider_id>/login/", oidc.login, name="openid_connect_login"),
    path("accounts/oidc/<slug:provider_id>/login/callback/", oidc.callback, name="openid_connect_callback"),
    *(path(f"accounts/{page}", views.closed) for page in CLOSED),
    path("accounts/", include("allauth.urls")),
    path("", include("apps.console.urls")),
]

handler400 = views.bad_request
handler403 = views.permission_denied
handler404 = views.page_not_found
handler500 = views.server_error
