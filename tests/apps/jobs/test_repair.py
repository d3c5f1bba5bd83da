"""The sums beside the grants, in a database that was edited by hand."""

from django.db import connection
from django.test.utils import CaptureQueriesContext

from apps.core.actors import SYSTEM
from apps.events.models import Event
from apps.fleet.models import Gpu, Node
from apps.jobs.commands import repair
from apps.jobs.commands.grants import drift
from apps.quotas.commands import set_limits
from apps.quotas.models import QuotaUsage
from tests.personas import World
from tests.work import granted, simulated_node


def test_every_kind_of_sum_is_set_right_and_told_of_once(world: World) -> None:
    resources = ("cpu", "memory", "storage", "gpu")
    limits = [{"flavor": "cpu", "resource": name, "nominal": 10**12} for name in resources]
    set_limits(actor=SYSTEM, node_id=world.vision_quota.pk, limits=limits)
    node = simulated_node(world, cards=1)
    granted(world, gpu={"count": 1})
    assert drift() == []
    usage = QuotaUsage.objects.get(resource="cpu")
    used = usage.used
    Node.objects.filter(pk=node.pk).update(allocated_cpu_millicores=7, running=0)
    Gpu.objects.filter(node=node).update(allocated_milli=1)
    QuotaUsage.objects.filter(resource="memory").update(used=5)
    usage.delete()
    assert len(repair()) == 4
    assert drift() == [] and QuotaUsage.objects.get(resource="cpu").used == used > 0
    assert Event.objects.filter(verb="ledger.repaired").count() == 1


def test_nothing_is_locked_or_written_where_all_is_right(world: World) -> None:
    simulated_node(world)
    granted(world)
    with CaptureQueriesContext(connection) as asked:
        assert repair() == []
    assert len(asked) == 2 and all(query["sql"].startswith("SELECT") for query in asked)
    assert not any("FOR UPDATE" in query["sql"] or "lock" in query["sql"] for query in asked)
