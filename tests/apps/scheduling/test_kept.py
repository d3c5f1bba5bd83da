"""The places of a gang of different groups are stored from the cycle that reserves them until it has started."""

from django.utils import timezone

from apps.scheduling.kept import forget_kept
from apps.scheduling.models import KeptPlaces
from apps.scheduling.observe import observe
from tests.personas import World
from tests.work import cycle, fresh, job_data, members, report, simulated_node, submit


def test_they_are_kept_from_one_cycle_to_the_next_and_go_when_the_job_has_started(world: World) -> None:
    nodes = [simulated_node(world, name, cpu=4000) for name in ("one", "two")]
    first = submit(world, cpu="3", time_limit="100s")
    cycle()
    (group,) = job_data()["groups"]
    groups = [{**group, "name": f"g{cores}", "resources": {"cpu": cores, "memory": "1Gi"}} for cores in ("4", "2")]
    head = submit(world, groups=groups, time_limit="1h")
    cycle()
    kept = KeptPlaces.objects.get()
    assert kept.job_id == head.pk and kept.choice == "cpu"
    assert sorted(node for _, _, node, _ in kept.members) == sorted(node.pk for node in nodes)
    observed = observe(timezone.now())
    assert observed is not None and observed.snapshot.plan is not None
    ids = observed.snapshot.fleet.ids
    again = observed.snapshot.plan.kept[head.pk]
    assert [[group, rank, int(ids[node]), list(cards)] for group, rank, node, cards in again.members] == kept.members
    forget_kept()
    assert KeptPlaces.objects.exists()

    report(members(first)[0])
    cycle()
    assert fresh(head).state == "granted"
    forget_kept()
    assert not KeptPlaces.objects.exists()
