"""`manage.py prepare`: bring the database, the static files and the base world to where this version wants them."""

import hashlib
import secrets
from argparse import ArgumentParser
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.staticfiles.finders import get_finders
from django.core.management import call_command
from django.core.management.base import BaseCommand
from django.db import connection, transaction

from apps.core.actors import SYSTEM
from apps.core.locks import LockClass
from apps.fleet import commands as fleet
from apps.fleet.models import Cluster
from apps.quotas import commands as quotas
from apps.tenants import commands as tenants
from apps.tenants.models import Domain

MEBIBYTE = 2**20


class Command(BaseCommand):
    help = "Migrate, collect static files when they changed, and make the base world on first use."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--agent-token-file",
            type=Path,
            help="write a fresh one-time join token for the local node here",
        )

    def handle(self, *args: Any, agent_token_file: Path | None, **options: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock(%s, 0)", [int(LockClass.PREPARE)])
        call_command("migrate", interactive=False, verbosity=0)
        self._collect_static()
        self._base_world()
        if agent_token_file is not None:
            cluster = Cluster.objects.get(name="local")
            _, token = fleet.create_join_token(actor=SYSTEM, cluster=cluster, expires_in=timedelta(minutes=10))
            agent_token_file.touch(mode=0o600)
            agent_token_file.write_text(token + "\n")

    def _collect_static(self) -> None:
        """Run collectstatic unless sources and target are as they were; the stamp is over names, sizes and times."""
        state = hashlib.sha256()
        for finder in get_finders():
            for name, storage in finder.list([]):
                stat = Path(storage.path(name)).stat()
                state.update(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
        stamp = Path(settings.STATIC_ROOT) / ".collected"
        if not stamp.is_file() or stamp.read_text() != state.hexdigest():
            call_command("collectstatic", interactive=False, verbosity=0, clear=True)
            stamp.write_text(state.hexdigest())

    @transaction.atomic
    def _base_world(self) -> None:
        if get_user_model().objects.exists() or Domain.objects.exists():
            return
        domain = tenants.create_domain(actor=SYSTEM, slug="local", name="This machine")
        cluster = fleet.create_cluster(actor=SYSTEM, domain=domain, name="local", kind="agents")
        fleet.create_contribution(actor=SYSTEM, cluster=cluster, share_percent=100, trust=1)
        pool = fleet.create_pool(actor=SYSTEM, name="default", description="Every contributed node.", query={})
        fleet.create_flavor(actor=SYSTEM, pool=pool, name="default", match={}, position=0)
        tenant = tenants.create_tenant(actor=SYSTEM, domain=domain, slug="main", name="Main")
        root = quotas.create_quota_node(actor=SYSTEM, name="everyone", parent=None)
        leaf = quotas.create_quota_node(actor=SYSTEM, name="main", parent=root, tenant=tenant)
        quotas.set_limits(actor=SYSTEM, node_id=leaf.pk, limits=machine_limits())
        password = secrets.token_urlsafe(12)
        tenants.create_user(actor=SYSTEM, username="admin", password=password)
        tenants.add_member(actor=SYSTEM, username="admin", role="operator")
        tenants.add_member(actor=SYSTEM, username="admin", role="admin", tenant=tenant)
        self.stdout.write(f"operator account: admin   password: {password}   (shown this once)")


def machine_limits(share: float = 1.0) -> list[dict[str, Any]]:
    """A nominal quota of `share` of this machine in the default flavor; of cards nothing, as none is known yet.

    Bytes are whole mebibytes, so that people can read and edit them.
    """
    amounts = {
        "cpu": (psutil.cpu_count() or 1) * 1000,
        "memory": psutil.virtual_memory().total,
        "storage": psutil.disk_usage(str(settings.DATA if settings.DATA.exists() else "/")).total,
    }
    units = {"cpu": 1, "memory": MEBIBYTE, "storage": MEBIBYTE}
    return [
        {"flavor": "default", "resource": name, "nominal": int(amount * share) // units[name] * units[name]}
        for name, amount in amounts.items()
    ]
