"""The fleet that is kept between cycles is the one that would be read anew."""

from random import Random

import numpy as np
import pytest
from django.utils import timezone

from apps.fleet.models import Gpu, Node
from apps.fleet.snapshot import load_fleet, present_fleet
from apps.fleet.states import NodeState
from apps.jobs.configuration import configuration
from engine.fleet import Fleet
from engine.placement import Request, feasibility
from tests.personas import World

pytestmark = pytest.mark.django_db

ARRAYS = ("ids", "cpu", "memory", "storage", "gpu_free", "tasks", "ready", "cpu_capacity", "trust", "gpu_model")


def same(one: Fleet, other: Fleet) -> bool:
    return one.names == other.names and all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ARRAYS)


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
