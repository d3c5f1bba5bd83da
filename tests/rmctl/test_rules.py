"""`rmctl pool set` and `rmctl quota set`: what is asked of the portal, and what is printed."""

from typing import Any

from .portal import FakePortal, page


def test_a_pool_is_found_by_its_name_and_only_what_is_given_changes(portal: FakePortal, rm: Any) -> None:
    portal.on("GET pools", page({"id": 3, "name": "gpu"}))
    portal.on("PATCH pools/3", (200, {"name": "gpu", "priority_reach": "across_tenants", "backfill": "easy"}))
    done = rm("pool", "set", "gpu", "--priority-reach", "across_tenants")
    assert done.status == 0 and done.out.strip() == "pool gpu: priority across_tenants, backfill easy"
    assert [asked.body for asked in portal.requests("PATCH", "pools/3")] == [{"priority_reach": "across_tenants"}]
    done = rm("pool", "set", "cpu", "--backfill", "none")
    assert done.status != 0 and "There is no pool cpu; known: gpu." in done.err


def test_a_bound_of_priority_is_a_number_or_none(portal: FakePortal, rm: Any) -> None:
    portal.on("GET quotas", page({"id": 5, "name": "vision"}))
    portal.on("PATCH quotas/5", (200, {"name": "vision", "highest_priority": None, "weight": 2.0}))
    done = rm("quota", "set", "vision", "--highest-priority", "none")
    assert done.out.strip() == "quota vision: highest priority as the node above, weight 2"
    assert rm("quota", "set", "vision", "--highest-priority", "-50", "--weight", "3").status == 0
    bodies = [asked.body for asked in portal.requests("PATCH", "quotas/5")]
    assert bodies == [{"highest_priority": None}, {"highest_priority": -50, "weight": 3.0}]
    assert "give a whole number, or none" in rm("quota", "set", "vision", "--highest-priority", "high").err
    assert "Nothing to change" in rm("quota", "set", "vision").err
