"""Sign-in through an OIDC provider in a real browser, whose content policy has a say in where forms may lead."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from tests.launcher.running import start
from tests.oidc import QUIET, OidcProvider, running_provider

from .conftest import free_port

CHROMIUM = os.environ.get("RMPORTAL_CHROMIUM", "")
pytestmark = [
    pytest.mark.skipif(not CHROMIUM, reason="no Chromium on this machine (set CHROMIUM to its path)"),
    *map(pytest.mark.filterwarnings, QUIET),
]


@pytest.fixture
def portal(tmp_path: Path) -> Iterator[tuple[str, OidcProvider]]:
    """A portal with one provider, and the provider."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with running_provider(url) as provider:
        configuration = json.dumps([provider.configuration()])
        with start(tmp_path / "data", port, RMPORTAL_OIDC=configuration) as process:
            yield url, provider
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0


@pytest.fixture
def page() -> Iterator[Page]:
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-quic"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser.new_page()
        browser.close()


def test_a_person_signs_in_through_the_provider_and_is_told_when_it_fails(
    portal: tuple[str, OidcProvider], page: Page, tmp_path: Path
) -> None:
    url, provider = portal
    provider.person("eva", email="eva@example.org", email_verified=True, preferred_username="eva")
    page.goto(f"{url}/accounts/login/")
    page.screenshot(path=tmp_path / "sign-in.png")
    page.get_by_role("button", name="Continue with Company").click()
    page.get_by_placeholder("sub").fill("eva")
    page.get_by_role("button", name="Authorize").click()
    expect(page).to_have_url(f"{url}/")
    page.get_by_test_id("user-menu").click()
    expect(page.get_by_test_id("user-menu")).to_contain_text("No role yet")
    page.get_by_test_id("sign-out").click()
    provider.answers["/.well-known/openid-configuration"] = ("", 503)
    page.goto(f"{url}/accounts/login/")
    page.get_by_role("button", name="Continue with Company").click()
    expect(page.get_by_test_id("sign-in-failed")).to_contain_text("Company does not answer")
    page.screenshot(path=tmp_path / "failed.png")
