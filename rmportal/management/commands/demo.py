"""`manage.py demo`: the demo world, and its real workflow."""

import json
import os
import secrets
import subprocess
import sys
import time
from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand
from django.db import transaction
from django.utils import timezone

from apps.core.actors import SYSTEM
from apps.fleet import commands as fleet
from apps.fleet.models import Cluster
from apps.quotas import commands as quotas
from apps.quotas.models import QuotaNode
from apps.tenants import commands as tenants
from apps.tenants.actors import actor_for
from apps.tenants.models import Domain, Tenant

from .prepare import machine_limits

# (user, role, tenant or domain): one person for each role.
PEOPLE = (
    ("olivia", "operator", None),
    ("pavel", "provider", "north-lab"),
    ("ada", "admin", "vision"),
    ("mia", "member", "vision"),
    ("gus", "member", "genomics"),
    ("tara", "member", "triage"),
    ("otto", "auditor", None),
)
# (tenant, name, domain, share of this machine as nominal quota, borrowing limit as a share)
TENANTS = (
    ("vision", "Vision group", "north-lab", 0.5, 0.5),
    ("genomics", "Genomics group", "north-lab", 0.3, 0.2),
    ("triage", "Triage service", "city-clinic", 0.2, None),
)
WORKFLOW = "gpu_trace"


class Command(BaseCommand):
    help = "Make the demo world unless it is there, and run its workflow on the public GPU trace."
    requires_system_checks: Any = []  # The servers that are running have passed them.

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--url", default=settings.PORTAL_URL, help="where the portal answers")

    def handle(self, *args: Any, url: str, **options: Any) -> None:
        self._world()
        sys.exit(self._run(url))

    @transaction.atomic
    def _world(self) -> None:
        if Domain.objects.filter(slug="north-lab").exists():
            return
        domains = {
            slug: tenants.create_domain(actor=SYSTEM, slug=slug, name=name)
            for slug, name in (("north-lab", "North Lab"), ("city-clinic", "City Clinic"))
        }
        # The local node is lent by the first domain to both.
        cluster = Cluster.objects.get(name="local")
        fleet.update_cluster(actor=SYSTEM, cluster_id=cluster.pk, domain=domains["north-lab"])
        root = QuotaNode.objects.get(name="everyone")
        quotas.set_limits(actor=SYSTEM, node_id=QuotaNode.objects.get(name="main").pk, limits=[])
        cohorts = {
            slug: quotas.create_quota_node(actor=SYSTEM, name=f"{slug}-share", parent=root) for slug in domains
        }
        for slug, name, domain, share, borrowing in TENANTS:
            tenant = tenants.create_tenant(actor=SYSTEM, domain=domains[domain], slug=slug, name=name)
            leaf = quotas.create_quota_node(actor=SYSTEM, name=slug, parent=cohorts[domain], tenant=tenant)
            limits = machine_limits(share)
            if borrowing is not None:
                for limit, borrowed in zip(limits, machine_limits(borrowing), strict=True):
                    limit["borrowing_limit"] = borrowed["nominal"]
            quotas.set_limits(actor=SYSTEM, node_id=leaf.pk, limits=limits)
        self.stdout.write("people of the demo world (passwords are shown this once):")
        for username, role, where in PEOPLE:
            password = secrets.token_urlsafe(12)
            tenants.create_user(actor=SYSTEM, username=username, password=password)
            tenants.add_member(
                actor=SYSTEM,
                username=username,
                role=role,
                tenant=Tenant.objects.filter(slug=where).first() if role != "provider" else None,
                domain=domains[where] if role == "provider" and where else None,
            )
            place = f" of {where}" if where else ""
            self.stdout.write(f"  {username:<8} {password}   {role}{place}")

    def _run(self, url: str) -> int:
        """Push and run the example as its author would, with rmctl and a token of a tenant member."""
        began = time.monotonic()
        user = get_user_model().objects.get(username="mia")
        actor = actor_for(user)
        row, token = tenants.create_token(
            actor=actor, name="demo run", scopes=["write"], expires_at=timezone.now() + timedelta(hours=1)
        )
        environment = {**os.environ, "RMCTL_URL": url, "RMCTL_TOKEN": token}
        rmctl = [sys.executable, "-m", "rmctl"]
        example = settings.BASE_DIR / "examples" / "gpu_trace.py"
        try:
            pushed = subprocess.run([*rmctl, "push", str(example), "--tenant", "vision"], env=environment, check=False)
            if pushed.returncode:
                return pushed.returncode
            done = subprocess.run(
                [*rmctl, "trigger", WORKFLOW, "--tenant", "vision", "--wait"], env=environment, check=False
            )
            links = self._links(rmctl, environment, url)
        finally:
            tenants.revoke_token(actor=actor, token_id=row.pk)
        for title, link in links:
            self.stdout.write(f"  {title:<10} {link}")
        verdict = "finished" if done.returncode == 0 else "failed"
        self.stdout.write(f"demo run {verdict} in {time.monotonic() - began:.1f} s")
        return done.returncode

    @staticmethod
    def _links(rmctl: list[str], environment: dict[str, str], url: str) -> list[tuple[str, str]]:
        """Where the run and its report are to be seen."""
        listed = subprocess.run(
            [*rmctl, "list", "runs", "--limit", "1", "--json"], env=environment, capture_output=True, check=False
        )
        links = [("console", f"{url}/")]
        try:
            run = json.loads(listed.stdout)[0]
        except (ValueError, LookupError):
            return links
        links.append(("run", f"{url}/runs/{run['id']}/"))
        from apps.execution.models import Artifact

        report = Artifact.objects.filter(
            placement__attempt__job__task__run_id=run["id"], name__endswith="report.html"
        ).first()
        if report is not None:
            links.append(("report", f"{url}/artifacts/{report.pk}/"))
        return links
