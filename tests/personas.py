"""The people of the tests, and the small world that they live in.

Two domains, `alpha` and `beta`, with a tenant each: `vision` in alpha and `speech` in beta. Alpha owns the
cluster `alpha-agents` and lends it to everybody.
"""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractUser
from django.utils import timezone

from apps.core.actors import ANONYMOUS, SYSTEM, Actor
from apps.fleet import commands as fleet
from apps.fleet.models import Cluster, Flavor, Node, Pool
from apps.quotas import commands as quotas
from apps.quotas.models import QuotaNode
from apps.tenants import commands as tenants
from apps.tenants.actors import actor_for
from apps.tenants.models import Domain, Membership, Role, Tenant
from tests.replay import Replay

# Who they are; `stranger` is a member of the other tenant, `nobody` has signed in and has no role.
PERSONAS = ("operator", "provider", "admin", "member", "auditor", "stranger", "nobody", "anonymous")
GIB = 2**30
# One object of every kind, by the name that routes give to its key (`job_id`, `slug`, …).
Objects = dict[str, Any]


@dataclass
class World:
    """Everything that `make_world` made, by name."""

    alpha: Domain
    beta: Domain
    vision: Tenant
    speech: Tenant
    cluster: Cluster
    pool: Pool
    flavor: Flavor
    cohort: QuotaNode
    vision_quota: QuotaNode
    speech_quota: QuotaNode
    users: dict[str, AbstractUser] = field(default_factory=dict)
    tokens: dict[tuple[str, ...], str] = field(default_factory=dict)
    # Where a test asks for them.
    objects: Objects = field(default_factory=dict)

    def actor(self, persona: str) -> Actor:
        """The actor of a persona, with all roles as they are now."""
        if persona == "anonymous":
            return ANONYMOUS
        return actor_for(self.users[persona])

    def token(self, persona: str, *scopes: str) -> str | None:
        """An API token of the persona, made once; None for anonymous."""
        if persona == "anonymous":
            return None
        key = (persona, *(scopes or ("admin",)))
        if key not in self.tokens:
            _, token = tenants.create_token(actor=self.actor(persona), name="test", scopes=key[1:])
            self.tokens[key] = token
        return self.tokens[key]

    def node(self, name: str = "node-1", cluster: Cluster | None = None, **inventory: Any) -> Node:
        """A node that has joined with a real token and has just been heard of."""
        node, _ = self.join(name, cluster, **inventory)
        return node

    def join(self, name: str, cluster: Cluster | None = None, **inventory: Any) -> tuple[Node, str]:
        """The same, with its credential."""
        _, token = fleet.create_join_token(actor=SYSTEM, cluster=cluster or self.cluster)
        node, credential = fleet.join_node(token=token, name=name, inventory=make_inventory(**inventory))
        fleet.nodes_seen({node.pk: node.connection})
        node.refresh_from_db()
        return node, credential


def make_inventory(**changes: Any) -> dict[str, Any]:
    """What the agent of a machine with 8 cores, 32 GiB and no card would report."""
    return {
        "hostname": "machine",
        "os": "Linux 6.1",
        "arch": "x86_64",
        "python": "3.11.7",
        "cpu_millicores": 8000,
        "memory_bytes": 32 * GIB,
        "storage_bytes": 200 * GIB,
        **changes,
    }


def make_user(username: str, role: str | None = None, **where: Any) -> AbstractUser:
    """A person with at most one role; the password is the name with `-password-1`."""
    user = get_user_model().objects.create_user(username, password=f"{username}-password-1")
    if role is not None:
        Membership.objects.create(user=user, role=role, **where)
    return user


def make_world() -> World:
    """Build the world; every row comes from a command, as in production, except people's first roles."""
    alpha = tenants.create_domain(actor=SYSTEM, slug="alpha")
    beta = tenants.create_domain(actor=SYSTEM, slug="beta")
    vision = tenants.create_tenant(actor=SYSTEM, domain=alpha, slug="vision")
    speech = tenants.create_tenant(actor=SYSTEM, domain=beta, slug="speech")
    cluster = fleet.create_cluster(actor=SYSTEM, domain=alpha, name="alpha-agents", region="eu")
    fleet.create_contribution(actor=SYSTEM, cluster=cluster)
    pool = fleet.create_pool(actor=SYSTEM, name="default")
    flavor = fleet.create_flavor(actor=SYSTEM, pool=pool, name="cpu")
    cohort = quotas.create_quota_node(actor=SYSTEM, name="everybody")
    leaves = [
        quotas.create_quota_node(actor=SYSTEM, name=tenant.slug, parent=cohort, tenant=tenant)
        for tenant in (vision, speech)
    ]
    for leaf in leaves:
        quotas.set_limits(actor=SYSTEM, node_id=leaf.pk, limits=make_limits())
    users = {
        "operator": make_user("olga", Role.OPERATOR),
        "provider": make_user("paul", Role.PROVIDER, domain=alpha),
        "admin": make_user("ada", Role.ADMIN, tenant=vision),
        "member": make_user("max", Role.MEMBER, tenant=vision),
        "auditor": make_user("aude", Role.AUDITOR, tenant=vision),
        "stranger": make_user("sven", Role.MEMBER, tenant=speech),
        "nobody": make_user("nina"),
    }
    return World(alpha, beta, vision, speech, cluster, pool, flavor, cohort, *leaves, users=users)


# The same, made once in a process and then put back as rows.
kept_world = Replay(make_world)


def make_limits(cpu: int = 16_000, memory: int = 64 * GIB, storage: int = 400 * GIB) -> list[dict[str, Any]]:
    """Nominal quota of the flavor `cpu`."""
    amounts = {"cpu": cpu, "memory": memory, "storage": storage}
    return [{"flavor": "cpu", "resource": name, "nominal": amount} for name, amount in amounts.items()]


def soon(seconds: float) -> Any:
    """A time in the future (the past, if negative)."""
    return timezone.now() + timedelta(seconds=seconds)
