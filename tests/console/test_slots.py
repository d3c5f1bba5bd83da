"""Pages of slot pools, as an admin of a tenant uses them."""

from apps.core.actors import SYSTEM
from apps.workflows import commands
from apps.workflows.models import SlotPool, Task
from tests.apps.workflows.driver import bash, start
from tests.personas import World

from .conftest import People


def test_an_admin_makes_a_pool_changes_it_and_deletes_it(world: World, people: People) -> None:
    assert "No slot pool yet" in people.admin.get("/slot-pools/").content.decode()
    refused = people.admin.post("/slot-pools/new/", {"tenant": "vision", "name": "no good", "size": "many"})
    page = refused.content.decode()
    assert refused.status_code == 422 and "&#x27;many&#x27; is not a whole number." in page
    assert people.admin.post("/slot-pools/new/", {"tenant": "speech", "name": "a", "size": "1"}).status_code == 422
    made = people.admin.post("/slot-pools/new/", {"tenant": "vision", "name": "warehouse", "size": "3"})
    pool = SlotPool.objects.get()
    assert made.status_code == 302 and (pool.tenant, pool.name, pool.size) == (world.vision, "warehouse", 3)
    twice = people.admin.post("/slot-pools/new/", {"tenant": "vision", "name": "warehouse", "size": "3"})
    assert "has a slot pool warehouse already" in twice.content.decode()
    people.admin.post(f"/slot-pools/{pool.pk}/edit/", {"size": "0", "description": "closed"})
    pool.refresh_from_db()
    assert (pool.size, pool.description) == (0, "closed")
    assert "stopped" in people.member.get("/slot-pools/").content.decode()
    assert people.admin.post(f"/slot-pools/{pool.pk}/delete").status_code == 302
    assert not SlotPool.objects.exists()


def test_the_page_shows_who_holds_slots_and_who_is_in_line(world: World, people: People) -> None:
    pool = commands.create_slot_pool(actor=SYSTEM, tenant=world.vision, name="warehouse", size=2)
    tasks = [bash("a", weight=9), bash("b"), bash("c", map={"over": {"n": {"value": [1]}}})]
    run = start(world.vision, *({**task, "slots": {"name": "warehouse", "count": 2}} for task in tasks))
    page = people.member.get(f"/slot-pools/{pool.pk}/").content.decode()
    holders, line = page.split('data-testid="slot-line"')
    assert "2 of 2 held" in holders and "c[0]" in line
    assert f"/runs/{run.pk}/?task=a" in holders and f"/runs/{run.pk}/?task=b" in line
    said = "Waits for 2 slots of warehouse; 2 of 2 are held"
    assert said in people.member.get(f"/runs/{run.pk}/").content.decode()
    assert said in people.member.get(f"/runs/{run.pk}/tasks/b/").content.decode()
    panel = people.member.get(f"/runs/{run.pk}/tasks/c/").content.decode()
    assert said in panel and Task.objects.get(run=run, index=0).detail == "Waits for 2 slots of warehouse."
    listed = people.member.get(f"/api/v1/runs/{run.pk}/tasks").json()["results"]
    assert next(row["detail"] for row in listed if row["name"] == "b").startswith(said)
    found = people.member.get(f"/api/v1/slot-pools/{pool.pk}").json()
    assert [row["name"] for row in found["held_by"]] == ["a"]
    assert [row["name"] for row in found["in_line"]] == ["b", "c[0]"]
