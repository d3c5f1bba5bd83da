"""Sign-in through an OIDC provider: allauth's flow, with the checks it leaves out and an answer to every failure.

Beyond allauth: a nonce ties the ID token to this browser's request, the token's signature is always verified against
the provider's JWKS, and the userinfo must speak of the same subject (OpenID Connect Core 1.0, sections 3.1.3.7 and
5.3.2).
"""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import jwt
from allauth.account.models import EmailAddress
from allauth.socialaccount.adapter import get_adapter
from allauth.socialaccount.helpers import render_authentication_error
from allauth.socialaccount.models import SocialApp, SocialLogin
from allauth.socialaccount.providers.base.views import BaseLoginView
from allauth.socialaccount.providers.oauth2.client import OAuth2Error
from allauth.socialaccount.providers.oauth2.views import OAuth2CallbackView, OAuth2LoginView
from allauth.socialaccount.providers.openid_connect.provider import OpenIDConnectProvider
from allauth.socialaccount.providers.openid_connect.views import OpenIDConnectOAuth2Adapter
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from requests import RequestException

ENDPOINTS = ("authorization_endpoint", "token_endpoint", "jwks_uri", "userinfo_endpoint")
# Only those with a public key: whoever could check a token with a shared secret could also make one.
ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
CLOCK_SKEW_SECONDS = 60


class Adapter(OpenIDConnectOAuth2Adapter):  # type: ignore[misc]
    """What is asked of a provider. Raises OAuth2Error for answers that are not as the standard wants them."""

    nonce = ""

    @property
    def openid_config(self) -> dict[str, Any]:
        with _understood("its discovery document"):
            found: dict[str, Any] = super().openid_config
            for name in ENDPOINTS:
                if urlsplit(found[name]).scheme not in ("http", "https"):
                    raise ValueError(f"{name} is no address")
            return found

    def get_access_token_data(self, *arguments: Any, **options: Any) -> dict[str, Any]:
        with _understood("its token"):
            found: dict[str, Any] = super().get_access_token_data(*arguments, **options)
            return found

    def complete_login(self, request: HttpRequest, app: Any, token: Any, **options: Any) -> SocialLogin:
        with _understood("the person's identity"):
            if not options["response"].get("id_token"):
                raise OAuth2Error("There is no ID token: is openid among the scopes?")
            login = super().complete_login(request, app, token, **options)
            claims = login.account.extra_data
            if not self.nonce or claims["id_token"].get("nonce") != self.nonce:
                raise OAuth2Error("The ID token was made for another sign-in (nonce).")
            if claims.get("userinfo", claims["id_token"])["sub"] != claims["id_token"]["sub"]:
                raise OAuth2Error("The userinfo speaks of somebody else than the ID token (sub).")
            return login

    def _decode_id_token(self, app: Any, id_token: str) -> dict[str, Any]:
        """The claims of a token that one of the provider's present keys has signed for this portal."""
        with get_adapter().get_requests_session() as session:
            answer = session.get(self.openid_config["jwks_uri"])
        answer.raise_for_status()
        wanted = jwt.get_unverified_header(id_token).get("kid")
        for key in jwt.PyJWKSet.from_dict(answer.json()).keys:
            # A provider with a single key need not name it.
            if wanted is None or key.key_id == wanted:
                with suppress(jwt.InvalidSignatureError, jwt.InvalidKeyError):
                    claims: dict[str, Any] = jwt.decode(
                        id_token,
                        key.key,
                        algorithms=ALGORITHMS,
                        audience=app.client_id,
                        issuer=self.openid_config["issuer"],
                        leeway=CLOCK_SKEW_SECONDS,
                        options={"require": ["exp", "iat", "iss", "aud", "sub"]},
                    )
                    return claims
        raise OAuth2Error(f"No key of its JWKS has signed the ID token (kid {wanted!r}).")


@contextmanager
def _understood(what: str) -> Iterator[None]:
    """Turn what a malformed answer breaks in allauth into OAuth2Error."""
    try:
        yield
    except RequestException:
        raise
    except (jwt.PyJWTError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise OAuth2Error(f"The provider's answer cannot be used for {what}: {error!r}") from error


class Provider(OpenIDConnectProvider):  # type: ignore[misc]
    """A provider of RMPORTAL_OIDC."""

    package = "allauth.socialaccount.providers.openid_connect"
    oauth2_adapter_class = Adapter

    def redirect(self, request: HttpRequest, *arguments: Any, **options: Any) -> HttpResponse:
        """Go to the provider, with a nonce, by a page instead of a redirect.

        The policy `form-action 'self'` also forbids redirects to elsewhere after a form, and the provider may
        send people on to addresses that nobody can list beforehand.
        """
        nonce = secrets.token_urlsafe(24)
        options["auth_params"] = {**(options.get("auth_params") or self.get_auth_params()), "nonce": nonce}
        response = super().redirect(request, *arguments, nonce=nonce, **options)
        if isinstance(response, HttpResponseRedirect):
            context = {"provider": self, "url": response.url}
            return render(request, "socialaccount/leaving.html", context)
        return response

    def extract_email_addresses(self, data: dict[str, Any]) -> list[EmailAddress]:
        """Verified is only what the provider calls so; some send the text "false", which is no false in Python."""
        addresses: list[EmailAddress] = super().extract_email_addresses(data)
        for address in addresses:
            address.verified = address.verified in (True, "true")
        return addresses


class CallbackView(OAuth2CallbackView):  # type: ignore[misc]
    """Where the provider sends people back to."""

    def _get_state(self, request: HttpRequest, provider: Provider) -> tuple[Any, HttpResponse | None]:
        state, response = super()._get_state(request, provider)
        if state:
            self.adapter.nonce = state.get("nonce", "")
        return state, response


@never_cache
def login(request: HttpRequest, provider_id: str) -> HttpResponse:
    """Start a sign-in; by GET it is asked for first, so that no other site can start one."""
    return _answered(OAuth2LoginView, request, provider_id)


@never_cache
def callback(request: HttpRequest, provider_id: str) -> HttpResponse:
    """End a sign-in with the code that the provider gave."""
    return _answered(CallbackView, request, provider_id)


def _answered(
    view: type[BaseLoginView | CallbackView], request: HttpRequest, provider_id: str
) -> HttpResponse:
    """allauth's view; its discovery step stands outside of its own handling of errors."""
    adapter = Adapter(request, provider_id)
    try:
        provider = adapter.get_provider()
    except SocialApp.DoesNotExist:
        raise Http404(f"There is no provider {provider_id}.") from None
    try:
        response: HttpResponse = view.adapter_view(adapter)(request)
    except (OAuth2Error, RequestException) as error:
        response = render_authentication_error(request, provider, exception=error)
    return response
