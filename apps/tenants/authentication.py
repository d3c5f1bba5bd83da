"""How API requests prove who they are: `Authorization: Bearer rmp_…`, or the console's session."""

from datetime import timedelta
from functools import cache
from typing import Any

from django.contrib.auth import get_user_model
from django.utils import timezone
from rest_framework import authentication, exceptions

from apps.core.crypto import digest
from apps.core.rows import Part, fetch

from .models import ApiToken


def _token(text: str) -> ApiToken | None:
    """The token with its user; asked for every request, so by a statement that is written once."""
    token, user, known = _parts()
    for row in fetch(known, [digest(text)]):
        found: ApiToken = token.make(row[: token.width])
        found.user = user.make(row[token.width :])
        return found
    return None


@cache
def _parts() -> tuple[Part[ApiToken], Part[Any], str]:
    # Not while modules are loaded: that may be before the models are.
    token = Part(ApiToken, "t", "id", "user_id", "scopes", "expires_at", "revoked_at", "last_used_at")
    user = Part(get_user_model(), "u", "id", "username", "is_active")
    return token, user, (
        f"SELECT {token.columns}, {user.columns} FROM tenants_apitoken t JOIN auth_user u ON u.id = t.user_id "
        "WHERE t.digest = %s"
    )


class TokenAuthentication(authentication.BaseAuthentication):
    """Looks the token up by its digest; refuses expired and revoked ones with a reason."""

    keyword = "Bearer"

    def authenticate(self, request: Any) -> tuple[Any, ApiToken] | None:
        header = authentication.get_authorization_header(request).decode("latin-1").split()
        if not header or header[0].lower() != "bearer":
            return None
        if len(header) != 2:
            raise exceptions.AuthenticationFailed("Authorization: expected `Bearer <token>`.")
        token = _token(header[1])
        now = timezone.now()
        if token is None or not token.user.is_active:
            raise exceptions.AuthenticationFailed("This API token is not known here.")
        if token.revoked_at is not None:
            raise exceptions.AuthenticationFailed("This API token was revoked: make a new one.")
        if token.expires_at <= now:
            raise exceptions.AuthenticationFailed("This API token has expired: make a new one.")
        if token.last_used_at is None or now - token.last_used_at > timedelta(minutes=1):
            ApiToken.objects.filter(pk=token.pk).update(last_used_at=now)
        return token.user, token

    def authenticate_header(self, request: Any) -> str:
        return 'Bearer realm="rmportal"'


class SessionAuthentication(authentication.SessionAuthentication):
    """The console's session, with CSRF protection; answers 401 rather than 403 to nobody."""

    def authenticate_header(self, request: Any) -> str:
        return 'Session realm="rmportal"'
