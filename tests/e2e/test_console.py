"""The console in a real browser, on the demo's real data."""

import os
import re
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from .conftest import DemoPortal

CHROMIUM = os.environ.get("RMPORTAL_CHROMIUM", "")
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no Chromium on this machine (set CHROMIUM to its path)")

PAGES = (
    "/", "/nodes/", "/nodes/1/", "/nodes/1/labels/", "/pools/", "/pools/1/", "/pools/new/", "/flavors/1/",
    "/contributions/", "/contributions/1/", "/contributions/new/", "/queue/", "/jobs/", "/jobs/1/", "/jobs/submit/",
    "/whatif/", "/whatif/?job=1", "/workflows/", "/workflows/1/", "/workflows/1/calendar/", "/workflows/1/code/",
    "/runs/", "/runs/1/", "/runs/1/?task=demand", "/runs/1/gantt/", "/approvals/", "/backfills/", "/datasets/",
    "/regions/", "/quotas/", "/quotas/1/", "/quotas/new/", "/quotas/budgets/new/",
    "/domains/", "/domains/new/", "/domains/tenants/new/", "/domains/clusters/new/", "/domains/clusters/1/",
    "/tenants/", "/tenants/vision/", "/events/", "/tokens/",
)  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-quic"]
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield found
        found.close()


def sign_in(context: BrowserContext, demo: DemoPortal, username: str) -> Page:
    page = context.new_page()
    page.goto(f"{demo.url}/accounts/login/")
    page.fill("input[name=login]", username)
    page.fill("input[name=password]", demo.people[username])
    page.press("input[name=password]", "Enter")
    expect(page.get_by_test_id("sidebar")).to_be_visible()
    return page


@pytest.fixture(scope="module")
def cookies(browser: Browser, demo: DemoPortal) -> "dict[str, object]":
    """Browser states of signed-in people, so that each test does not sign in again."""
    states: dict[str, object] = {}
    for username in ("olivia", "ada"):
        with browser.new_context() as context:
            sign_in(context, demo, username)
            states[username] = context.storage_state()
    return states


@pytest.fixture
def page(browser: Browser, cookies: "dict[str, object]") -> Iterator[Page]:
    """A page of ada, admin of the tenant vision, that fails the test on any error in the browser."""
    yield from faultless_page(browser, cookies["ada"])


@pytest.fixture
def operator_page(browser: Browser, cookies: "dict[str, object]") -> Iterator[Page]:
    """The same of olivia, an operator."""
    yield from faultless_page(browser, cookies["olivia"])


def faultless_page(browser: Browser, state: object) -> Iterator[Page]:
    problems: list[str] = []
    with browser.new_context(storage_state=state, viewport={"width": 1440, "height": 900}) as context:
        found = context.new_page()
        found.on("pageerror", lambda error: problems.append(str(error)))
        found.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        yield found
        # No fault of the page: the browser's own note of a refused form, htmx's of a request that a newer one replaced.
        notes = ("422", "htmx:sendAbort", "htmx:afterRequest")
        problems = [problem for problem in problems if not any(note in problem for note in notes)]
    assert not problems


@pytest.mark.parametrize("width", [1440, 390])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_page_opens_without_errors_and_fits_its_width(
    browser: Browser, demo: DemoPortal, cookies: "dict[str, object]", width: int, theme: str
) -> None:
    problems: list[str] = []
    with browser.new_context(
        storage_state=cookies["olivia"], viewport={"width": width, "height": 844}, color_scheme=theme
    ) as context:
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(f"{page.url}: {error}"))
        page.on("console", lambda message: message.type == "error" and problems.append(f"{page.url}: {message.text}"))
        for path in PAGES:
            answer = page.goto(demo.url + path)
            assert answer is not None and answer.status == 200, path
            expect(page.locator("h1").first).to_be_visible()
            wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            if wide > 0:
                problems.append(f"{path} is {wide} px wider than {width}")
    assert not problems


def test_run_is_drawn_as_a_graph_that_changes_while_it_runs(page: Page, demo: DemoPortal) -> None:
    page.goto(f"{demo.url}/workflows/1/")
    page.get_by_test_id("trigger").first.click()
    submit = page.get_by_test_id("trigger-submit")
    if submit.count():
        submit.first.click()
    expect(page).to_have_url(re.compile(r"/runs/\d+/"))
    graph = page.get_by_test_id("graph")
    expect(graph.locator(".dag__label", has_text="demand")).to_be_visible()
    # No reload: the socket's hints repaint it.
    expect(page.locator("h1 ~ *, h1").get_by_text("Succeeded").first).to_be_visible(timeout=60_000)
    expect(page.get_by_test_id("task-table").get_by_text("Succeeded")).to_have_count(4, timeout=15_000)


