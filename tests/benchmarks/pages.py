"""`./portal bench pages`: how soon the largest workflows, runs and logs are seen in a real browser.

Fills a fresh portal with a workflow of 10,000 runs, whose newest has a task of 10,000 instances, a run of 10,000 tasks
and a log of 1 GiB, and opens their pages in Chromium: each with an empty cache, then once more. `drawn` is from the
beginning of the navigation to the task after the frame that shows the graph, the grid, the timeline or the log
(static/js/drawn.js); the parts say where that went. A page of the same kind of a workflow of six tasks, opened in turn
with the others, says what the machine does today: on a busy one `of_small` says more than milliseconds.

    ./portal bench pages [--runs 10000 --tasks 10000 --log 1073741824 --visits 7 --only graph]
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .common import Portal, finish, machine, spread

TARGET_MS = 2000
SMALL_RUNS = 20
TIMEOUT_MS = 60_000
# What a page is timed by, read in the page itself once it is drawn. Times in ms, sizes in bytes as they came.
_READ = """
async ([name, data]) => {
  const drawn = await new Promise((told, refused) => {
    setTimeout(() => refused(new Error(`${name} was not drawn in time`)), LIMIT);
    new PerformanceObserver((list) => {
      for (const mark of list.getEntriesByName(`${name}:drawn`)) told(mark.startTime);
    }).observe({ type: "mark", buffered: true });
  });
  const [page] = performance.getEntriesByType("navigation");
  const read = performance.getEntriesByType("resource").find((entry) => new URL(entry.name).pathname.endsWith(data));
  const others = performance.getEntriesByType("resource");
  return {
    drawn, page_server: page.responseStart - page.requestStart, page_bytes: page.transferSize,
    ready: page.domContentLoadedEventEnd, data_begins: read.requestStart,
    data_server: read.responseStart - read.requestStart, data_bytes: read.transferSize,
    drawing: drawn - read.responseEnd, elements: document.querySelectorAll("*").length,
    bytes: page.transferSize + others.reduce((sum, entry) => sum + entry.transferSize, 0),
  };
}
"""
_METRICS = {"ScriptDuration": "script", "LayoutDuration": "layout", "RecalcStyleDuration": "style"}


@dataclass(frozen=True, slots=True)
class Sight:
    """A page, the mark that it is drawn, a part of the address of what it draws, and the small page of its kind."""

    path: str
    mark: str
    data: str
    small: str = ""


def definitions(portal: Portal) -> tuple[Callable[..., Any], Any]:
    """large.pushed for the tenant of the benchmark, and its actor."""
    from apps.core.actors import SYSTEM
    from apps.tenants.models import Tenant
    from tests.console import large

    tenant = Tenant.objects.get(slug=portal.tenant)
    return (lambda definition: large.pushed(SYSTEM, tenant, definition)), tenant


def fill(portal: Portal, runs: int, tasks: int, log: int) -> dict[str, Sight]:
    """Write the rows and the log; returns the pages to open, the small ones first."""
    from django.db import connection

    from apps.workflows.models import Run
    from tests.console import large

    push, _ = definitions(portal)
    small = push(large.small_definition("small"))
    small_run = large.make_runs(small, SMALL_RUNS)[-1]
    nightly = push(large.small_definition("nightly"))
    newest = large.make_runs(nightly, runs)[-1]
    large.expand(Run.objects.get(pk=newest), "check", tasks, ended=True)
    wide = push(large.layered_definition("wide", tasks))
    wide_run = large.make_runs(wide, 2)[-1]
    jobs = [logged(portal, size) for size in (64 * 1024, log)]
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")
    return {
        "small grid": Sight(f"/workflows/{small.pk}/", "grid", "/grid"),
        "small graph": Sight(f"/runs/{small_run}/", "graph", "/graph"),
        "small timeline": Sight(f"/runs/{small_run}/gantt/", "gantt", "/gantt"),
        "small log": Sight(f"/jobs/{jobs[0]}/", "log", "/logs"),
        "grid of many runs": Sight(f"/workflows/{nightly.pk}/", "grid", "/grid", "small grid"),
        "grid of many tasks": Sight(f"/workflows/{wide.pk}/", "grid", "/grid", "small grid"),
        "graph of a workflow of many tasks": Sight(f"/workflows/{wide.pk}/", "graph", "/graph", "small graph"),
        "graph of many tasks": Sight(f"/runs/{wide_run}/", "graph", "/graph", "small graph"),
        "graph of many instances": Sight(f"/runs/{newest}/?task=check", "graph", "/graph", "small graph"),
        "timeline of many tasks": Sight(f"/runs/{wide_run}/gantt/", "gantt", "/gantt", "small timeline"),
        "log": Sight(f"/jobs/{jobs[1]}/", "log", "/logs", "small log"),
    }


def logged(portal: Portal, size: int) -> int:
    """A job that really ran, with so many bytes of log; returns its id."""
    from apps.execution.commands import append_log
    from apps.jobs.models import Placement
    from rmctl.agent.protocol import MAX_LOG_CHUNK_BYTES

    task = {"id": "train", "kind": "bash", "script": "true", "upstream": []}
    run = portal.run(portal.push({"schema": 1, "name": f"log_{size}", "tasks": [task]}))
    from apps.workflows.models import Task

    job = Task.objects.get(run=run["id"], name="train").job_id
    placement = Placement.objects.select_related("attempt").get(attempt__job=job)
    lines = "".join(
        f"\033[2m12:00:{n % 60:02d}\033[0m \033[32mINFO\033[0m step {n} loss={1 / (n + 1):.6f} rate=1893.4/s\n"
        for n in range(8000)
    )
    piece = lines.encode()[:MAX_LOG_CHUNK_BYTES]
    offset = placement.log_size
    assert placement.node_id is not None and job is not None
    while offset < size:
        offset = append_log(
            node_id=placement.node_id, placement_id=placement.pk, token=placement.attempt.token,
            offset=offset, data=piece[: size - offset],
        )  # fmt: skip
    return job


def cookie() -> dict[str, str]:
    """The session of an operator who has signed in, as a browser keeps it."""
    from django.conf import settings
    from django.contrib.auth import get_user_model
    from django.test import Client

    client = Client()
    user = get_user_model().objects.get(username="admin")
    client.force_login(user, backend=settings.AUTHENTICATION_BACKENDS[0])
    name = settings.SESSION_COOKIE_NAME
    return {"name": name, "value": client.cookies[name].value, "url": os.environ["RMCTL_URL"]}


class Visitor:
    """Opens pages in a real browser."""

    def __init__(self, browser: Any, session: dict[str, str]) -> None:
        self.browser = browser
        self.session = session
        self.url = os.environ["RMCTL_URL"]

    def visit(self, sight: Sight) -> list[dict[str, float]]:
        """What a first visit took, and a second with what the browser has kept."""
        with self.browser.new_context(viewport={"width": 1440, "height": 900}) as context:
            context.add_cookies([self.session])
            return [self._open(context, sight) for _ in range(2)]

    def _open(self, context: Any, sight: Sight) -> dict[str, float]:
        page = context.new_page()
        try:
            protocol = context.new_cdp_session(page)
            protocol.send("Performance.enable")
            page.set_default_timeout(TIMEOUT_MS)
            page.goto(self.url + sight.path, wait_until="commit")
            found: dict[str, float] = page.evaluate(_READ.replace("LIMIT", str(TIMEOUT_MS)), [sight.mark, sight.data])
            for metric in protocol.send("Performance.getMetrics")["metrics"]:
                if metric["name"] in _METRICS:
                    found[_METRICS[metric["name"]]] = metric["value"] * 1000
            return found
        finally:
            page.close()


def measure(sights: dict[str, Sight], visits: int) -> dict[str, Any]:
    """Each page in turn, so many times; times in milliseconds."""
    from playwright.sync_api import sync_playwright

    from deploy.local.checks import chromium

    session = cookie()  # Where Playwright runs Django would not read.
    taken: dict[str, list[list[dict[str, float]]]] = {name: [] for name in sights}
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-quic"]
        browser = playwright.chromium.launch(executable_path=chromium(), args=arguments)
        visitor = Visitor(browser, session)
        visitor.visit(next(iter(sights.values())))  # The browser's own start is not the portal's.
        for _ in range(visits):
            for name, sight in sights.items():
                taken[name].append(visitor.visit(sight))
        browser.close()
    found = {name: _told(visited) for name, visited in taken.items()}
    for name, sight in sights.items():
        if sight.small in found:
            found[name]["of_small"] = round(found[name]["again"]["p50"] / found[sight.small]["again"]["p50"], 2)
    return found


def _told(visited: list[list[dict[str, float]]]) -> dict[str, Any]:
    """Medians of one page's visits."""
    first, again = ([visit[place] for visit in visited] for place in (0, 1))
    parts = {part: statistics.median(visit[part] for visit in again) for part in again[0] if part != "drawn"}
    return {
        "first": _spread(first),
        "again": _spread(again),
        "parts": {name: round(value) for name, value in parts.items()},
    }


