"""`./portal bench lists`: how long list pages take when there is a lot to list.

Fills a fresh portal with jobs, events, runs and nodes by SQL, then asks for each list of the API and each page of the
console, as an operator and as a member of one tenant: times over HTTP by one client, and the number of queries.

    ./portal bench lists [--jobs 1000000 --events 1000000 --runs 200000 --nodes 1000 --repeats 30 --only jobs?name]
"""

import argparse
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from .common import Portal, finish, machine, spread
from .history import copy

TENANTS = 20
WORKFLOWS = 40
DAYS = 30
# Above the keys in use.
BASE = 1_000_000_000
# No request is repeated for longer than this.
SECONDS_MAX = 6.0
PASSWORD = "benchmark-password-1"


def by(value: str, *shares: tuple[str, float], last: str) -> str:
    """SQL that gives each text to its share of the rows, in a pattern that no other column follows."""
    place, cases = 0.0, []
    for text, share in shares:
        place += share
        cases.append(f"WHEN hashint8({value}) & 1048575 < {round(place * 1048576)} THEN '{text}'")
    return f"CASE {' '.join(cases)} ELSE '{last}' END"


def moment(count: int) -> str:
    """SQL of a time that grows with the row, evenly over the last days."""
    return f"now() - interval '{DAYS} days' * (1 - (g.n - {BASE})::float8 / {count})"


