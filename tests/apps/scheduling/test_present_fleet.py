"""The fleet that is kept between cycles is the one that would be read anew."""

from random import Random

import numpy as np
import pytest
from django.utils import timezone

from apps.core.actors import SYSTEM
from apps.fleet.models import Gpu, Node
from apps.fleet.snapshot import load_fleet, present_fleet
from apps.fleet.states import NodeState
from apps.jobs.configuration import configuration
from apps.jobs.models import Job, Placement
from apps.quotas import commands as quotas
from apps.scheduling.lending import locked_terms, present_terms
from engine.fleet import Fleet
from engine.placement import Request, feasibility
from tests.personas import GIB, World, make_limits
from tests.work import cycle, members, report, simulated_cluster, simulated_node, submit

pytestmark = pytest.mark.django_db

ARRAYS = ("ids", "cpu", "memory", "storage", "gpu_free", "tasks", "ready", "cpu_capacity", "trust", "gpu_model")
TERMS = ("codes", "caps", "left")


def same_terms(one: Fleet, other: Fleet) -> bool:
    if one.terms is None or other.terms is None:
        return one.terms is other.terms
    arrays = all(np.array_equal(getattr(one.terms, name), getattr(other.terms, name)) for name in TERMS)
    return arrays and one.terms.lendings == other.terms.lendings


def same(one: Fleet, other: Fleet) -> bool:
    arrays = all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ARRAYS)
    return one.names == other.names and arrays and same_terms(one, other)


@pytest.mark.parametrize("seed", range(5))
def test_whatever_happens_the_kept_fleet_is_the_one_read_anew(world: World, seed: int) -> None:
    chance = Random(seed)
    for number in range(4):
        node = world.node(f"extra-{number}", world.cluster)
        Gpu.objects.create(node=node, index=0, uuid=f"u{number}", model="A100", memory_bytes=1 << 30)
        Gpu.objects.create(node=node, index=2, uuid=f"v{number}", model="A100", memory_bytes=1 << 30)
    request = Request(cpu=100, memory=1)
    for _ in range(12):
        node = chance.choice(list(Node.objects.order_by("pk")))
        node.allocated_cpu_millicores = chance.randint(0, 4000)
        node.allocated_memory_bytes = chance.randint(0, 1 << 30)
        node.running = chance.randint(0, 9)
        node.state = chance.choice([NodeState.READY, NodeState.READY, NodeState.CORDONED, NodeState.LOST])
        node.save()
        node.gpus.filter(index=chance.choice([0, 2])).update(allocated_milli=chance.choice([0, 300, 1000]))
        configured = configuration(timezone.now())
        kept, anew = present_fleet(configured.fleet), load_fleet(configured.lent)
        assert same(kept, anew)
        assert (feasibility(kept, [(request, 1)]) is None) == (feasibility(anew, [(request, 1)]) is None)


@pytest.mark.parametrize("seed", range(3))
def test_so_are_the_terms_of_lending_whatever_starts_and_ends(world: World, seed: int) -> None:
    chance = Random(seed)
    for quota in (world.vision_quota, world.speech_quota):
        limits = [*make_limits(), {"flavor": "cpu", "resource": "gpu", "nominal": 6000}]
        quotas.set_limits(actor=SYSTEM, node_id=quota.pk, limits=limits)
    cluster = simulated_cluster(world, cap_cpu_millicores=5000, cap_gpu_milli=1500)
    other = simulated_cluster(world, "other", windows=[{"days": ["mon"], "from": "00:00", "to": "12:00"}])
    for number in range(3):
        simulated_node(world, f"sim-{number}", cards=2, cluster=cluster)
    simulated_node(world, "sim-9", cluster=other)
    for _ in range(8):
        tenant = chance.choice([world.vision, world.speech])
        gpu = chance.choice([None, {"count": 1, "milli": 500}])
        submit(world, tenant=tenant, cpu=str(chance.randint(1, 2)), gpu=gpu)
        cycle()
        if chance.random() < 0.4:
            job = Job.objects.filter(state="granted").order_by("?").first()
            for member in members(job) if job is not None else ():
                report(member, "started", pid=1)
                report(member)
        now = timezone.now()
        configured = configuration(now)
        kept, anew = present_fleet(configured.fleet, present_terms(configured, now)), load_fleet(configured.lent)
        anew.terms = locked_terms(configured, anew.terms, list(configured.lent), now)
        assert same(kept, anew)
        assert kept.terms is not None
        live = Placement.objects.filter(attempt__state__in=["granted", "running"], node__cluster=cluster)
        theirs = live.filter(attempt__job__tenant=world.speech)
        cards = sum(milli for gpus in theirs.values_list("gpus", flat=True) for _, milli in gpus)
        cpu = sum(theirs.values_list("cpu_millicores", flat=True))
        assert kept.terms.left[0].tolist() == [5000 - cpu, kept.terms.caps[0, 1] - GIB * theirs.count(), 1500 - cards]
        assert kept.terms.left.min() >= 0