def _spread(visits: list[dict[str, float]]) -> dict[str, float]:
    """When it was drawn, in ms; on a busy machine the least says more than the median."""
    drawn = [visit["drawn"] for visit in visits]
    return {"least": round(min(drawn), 1), **spread(drawn, unit=1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, count in (("runs", 10_000), ("tasks", 10_000), ("log", 1 << 30), ("visits", 7)):
        parser.add_argument(f"--{name}", type=int, default=count)
    parser.add_argument("--only", default="", help="measure only pages whose name contains this, beside the small ones")
    options = parser.parse_args()
    portal = Portal()
    portal.wait_for_node()
    began = time.monotonic()
    sights = fill(portal, options.runs, options.tasks, options.log)
    filled = round(time.monotonic() - began, 1)
    chosen = {name: sight for name, sight in sights.items() if not sight.small or options.only in name}
    pages = measure(chosen, options.visits)
    slowest = max((name for name in pages), key=lambda name: pages[name]["first"]["p50"])
    finish(
        {
            "benchmark": "pages",
            "machine": machine(),
            "load": round(os.getloadavg()[0], 1),
            "target_ms": TARGET_MS,
            "fill_seconds": filled,
            "pages": pages,
            "slowest": {"of": slowest, "first_p50": pages[slowest]["first"]["p50"]},
        }
    )


if __name__ == "__main__":
    main()