def test_job_from_the_form_shows_its_log_while_it_runs(page: Page, demo: DemoPortal) -> None:
    page.goto(f"{demo.url}/jobs/submit/")
    page.fill("[name=name]", "counting")
    page.fill("[name=script]", "for n in 1 2 3 4 5 6; do echo line-$n; sleep 0.5; done")
    page.get_by_test_id("job-form-submit").click()
    expect(page).to_have_url(re.compile(r"/jobs/\d+/"))
    log = page.get_by_test_id("log")
    expect(log.get_by_text("line-1")).to_be_visible(timeout=15_000)
    expect(page.get_by_text("Running").first).to_be_visible()
    expect(log.get_by_text("line-6")).to_be_visible(timeout=15_000)
    expect(page.get_by_test_id("timeline").get_by_text("Succeeded")).to_be_visible(timeout=15_000)


def test_a_wrong_form_says_what_is_wrong_beside_the_field(page: Page, demo: DemoPortal) -> None:
    page.goto(f"{demo.url}/jobs/submit/")
    page.fill("[name=name]", "too large")
    page.fill("[name=script]", "true")
    page.fill("[name=memory]", "900Ti")
    page.get_by_test_id("job-form-submit").click()
    expect(page.get_by_text("900 TiB").or_(page.get_by_text("memory", exact=False)).first).to_be_visible()
    assert page.url.endswith("/jobs/submit/")


def test_a_budget_is_made_used_raised_and_deleted(operator_page: Page, page: Page, demo: DemoPortal) -> None:
    operator, ada = operator_page, page
    operator.goto(f"{demo.url}/tenants/vision/")
    expect(operator.get_by_test_id("budgets").get_by_test_id("empty")).to_contain_text("No budget.")
    operator.get_by_test_id("new-budget").click()
    expect(operator.locator("[name=of]")).to_have_value("tenant:vision")
    operator.select_option("[name=kind]", "running:")
    operator.fill("[name=amount]", "-1")
    operator.get_by_test_id("new-budget-save").click()
    expect(operator.locator("#e-amount")).to_contain_text("a number from 0")
    operator.fill("[name=amount]", "1")
    operator.get_by_test_id("new-budget-save").click()
    expect(operator).to_have_url(f"{demo.url}/tenants/vision/")

    ada.goto(f"{demo.url}/tenants/vision/")
    row = ada.get_by_test_id("budget-table").get_by_role("row").nth(1)
    expect(row).to_contain_text("Jobs at once")
    expect(row.get_by_role("img")).to_have_accessible_name("0 of 1 used")
    with demo.client("ada") as api:
        body = {"tenant": "vision", "groups": [{"command": ["sleep", "60"]}]}
        first, second = (api.post("jobs", json=body).raise_for_status().json()["id"] for _ in range(2))
        # No reload: the socket's hints repaint the bar.
        expect(row.get_by_role("img")).to_have_accessible_name("1 of 1 used")
        expect(row).to_contain_text("none")
        ada.goto(f"{demo.url}/jobs/{second}/")
        expect(ada.get_by_text("The budget of tenant vision lets 1 job run at once.").first).to_be_visible()

        operator.get_by_role("link", name="Edit the budget of tenant vision").click()
        operator.fill("[name=amount]", "2")
        operator.get_by_test_id("budget-save").click()
        expect(ada.get_by_text("Running").first).to_be_visible()
        for job in (first, second):
            api.post(f"jobs/{job}/cancel", json={}).raise_for_status()
    operator.get_by_role("link", name="Edit the budget of tenant vision").click()
    operator.get_by_test_id("delete-budget").click()
    operator.get_by_role("button", name="Delete the budget").click()
    expect(operator.get_by_test_id("toasts").get_by_text("The budget of tenant vision is gone.")).to_be_visible()
    expect(operator.get_by_test_id("budgets").get_by_test_id("empty")).to_be_visible()


