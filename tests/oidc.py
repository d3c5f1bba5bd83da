"""A real OIDC provider on this machine, in a thread, which can be told to misbehave."""

import base64
import hashlib
import json
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx

with warnings.catch_warnings():
    # authlib tells the provider's authors about its next version; it wants to be heard above other filters.
    import authlib.deprecate

    warnings.simplefilter("ignore", authlib.deprecate.AuthlibDeprecationWarning)
    import flask
    import oidc_provider_mock
from werkzeug.serving import BaseWSGIServer, make_server

PROVIDER_ID = "company"
# For the tests' own mark, as the provider's libraries warn its authors also while it works.
QUIET = ["ignore::authlib.deprecate.AuthlibDeprecationWarning", "ignore:get_jwt_config:DeprecationWarning"]
CALLBACK = f"/accounts/oidc/{PROVIDER_ID}/login/callback/"


@dataclass
class OidcProvider:
    """The running provider; `answers[path]` replaces an endpoint's answer, `seen` has all requests to it.

    It refuses a code whose PKCE verifier does not match, and clients that are not registered.
    """

    server: BaseWSGIServer
    client_id: str = ""
    secret: str = ""
    answers: dict[str, Any] = field(default_factory=dict)
    challenges: list[str] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://localhost:{self.server.server_port}"

    def register(self, portal: str) -> None:
        """Make a client that may come back to the portal at this address."""
        body = {"redirect_uris": [portal + CALLBACK], "token_endpoint_auth_method": "client_secret_post"}
        answer = httpx.post(f"{self.url}/oauth2/clients", json=body).raise_for_status().json()
        self.client_id, self.secret = answer["client_id"], answer["client_secret"]

    def configuration(self, **settings: Any) -> dict[str, Any]:
        """The element of RMPORTAL_OIDC for this provider."""
        settings = {"server_url": self.url, "token_auth_method": "client_secret_post", **settings}
        return {
            "provider_id": PROVIDER_ID,
            "name": "Company",
            "client_id": self.client_id,
            "secret": self.secret,
            "settings": settings,
        }

    def person(self, subject: str, **claims: Any) -> None:
        """Make somebody known."""
        httpx.put(f"{self.url}/users/{subject}", json=claims).raise_for_status()

    def agree(self, url: str, subject: str) -> str:
        """Sign in as `subject` where the portal sent the browser to; returns where that is sent back to."""
        answer = httpx.post(url, data={"sub": subject})
        assert answer.has_redirect_location, answer.text
        return answer.headers["location"]

    # What the provider's application calls

    def before(self) -> Any:
        """Misbehave as told, note the challenge of a new sign-in and check the verifier of one that ends."""
        request = flask.request
        self.seen.append(request.path)
        if request.path in self.answers:
            return self.answers[request.path]
        if request.path == "/oauth2/authorize" and request.method == "POST":
            assert request.args["code_challenge_method"] == "S256"
            self.challenges.append(request.args["code_challenge"])
        if request.path == "/oauth2/token":
            digest = hashlib.sha256(request.form.get("code_verifier", "").encode()).digest()
            if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() not in self.challenges:
                return {"error": "invalid_grant", "error_description": "PKCE"}, 400
        return None


@contextmanager
def running_provider(portal: str) -> Iterator[OidcProvider]:
    """The provider, with the portal at this address as its client."""
    application = oidc_provider_mock.app(require_client_registration=True, require_nonce=True)
    server = make_server("localhost", 0, application, threaded=True)
    provider = OidcProvider(server)
    application.before_request(provider.before)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        provider.register(portal)
        yield provider
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def parameter(url: str, name: str) -> str:
    """One parameter of an address."""
    return parse_qs(urlsplit(url).query)[name][0]


def id_token(claims: dict[str, Any]) -> str:
    """An unsigned ID token, as a forger can make one."""
    parts = [json.dumps(part).encode() for part in ({"alg": "none"}, claims)]
    return "".join(f"{base64.urlsafe_b64encode(part).rstrip(b'=').decode()}." for part in parts)


def forward_of(page: str) -> str:
    """Where the page that leads to the provider goes."""
    found = re.search(r'http-equiv="refresh" content="0; url=([^"]+)"', page)
    assert found, page
    return found[1].replace("&amp;", "&")
