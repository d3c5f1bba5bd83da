"""How people get an account: from an operator or an OIDC provider, never by signing themselves up."""

import logging
import re
from typing import Any

from allauth.account.adapter import DefaultAccountAdapter
from allauth.core.exceptions import ImmediateHttpResponse
from allauth.socialaccount.adapter import DefaultSocialAccountAdapter
from allauth.socialaccount.providers.base.constants import AuthError, AuthProcess
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from apps.core.actors import SYSTEM
from apps.core.errors import Conflict

from . import commands

logger = logging.getLogger(__name__)


class AccountAdapter(DefaultAccountAdapter):  # type: ignore[misc]
    """Local accounts are made by operators."""

    def is_open_for_signup(self, request: Any) -> bool:
        return False


class SocialAccountAdapter(DefaultSocialAccountAdapter):  # type: ignore[misc]
    """A configured OIDC provider vouches for its people; they start without any role."""

    def is_open_for_signup(self, request: Any, sociallogin: Any) -> bool:
        """allauth's own sign-up is not used: `pre_social_login` has found or made the account before."""
        return False

    def pre_social_login(self, request: HttpRequest, sociallogin: Any) -> None:
        """Find or make the account of somebody who comes for the first time."""
        if sociallogin.state.get("process") != AuthProcess.LOGIN or sociallogin.is_existing:
            return
        provider = sociallogin.provider
        address = next(iter(sociallogin.email_addresses), None)
        try:
            sociallogin.account = commands.admit_person(
                actor=SYSTEM,
                provider=sociallogin.account.provider,
                subject=sociallogin.account.uid,
                claims=sociallogin.account.extra_data,
                username=sociallogin.user.username,
                email=address.email if address else "",
                verified=bool(address and address.verified),
                by_email=provider.app.settings.get("email_authentication", True),
            )
        except Conflict as conflict:
            raise ImmediateHttpResponse(failure(request, provider, 409, str(conflict))) from None
        sociallogin.user = sociallogin.account.user

    def on_authentication_error(
        self,
        request: HttpRequest,
        provider: Any,
        error: Any = None,
        exception: Any = None,
        extra_context: Any = None,
    ) -> None:
        """Answer every failed sign-in with one page that says what happened and what to do."""
        code = request.GET.get("error", "")
        if exception is not None:
            # allauth puts whole answers into its errors.
            said = f"{type(exception).__name__}: {exception}"[:500]
            logger.warning("Sign-in through %s failed: %s", provider.sub_id, said)
            status = 502
            text = (
                f"{provider.name} does not answer, or its answer cannot be used. Try again in a minute; "
                "an operator finds the cause in the log of the web process."
            )
        elif error == AuthError.CANCELLED:
            status, text = 403, f"You, or {provider.name}, declined. Nothing was changed."
        elif not (extra_context or {}).get("state"):
            status = 400
            text = (
                "This sign-in was not started in this browser, was started more than ten minutes ago or is over "
                "already. Start again."
            )
        else:
            logger.warning("Sign-in through %s failed: it answered with the error %r", provider.sub_id, code)
            status = 502
            # Anybody can make a link with an error of their own wording: only a code of RFC 6749 is repeated.
            said = f" ({code})" if re.fullmatch(r"[a-z_]{1,40}", code) else ""
            text = f"{provider.name} refused to sign you in{said}. Try again, or ask an operator."
        raise ImmediateHttpResponse(failure(request, provider, status, text))


def failure(request: HttpRequest, provider: Any, status: int, text: str) -> HttpResponse:
    """The page of a sign-in that failed."""
    return render(request, "socialaccount/failed.html", {"provider": provider, "text": text}, status=status)
