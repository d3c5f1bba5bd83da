"""How far priority reaches is shown to those whom it concerns, beside their quota and on the pool."""

from apps.core.actors import SYSTEM
from apps.fleet import commands as fleet
from apps.fleet.models import Pool
from apps.quotas import commands as quotas
from tests.personas import World

from .conftest import People


def test_the_tree_says_the_bound_of_a_node_and_the_reach_of_each_pool(world: World, people: People) -> None:
    bound = 'data-testid="highest-'
    assert bound not in people.member.get("/quotas/").content.decode()
    pool = Pool.objects.get(name="default")
    quotas.set_highest_priority(actor=SYSTEM, node_id=world.vision_quota.pk, highest_priority=0)
    fleet.update_pool(actor=SYSTEM, pool_id=pool.pk, priority_reach="across_tenants")
    page = people.member.get("/quotas/").content.decode()
    assert page.count(bound) == 1 and "priority up to 0" in page
    assert "across tenants, before quota and fair shares" in page
    assert "across tenants, before quota and fair shares" in people.member.get("/pools/").content.decode()
