"""Sign-in through a real OIDC provider on loopback: who gets in, as whom, and what everybody else is told."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from allauth.socialaccount.models import SocialAccount
from django.contrib.auth import get_user_model
from django.core.exceptions import ImproperlyConfigured
from django.test import Client

from apps.core.actors import SYSTEM
from apps.events.models import Event
from apps.tenants import commands
from apps.tenants.actors import actor_for
from apps.tenants.models import Membership
from rmportal.environment import oidc_providers
from tests.oidc import (
    CALLBACK,
    PROVIDER_ID,
    QUIET,
    OidcProvider,
    forward_of,
    id_token,
    parameter,
    running_provider,
)
from tests.personas import World

PORTAL = "http://testserver"
LOGIN = f"/accounts/oidc/{PROVIDER_ID}/login/?process=login"
FAILED = 'data-testid="sign-in-failed"'

pytestmark = [pytest.mark.django_db, *map(pytest.mark.filterwarnings, QUIET)]


@pytest.fixture(autouse=True)
def plain_static_names(settings: Any) -> None:
    """Pages name static files as they are, so that none have to be collected."""
    backend = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
    settings.STORAGES = {**settings.STORAGES, "staticfiles": backend}


@pytest.fixture(scope="module")
def server() -> Iterator[OidcProvider]:
    with running_provider(PORTAL) as running:
        yield running


@pytest.fixture
def provider(server: OidcProvider, settings: Any, redis_empty: None) -> Iterator[OidcProvider]:
    """The provider, switched on in the portal and well-behaved."""
    switch_on(settings, server.configuration())
    yield server
    server.answers.clear()
    server.seen.clear()


def switch_on(settings: Any, *providers: dict[str, Any]) -> None:
    """As if RMPORTAL_OIDC named these."""
    general = settings.SOCIALACCOUNT_PROVIDERS["openid_connect"]
    settings.SOCIALACCOUNT_PROVIDERS = {"openid_connect": {**general, "APPS": list(providers)}}


def leave(client: Client, process: str = "login") -> str:
    """Press the button; returns the address at the provider."""
    answer = client.post(f"/accounts/oidc/{PROVIDER_ID}/login/?process={process}")
    assert answer.status_code == 200, answer.content
    return forward_of(answer.content.decode())


def come_back(client: Client, url: str) -> Any:
    """Open the address that the provider sent the browser back to."""
    assert url.startswith(PORTAL + CALLBACK)
    return client.get(url.removeprefix(PORTAL))


def sign_in(provider: OidcProvider, subject: str, client: Client | None = None) -> tuple[Client, Any]:
    """The whole way; returns the browser and the last answer."""
    client = client or Client()
    return client, come_back(client, provider.agree(leave(client), subject))


def person(client: Client) -> Any:
    """Who is signed in, or None."""
    user_id = client.session.get("_auth_user_id")
    return get_user_model().objects.get(pk=user_id) if user_id else None


def refused(client: Client, answer: Any, status: int, *words: str) -> None:
    """The page of a failed sign-in, and nobody signed in."""
    text = answer.content.decode()
    assert answer.status_code == status, text
    assert FAILED in text
    for word in words:
        assert word in text
    assert person(client) is None


def test_the_button_is_there_only_when_a_provider_is_configured(
    provider: OidcProvider, settings: Any
) -> None:
    assert "Continue with Company" in Client().get("/accounts/login/").content.decode()
    switch_on(settings)
    assert "Continue with" not in Client().get("/accounts/login/").content.decode()
    assert Client().post(LOGIN).status_code == 404


def test_a_new_person_gets_an_account_without_any_role(provider: OidcProvider) -> None:
    provider.person(
        "s-1", email="eva@example.org", email_verified=True, preferred_username="eva", name="Eva Lu"
    )
    client, answer = sign_in(provider, "s-1")
    assert answer.status_code == 302
    assert answer["Location"] == "/"
    eva = person(client)
    assert (eva.username, eva.email) == ("eva", "eva@example.org")
    assert not eva.has_usable_password()
    assert not eva.is_staff and not eva.is_superuser
    assert not Membership.objects.filter(user=eva).exists()
    actor = actor_for(eva)
    assert not (actor.operator or actor.auditor or actor.tenant_roles or actor.domain_roles)
    assert set(Event.objects.values_list("verb", flat=True)) == {"user.created", "user.linked"}
    assert {"/.well-known/openid-configuration", "/oauth2/token", "/userinfo", "/jwks"} <= set(provider.seen)


def test_a_person_who_comes_again_is_the_same_person_whatever_else_has_changed(
    provider: OidcProvider,
) -> None:
    provider.person("s-2", email="kim@example.org", email_verified=True, preferred_username="kim")
    first, _ = sign_in(provider, "s-2")
    provider.person("s-2", email="kim.new@example.org", email_verified=True, preferred_username="kimberley")
    again, _ = sign_in(provider, "s-2")
    assert person(first) == person(again)
    assert get_user_model().objects.count() == 1


def test_an_existing_person_with_a_verified_email_signs_in_as_before(
    provider: OidcProvider, world: World
) -> None:
    ada = world.users["admin"]
    ada.email = "Ada@Example.org"
    ada.save()
    provider.person("s-3", email="ada@example.org", email_verified=True, preferred_username="somebody")
    client, _ = sign_in(provider, "s-3")
    assert person(client) == ada
    assert person(client).check_password("ada-password-1")
    assert world.vision.pk in actor_for(person(client)).tenant_roles
    assert Event.objects.filter(verb="user.linked", subject_id=ada.pk).count() == 1
    assert not Event.objects.filter(verb="user.created").exists()


@pytest.mark.parametrize("verified", [False, None, "false", "no", 0])
def test_an_unverified_email_does_not_take_over_an_account(
    provider: OidcProvider, world: World, verified: Any
) -> None:
    ada = world.users["admin"]
    ada.email = "ada@example.org"
    ada.save()
    people = get_user_model().objects.count()
    provider.person("s-4", email="ada@example.org", email_verified=verified, preferred_username="ada")
    client, answer = sign_in(provider, "s-4")
    refused(client, answer, 409, "There is an account with the email ada@example.org", "not verified")
    assert get_user_model().objects.count() == people
    assert not SocialAccount.objects.exists()


def test_an_unverified_email_is_not_kept_for_its_owner_to_fall_into(provider: OidcProvider) -> None:
    provider.person("thief", email="ina@example.org", email_verified=False, preferred_username="ina")
    thief, _ = sign_in(provider, "thief")
    assert person(thief).email == ""
    provider.person("ina", email="ina@example.org", email_verified=True, preferred_username="ina")
    ina, _ = sign_in(provider, "ina")
    assert person(ina) != person(thief)
    assert (person(ina).username, person(ina).email) == ("ina-2", "ina@example.org")


def test_a_user_name_alone_gives_nothing(provider: OidcProvider, world: World) -> None:
    provider.person("s-5", preferred_username="olga")
    client, _ = sign_in(provider, "s-5")
    assert person(client).username == "olga-2"
    assert not actor_for(person(client)).operator


def test_a_letter_that_looks_alike_is_another_address(provider: OidcProvider, world: World) -> None:
    ada = world.users["admin"]
    ada.email = "mike@example.org"
    ada.save()
    provider.person("s-6", email="mıke@example.org", email_verified=True, preferred_username="mike")
    client, _ = sign_in(provider, "s-6")
    assert person(client) not in (ada, None)


def test_two_accounts_with_one_email_are_left_to_an_operator(provider: OidcProvider, world: World) -> None:
    get_user_model().objects.update(email="team@example.org")
    provider.person("s-7", email="team@example.org", email_verified=True)
    client, answer = sign_in(provider, "s-7")
    refused(client, answer, 409, "More than one account")


def test_a_blocked_person_stays_out(provider: OidcProvider) -> None:
    user = commands.create_user(actor=SYSTEM, username="bo", password=None, email="bo@example.org")
    user.is_active = False
    user.save()
    provider.person("s-8", email="bo@example.org", email_verified=True)
    client, answer = sign_in(provider, "s-8")
    assert answer["Location"] == "/accounts/inactive/"
    assert client.get("/accounts/inactive/").status_code == 200
    assert person(client) is None
    assert get_user_model().objects.count() == 1


def test_linking_by_email_can_be_switched_off(provider: OidcProvider, settings: Any, world: World) -> None:
    switch_on(settings, provider.configuration(email_authentication=False))
    get_user_model().objects.filter(username="ada").update(email="ada@example.org")
    provider.person("s-9", email="ada@example.org", email_verified=True)
    client, answer = sign_in(provider, "s-9")
    refused(client, answer, 409, "Connected accounts")


def test_a_signed_in_person_connects_and_disconnects_a_provider(provider: OidcProvider, world: World) -> None:
    client = Client()
    client.force_login(world.users["member"], backend="django.contrib.auth.backends.ModelBackend")
    assert "Connected accounts" in client.get("/").content.decode()
    provider.person("s-10", email="other@example.org", email_verified=False)
    come_back(client, provider.agree(leave(client, "connect"), "s-10"))
    account = SocialAccount.objects.get()
    assert account.user == world.users["member"]
    again, _ = sign_in(provider, "s-10")
    assert person(again) == world.users["member"]
    page = client.get("/accounts/3rdparty/").content.decode()
    found = re.search(r'name="account" value="(\d+)"', page)
    assert found, page
    client.post("/accounts/3rdparty/", {"account": found[1]})
    assert not SocialAccount.objects.exists()


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/.well-known/openid-configuration", ("", 503)),
        ("/.well-known/openid-configuration", ("<html>", 200)),
        ("/.well-known/openid-configuration", ({"issuer": "x"}, 200)),
        ("/.well-known/openid-configuration", ([], 200)),
        ("/oauth2/token", ("", 500)),
        ("/oauth2/token", ({"error": "invalid_client"}, 401)),
        ("/oauth2/token", ([], 200)),
        ("/oauth2/token", ({"access_token": "x", "token_type": "Bearer"}, 200)),
        ("/oauth2/token", ({"access_token": "x", "token_type": "Bearer", "id_token": "x"}, 200)),
        ("/userinfo", ("", 502)),
        ("/userinfo", ({"email": "ada@example.org"}, 200)),
        ("/userinfo", ({"sub": "somebody-else"}, 200)),
        ("/userinfo", ("null", 200)),
        ("/jwks", ("", 404)),
        ("/jwks", ({"keys": []}, 200)),
        ("/jwks", ({}, 200)),
    ],
    ids=lambda value: value if isinstance(value, str) else json.dumps(value),
)
def test_a_provider_that_answers_wrongly_gets_a_page_not_a_crash(
    provider: OidcProvider, path: str, answer: Any
) -> None:
    provider.person("s-11", email="eva@example.org", email_verified=True)
    client = Client()
    back = provider.agree(leave(client), "s-11")
    provider.answers[path] = answer
    refused(client, come_back(client, back), 502, "Company does not answer, or its answer cannot be used")
    assert not get_user_model().objects.exists()


def test_a_provider_that_is_down_gets_a_page_not_a_crash(provider: OidcProvider, settings: Any) -> None:
    with running_provider(PORTAL) as gone:
        configuration = gone.configuration()
    switch_on(settings, configuration)
    client = Client()
    refused(client, client.post(LOGIN), 502, "does not answer")
    assert client.get("/accounts/login/").status_code == 200


def test_a_person_who_declines_is_told_so(provider: OidcProvider) -> None:
    client = Client()
    state = parameter(leave(client), "state")
    refused(client, client.get(f"{CALLBACK}?error=access_denied&state={state}"), 403, "declined")
    state = parameter(leave(client), "state")
    answer = client.get(f"{CALLBACK}?error=server_error&state={state}")
    refused(client, answer, 502, "(server_error)")
    state = parameter(leave(client), "state")
    answer = client.get(f"{CALLBACK}?error=Call+0900-12345&state={state}")
    refused(client, answer, 502)
    assert b"0900" not in answer.content


def test_a_state_of_another_browser_an_old_one_and_none_are_refused(provider: OidcProvider) -> None:
    provider.person("s-12", email="eva@example.org", email_verified=True)
    victim, attacker = Client(), Client()
    back = provider.agree(leave(attacker), "s-12")
    refused(victim, come_back(victim, back), 400, "not started in this browser")
    leave(victim)
    refused(victim, come_back(victim, back), 400)
    refused(victim, victim.get(f"{CALLBACK}?code=x"), 400)
    assert come_back(attacker, back).status_code == 302
    refused_again = come_back(attacker, back)
    assert refused_again.status_code == 400


def test_a_code_of_another_sign_in_is_refused_by_its_verifier(provider: OidcProvider) -> None:
    provider.person("s-13", email="eva@example.org", email_verified=True)
    client, other = Client(), Client()
    stolen = parameter(provider.agree(leave(other), "s-13"), "code")
    state = parameter(leave(client), "state")
    provider.challenges.clear()
    refused(client, client.get(f"{CALLBACK}?code={stolen}&state={state}"), 502)


def test_an_id_token_for_another_nonce_is_refused(provider: OidcProvider) -> None:
    provider.person("s-14", email="eva@example.org", email_verified=True)
    client = Client()
    url = leave(client)
    back = provider.agree(url.replace(parameter(url, "nonce"), "of-another-sign-in"), "s-14")
    refused(client, come_back(client, back), 502)
    assert not get_user_model().objects.exists()


def test_an_id_token_that_the_provider_has_not_signed_is_refused(provider: OidcProvider) -> None:
    provider.person("s-15", email="eva@example.org", email_verified=True)
    client = Client()
    url = leave(client)
    back = provider.agree(url, "s-15")
    claims = {
        "iss": provider.url,
        "aud": provider.client_id,
        "sub": "s-15",
        "exp": 2**33,
        "iat": 0,
        "nonce": parameter(url, "nonce"),
    }
    token = {"access_token": "x", "token_type": "Bearer", "id_token": id_token(claims)}
    provider.answers["/oauth2/token"] = token
    provider.answers["/userinfo"] = {"sub": "s-15", "email": "eva@example.org", "email_verified": True}
    refused(client, come_back(client, back), 502)
    assert not get_user_model().objects.exists()


def test_a_link_alone_starts_no_sign_in(provider: OidcProvider) -> None:
    answer = Client().get(LOGIN)
    assert "Sign in with Company?" in answer.content.decode()
    assert "http-equiv" not in answer.content.decode()
    assert provider.seen == []


@pytest.mark.parametrize(
    "path",
    [
        "email/",
        "confirm-email/",
        "password/set/",
        "password/reset/",
        "password/reset/key/1-x/",
        "3rdparty/signup/",
    ],
)
def test_nobody_changes_the_address_of_an_account_alone(world: World, path: str) -> None:
    client = Client()
    client.force_login(world.users["member"], backend="django.contrib.auth.backends.ModelBackend")
    assert client.get(f"/accounts/{path}").status_code == 404
    assert client.post(f"/accounts/{path}", {"email": "ada@example.org", "action_add": ""}).status_code == 404


GOOD = {
    "provider_id": "company",
    "name": "Company",
    "client_id": "portal",
    "secret": "s",
    "settings": {"server_url": "https://id.example.org"},
}


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("{", "RMPORTAL_OIDC is not JSON"),
        ({}, "expected a list"),
        ([1], "RMPORTAL_OIDC[0]: expected an object"),
        ([{**GOOD, "sercet": ""}], "RMPORTAL_OIDC[0].sercet is not known"),
        ([{**GOOD, "client_id": ""}], "RMPORTAL_OIDC[0].client_id is missing"),
        ([{**GOOD, "secret": 5}], "RMPORTAL_OIDC[0].secret: expected text"),
        ([{**GOOD, "provider_id": "A b"}], "RMPORTAL_OIDC[0].provider_id: expected lower-case"),
        ([{**GOOD, "settings": {"server_url": "http://id.example.org"}}], "server_url: expected https"),
        ([{**GOOD, "settings": {"token_auth_method": "client_secret_basic"}}], "server_url: expected https"),
        (
            [{**GOOD, "settings": {**GOOD["settings"], "scope": ["email"]}}],
            "scope: expected a list with openid",
        ),  # type: ignore[dict-item]
        (
            [{**GOOD, "settings": {**GOOD["settings"], "scope": "openid"}}],
            "scope: 'openid' is of a wrong type",
        ),  # type: ignore[dict-item]
        ([{**GOOD, "settings": {**GOOD["settings"], "pkce": False}}], "settings.pkce is not known"),  # type: ignore[dict-item]
        ([GOOD, GOOD], "two providers with one provider_id"),
    ],
    ids=lambda value: None if not isinstance(value, str) else value[:40],
)
def test_a_wrong_configuration_stops_the_start_and_says_what_is_wrong(
    value: Any, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RMPORTAL_OIDC", value if isinstance(value, str) else json.dumps(value))
    with pytest.raises(ImproperlyConfigured) as refusal:
        oidc_providers()
    assert told in str(refusal.value)


def test_a_right_configuration_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RMPORTAL_OIDC", json.dumps([GOOD]))
    assert oidc_providers() == [GOOD]
    monkeypatch.delenv("RMPORTAL_OIDC")
    assert oidc_providers() == []