class Filling:
    """Inserts the rows; what it makes is made up but for one real job, workflow and run, which are its patterns."""

    def __init__(self, portal: Portal) -> None:
        self.portal = portal
        self.rows: dict[str, int] = {}
        self.tenants = self._tenants()
        self.tenant_of = f"(ARRAY{[tenant.pk for tenant in self.tenants]})[1 + g.n % {TENANTS}]"

    def _tenants(self) -> list[Any]:
        from apps.core.actors import SYSTEM
        from apps.tenants import commands
        from apps.tenants.models import Domain

        domain = Domain.objects.get(slug="local")
        found = [commands.create_tenant(actor=SYSTEM, domain=domain, slug=f"t{n:02d}") for n in range(TENANTS)]
        commands.create_user(actor=SYSTEM, username="member", password=PASSWORD)
        commands.add_member(actor=SYSTEM, username="member", role="member", tenant=found[3])
        return found

    def insert(self, sql: str) -> None:
        from django.db import connection

        with connection.cursor() as cursor:
            cursor.execute("SET session_replication_role = replica")  # The rows are consistent.
            cursor.execute(sql)
            cursor.execute("SET session_replication_role = DEFAULT")

    def copies(self, model: Any, template: int, count: int, overrides: dict[str, str]) -> None:
        every = f"generate_series({BASE}, {BASE + count - 1}) AS g(n)"
        self.insert(copy(model, template, every, {"id": "g.n", **overrides}))
        self.rows[model.__name__.lower()] = count

    def jobs(self, count: int) -> None:
        """Ended jobs but for the newest: two in a hundred are pending (and held, so that nobody places them)."""
        from apps.jobs.models import Job

        job = self.portal.call("POST", "jobs", json={"tenant": "main", "groups": [{"script": "true"}]})
        pending, running = BASE + count - count // 50, BASE + count - count // 50 - count // 500
        ended = by("g.n", ("failed", 0.05), ("cancelled", 0.0005), last="succeeded")
        waits = by("g.n + 7", ("waiting_for_quota", 0.3), ("no_node_matches", 0.1), last="waiting_for_capacity")
        at = moment(count)
        self.copies(
            Job,
            job["id"],
            count,
            {
                "tenant_id": self.tenant_of,
                "name": "'train-' || hashint4((g.n % 5000)::int) % 500 || '-' || g.n % 100",
                "origin": f"CASE WHEN g.n % 5 = 0 THEN 'run:' || {BASE} + (g.n - {BASE}) / 5 ELSE '' END",
                "pool": by("g.n + 3", ("default", 0.9), last="gpu"),
                "priority": "(g.n % 7)::int",
                "state": f"CASE WHEN g.n >= {pending} THEN 'pending' WHEN g.n >= {running} THEN 'running' "
                f"ELSE {ended} END",
                "held": f"g.n >= {pending}",
                "reason": f"CASE WHEN g.n >= {pending} THEN {waits} ELSE '' END",
                "detail": f"CASE WHEN g.n >= {pending} THEN 'Waits, as long as others have it all.' ELSE '' END",
                "submitted_at": at,
                "started_at": f"CASE WHEN g.n < {pending} THEN {at} + interval '1 s' END",
                "ended_at": f"CASE WHEN g.n < {running} THEN {at} + interval '60 s' END",
            },
        )

    def events(self, count: int) -> None:
        """What jobs, agents and people do, in the order of time; one in ten thousand is by a person of whom there is
        little."""
        from apps.events.models import Event

        template = Event.objects.order_by("-id")[0]
        verbs = (("job.granted", 0.24), ("job.started", 0.24), ("job.succeeded", 0.22), ("job.failed", 0.02))
        self.copies(
            Event,
            template.pk,
            count,
            {
                "at": moment(count),
                "tenant_id": f"CASE WHEN g.n % 50 = 0 THEN NULL ELSE {self.tenant_of} END",
                "actor": f"CASE WHEN g.n % 10007 = 0 THEN 'user:seldom' "
                f"WHEN g.n < {BASE} + {count} / 2 AND g.n % 100003 = 1 THEN 'user:gone' ELSE "
                f"{by('g.n', ('system', 0.5), ('agent:node-1', 0.3), last='user:alice')} END",
                "subject_id": f"{BASE} + (g.n - {BASE}) / 4",
                "subject_type": "'job'",
                "verb": by("g.n + 1", *verbs, ("quota.limits_set", 0.0001), last="job.submitted"),
            },
        )

    def runs(self, count: int) -> None:
        """Runs of some workflows of each tenant, each with one task."""
        from apps.workflows.models import Run, Task, Workflow, WorkflowVersion

        task = {"id": "a", "kind": "bash", "script": "true"}
        definition = {"schema": 1, "name": "pattern", "tasks": [task]}
        run = self.portal.run(self.portal.push(definition))
        workflow = Workflow.objects.get(name="pattern")
        named = {"tenant_id": self.tenant_of, "name": "'etl-' || g.n", "current_id": "g.n"}
        self.copies(Workflow, workflow.pk, WORKFLOWS, named)
        self.copies(WorkflowVersion, workflow.current_id, WORKFLOWS, {"workflow_id": "g.n", "digest": "md5(g.n::text)"})
        # WORKFLOWS is a multiple of TENANTS, so a run has the tenant of its workflow.
        of_workflow = f"{BASE} + (g.n - {BASE}) % {WORKFLOWS}"
        state = by("g.n", ("failed", 0.05), ("cancelled", 0.0005), last="succeeded")
        at = moment(count)
        self.copies(
            Run,
            run["id"],
            count,
            {
                "tenant_id": self.tenant_of,
                "workflow_id": of_workflow,
                "version_id": of_workflow,
                "state": state,
                "logical_time": at,
                "created_at": at,
                "started_at": f"{at} + interval '1 s'",
                "ended_at": f"{at} + interval '60 s'",
            },
        )
        template = Task.objects.get(run_id=run["id"])
        self.copies(Task, template.pk, count, {"run_id": "g.n", "job_id": "NULL", "state": "'succeeded'"})

    def nodes(self, count: int) -> None:
        """Machines that were heard of as far in the future as clocks may differ, so that they are not lost soon."""
        from apps.fleet.models import Node

        template = Node.objects.order_by("id")[0]
        self.copies(
            Node, template.pk, count, {"name": "'node-' || g.n", "last_seen_at": "now() + interval '9 minutes'"}
        )

    def analyse(self) -> None:
        from django.db import connection

        with connection.cursor() as cursor:
            cursor.execute("VACUUM ANALYZE")

    def sizes(self) -> dict[str, float]:
        """The size in GiB of the largest tables with their indexes."""
        from django.db import connection

        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT relname, pg_total_relation_size(oid) FROM pg_class WHERE relkind = 'r' ORDER BY 2 DESC LIMIT 4"
            )
            return {name: round(size / 2**30, 2) for name, size in cursor.fetchall()}