def test_a_quota_is_edited_with_its_use_beside_it(operator_page: Page, demo: DemoPortal) -> None:
    page = operator_page
    page.goto(f"{demo.url}/quotas/")
    page.get_by_test_id("edit-quota-vision").click()
    cards = page.locator('[name="nominal:default:gpu"]')
    use = page.get_by_role("group", name="default cpu")
    expect(cards).to_have_value("")
    expect(use.get_by_text("0 used", exact=False)).to_be_visible()

    # What is used changes while somebody types, and leaves alone what is typed.
    cards.fill("one and a half")
    with demo.client("ada") as client:
        spec = {"tenant": "vision", "groups": [{"script": "sleep 60", "resources": {"cpu": "300m"}}]}
        job = client.post("jobs", json={**spec, "name": "in-use"}).raise_for_status().json()
        expect(use.get_by_text("0.3 used", exact=False)).to_be_visible(timeout=10_000)
        client.post(f"jobs/{job['id']}/cancel", json={})
    expect(cards).to_have_value("one and a half")

    page.get_by_test_id("quota-save").click()
    said = "'one and a half' is not an amount of gpu; give cards such as 4 or 0.5."
    expect(page.get_by_role("alert")).to_have_text(said)
    expect(cards).to_have_value("one and a half")
    expect(cards).to_have_attribute("aria-invalid", "true")

    cards.fill("1.5")
    page.fill("[name=weight]", "2.5")
    page.get_by_test_id("quota-save").click()
    expect(page).to_have_url(f"{demo.url}/quotas/")
    expect(page.get_by_test_id("toasts").get_by_text("The quota of vision is saved.")).to_be_visible()
    page.get_by_test_id("edit-quota-vision").click()
    expect(cards).to_have_value("1.5")
    expect(page.locator("[name=weight]")).to_have_value("2.5")


def test_a_pool_shows_which_nodes_match_while_it_is_typed(operator_page: Page, demo: DemoPortal) -> None:
    page = operator_page
    page.goto(f"{demo.url}/pools/new/")
    count = page.get_by_test_id("preview-count")
    expect(count).to_have_text("1")
    page.fill("[name=labels]", "disk=nowhere")
    expect(count).to_have_text("0")
    page.fill("[name=labels]", "")
    expect(count).to_have_text("1")


def test_filters_stay_when_the_state_changes(page: Page, demo: DemoPortal) -> None:
    page.goto(f"{demo.url}/jobs/")
    words = page.get_by_label("Name or id of the job")
    words.fill("demand")
    page.locator("label.tab", has_text="Succeeded").click()  # Before the pause after typing is over.
    expect(page).to_have_url(re.compile(r"[?&]q=demand"))
    expect(page).to_have_url(re.compile(r"[?&]state=succeeded"))
    table = page.get_by_test_id("job-table")
    expect(table.get_by_text("gpu_trace.report")).to_have_count(0)
    expect(table.get_by_text("gpu_trace.demand[0]", exact=True).first).to_be_visible()
    page.evaluate("document.getElementById('job-list').dispatchEvent(new CustomEvent('live'))")
    expect(words).to_have_value("demand")
    expect(table.get_by_text("gpu_trace.report")).to_have_count(0)
    page.reload()
    expect(words).to_have_value("demand")
    expect(page.locator("label.tab", has_text="Succeeded").locator("input")).to_be_checked()


def test_queue_says_why_a_job_waits(page: Page, demo: DemoPortal) -> None:
    with demo.client("ada") as client:
        spec = {"tenant": "vision", "groups": [{"script": "sleep 30", "resources": {"cpu": "1"}}]}
        jobs = [client.post("jobs", json={**spec, "name": f"blocker-{n}"}).raise_for_status().json() for n in range(3)]
        page.goto(f"{demo.url}/queue/")
        row = page.get_by_test_id("queue-table").get_by_text("blocker-2").first
        expect(row).to_be_visible(timeout=10_000)
        expect(page.get_by_text("Waiting for").first).to_be_visible()
        for job in jobs:
            client.post(f"jobs/{job['id']}/cancel", json={})


def test_report_draws_its_figures_in_a_sandbox(page: Page, demo: DemoPortal) -> None:
    link = next(line.split()[-1] for line in demo.output if "/artifacts/" in line)
    page.goto(link)
    expect(page.locator(".js-plotly-plot").first).to_be_visible(timeout=20_000)
    assert page.evaluate("window.origin") == "null"


def test_a_stranger_gets_404(demo: DemoPortal, browser: Browser) -> None:
    with browser.new_context() as context:
        page = sign_in(context, demo, "tara")
        for path in ("/jobs/1/", "/runs/1/", "/workflows/1/", "/tenants/vision/"):
            answer = page.goto(demo.url + path)
            assert answer is not None and answer.status == 404, path


def test_every_page_asks_a_stranger_to_sign_in(demo: DemoPortal) -> None:
    with httpx.Client(base_url=demo.url, follow_redirects=False) as client:
        for path in PAGES:
            answer = client.get(path)
            assert answer.status_code == 302 and "/accounts/login/" in answer.headers["location"], path