def api_lists(counts: dict[str, int]) -> list[str]:
    """Addresses below /api/v1/: each list, from its beginning, from its middle, and by each filter."""
    middle = _cursor(BASE + counts["jobs"] // 2)
    middle_events = _cursor(BASE + counts["events"] // 2)
    return [
        "jobs", f"jobs?cursor={middle}", "jobs?ordering=id", "jobs?limit=200",
        *(f"jobs?state={state}" for state in ("pending", "running", "succeeded", "failed", "cancelled")),
        "jobs?state=failed&state=cancelled", "jobs?tenant=t03", "jobs?tenant=t03&state=failed",
        "jobs?tenant=t03&state=cancelled", "jobs?name=train", "jobs?name=train-77-7", "jobs?name=nothing-like-it",
        f"jobs?name=nothing-like-it&cursor={middle}", f"events?actor=user:gone&cursor={middle_events}",
        "jobs?name=train-77-7&tenant=t03", "jobs?tenant=main", "jobs?owner=admin", "jobs?owner=member",
        "jobs?pool=gpu", "jobs?pool=none",
        "jobs?reason=no_node_matches", "jobs?reason=no_pool", f"jobs?origin=run:{BASE + 17}", "jobs?held=true",
        "runs", "runs?ordering=id", "runs?state=running", "runs?state=failed", "runs?state=cancelled",
        "runs?tenant=t03", "runs?tenant=t03&state=cancelled", f"runs?workflow={BASE + 3}", "runs?trigger=schedule",
        "events", f"events?cursor={middle_events}", "events?verb=job.failed", "events?verb=quota.limits_set",
        "events?verb=job.*", "events?verb=quota.*", "events?verb=node.*", f"events?subject=job:{BASE + 5}",
        "events?subject=job", "events?subject=node", "events?actor=system", "events?actor=user:seldom",
        "events?actor=user:gone", "events?actor=user:nobody", "events?after={recent}", "events?before={early}",
        "events?after={early}&before={less_early}", "events?after={early}&before={less_early}&ordering=id",
        "events?after={early}&before={less_early}&actor=user:nobody", "events?after={recent}&actor=user:nobody",
        "events?settled=true&ordering=id", "workflows", "nodes",
    ]  # fmt: skip


def console_pages() -> list[str]:
    """Addresses of the console."""
    return [
        "", "jobs/", "jobs/?state=failed", "jobs/?state=cancelled", "jobs/?q=train-77-7", "jobs/?q=nothing-like-it",
        "jobs/?owner=me", "jobs/?origin=people", "queue/", "queue/?reason=no_node_matches", "runs/",
        "runs/?state=cancelled", "runs/?q=etl", "runs/?q=nothing-like-it", "workflows/", "events/",
        "events/?actor=user:seldom", "events/?actor=user:nobody", "events/?verb=quota.*", "nodes/", "quotas/",
        "tenants/",
    ]  # fmt: skip


def _cursor(pk: int) -> str:
    import base64

    return base64.urlsafe_b64encode(f"a{pk}".encode()).decode().rstrip("=")


def _times() -> dict[str, str]:
    """Moments that the filters by time name: a minute of long ago, and an hour that is nearly now."""
    from datetime import timedelta

    from django.utils import timezone

    now = timezone.now()
    early = now - timedelta(days=DAYS * 0.9)
    moments = {"recent": now - timedelta(hours=1), "early": early, "less_early": early + timedelta(minutes=1)}
    return {name: f"{at:%Y-%m-%dT%H:%M:%SZ}" for name, at in moments.items()}


class Visitor:
    """One person's client of the running portal, and of the same code in this process to count its queries."""

    def __init__(self, username: str) -> None:
        from django.conf import settings
        from django.contrib.auth import get_user_model
        from django.test import Client

        user = get_user_model().objects.get(username=username)
        self.inside = Client(headers={"host": httpx.URL(os.environ["RMCTL_URL"]).netloc.decode()})
        self.inside.force_login(user, backend=settings.AUTHENTICATION_BACKENDS[0])
        session = self.inside.cookies[settings.SESSION_COOKIE_NAME].value
        self.outside = httpx.Client(
            base_url=os.environ["RMCTL_URL"], cookies={settings.SESSION_COOKIE_NAME: session}, timeout=120
        )

    def measure(self, path: str, repeats: int) -> dict[str, Any]:
        """Times in milliseconds of one address after a first look, what its queries take at best, and its size.

        On a busy machine the shortest time and that of the queries say more than the median.
        """
        first = time.perf_counter()
        answer = self.outside.get(path)
        first = time.perf_counter() - first
        if answer.status_code != 200:
            raise RuntimeError(f"{path}: {answer.status_code} {answer.text[:500]}")
        times: list[float] = []
        while len(times) < repeats and sum(times) < SECONDS_MAX:
            began = time.perf_counter()
            self.outside.get(path)
            times.append(time.perf_counter() - began)
        in_queries = []
        for _ in range(3):
            with _counted() as queries:
                self.inside.get(path)
            in_queries.append(sum(float(query["time"]) for query in queries))
        return {
            **spread(times),
            "shortest": round(min(times) * 1000, 1),
            "first": round(first * 1000, 1),
            "queries": len(queries),
            "queries_ms": round(min(in_queries) * 1000),
            "kib": round(len(answer.content) / 1024, 1),
        }


@contextmanager
def _counted() -> Iterator[Any]:
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    with CaptureQueriesContext(connection) as queries:
        yield queries


def measure(paths: list[str], only: str, repeats: int) -> dict[str, Any]:
    """Each address as each person."""
    found: dict[str, Any] = {}
    for username in ("admin", "member"):
        visitor = Visitor(username)
        role = "operator" if username == "admin" else "member"
        for path in paths:
            if only in path:
                found[f"{role} {path}"] = visitor.measure(path, repeats)
    return found


def summary(found: dict[str, Any]) -> dict[str, Any]:
    """The slowest by median and by 95th percentile."""
    if not found:
        return {}
    return {
        figure: {"value": found[name][figure], "of": name}
        for figure in ("p50", "p95", "shortest", "queries_ms")
        for name in [max(found, key=lambda one, figure=figure: found[one][figure])]
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, count in (("jobs", 1_000_000), ("events", 1_000_000), ("runs", 200_000), ("nodes", 1000)):
        parser.add_argument(f"--{name}", type=int, default=count)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--only", default="", help="measure only addresses that contain this")
    options = parser.parse_args()
    counts = {name: getattr(options, name) for name in ("jobs", "events", "runs", "nodes")}
    portal = Portal()
    portal.wait_for_node()
    began = time.monotonic()
    filling = Filling(portal)
    filling.jobs(counts["jobs"])
    filling.runs(counts["runs"])
    filling.events(counts["events"])
    filling.nodes(counts["nodes"])
    filling.analyse()
    filled = round(time.monotonic() - began, 1)
    times = _times()
    lists = measure([f"/api/v1/{path.format(**times)}" for path in api_lists(counts)], options.only, options.repeats)
    pages = measure([f"/{path}" for path in console_pages()], options.only, options.repeats)
    finish(
        {
            "benchmark": "lists",
            "machine": machine(),
            "load": round(os.getloadavg()[1], 1),
            "rows": filling.rows,
            "fill_seconds": filled,
            "gib": filling.sizes(),
            "api": lists,
            "console": pages,
            "slowest_api": summary(lists),
            "slowest_console": summary(pages),
        }
    )


if __name__ == "__main__":
    main()
