"""Jobs near others and away from them, through the API: from the spec to the nodes, and checked again when written."""

from typing import Any

from django.test import Client
from django.utils import timezone

from apps.jobs.models import Job
from apps.scheduling.apply import apply
from apps.scheduling.models import Cycle
from apps.scheduling.observe import observe
from apps.scheduling.queries import why
from engine.cycle import decide
from tests.personas import World
from tests.work import cycle, fresh, granted, members, report, simulated_node, submit

from .test_placement import ask, placed_on

DB = {"jobs": {"app": ["db"]}, "key": "zone"}


def zones(world: World) -> None:
    for name, zone in (("a1", "a"), ("a2", "a"), ("b1", "b")):
        simulated_node(world, name, cpu=4000, labels={"zone": zone})


def test_near_and_away_from_jobs_by_their_labels(world: World) -> None:
    zones(world)
    first = ask(world, labels={"app": "db"}, cpu="3")
    assert placed_on(first) == ["a1"]
    assert placed_on(ask(world, intent={"near": [DB]}, cpu="3")) == ["a2"]
    other = ask(world, labels={"app": "web"}, intent={"away": [DB]})
    assert placed_on(other) == ["b1"]
    # The third stays away from the database, so that another one finds no zone beside it.
    second = ask(world, labels={"app": "db"}, cpu="2")
    cycle()
    told = why(world.actor("member"), second.pk)
    assert told.reason == "waiting_for_capacity"
    assert "jobs that stay away from it run on the same zone as 1 of 3 matching nodes" in fresh(second).detail
    (funnel,) = [entry["funnel"] for entry in told.tried]
    assert {step["filter"]: step["rejected"] for step in funnel}["away"] == 1


def test_who_waits_for_company_starts_in_the_pass_after_it(world: World) -> None:
    zones(world)
    waits = ask(world, intent={"near": [DB]}, priority=10)
    assert cycle() is False
    assert fresh(waits).detail == "Flavor cpu: it wants jobs with app=db on the same zone, and none runs."
    told = why(world.actor("member"), waits.pk)
    assert "without jobs with app=db on the same zone: now" in [item.text for item in told.suggestions]
    ask(world, labels={"app": "db"})
    assert cycle() is True, "who was refused before the other was granted is looked at again at once"
    assert placed_on(waits) == ["a1"]
    assert cycle() is False


def test_other_tenants_jobs_are_nobody(world: World) -> None:
    zones(world)
    theirs = submit(world, tenant=world.speech, labels={"app": "db"})
    cycle()
    assert fresh(theirs).state == "granted"
    mine = ask(world, intent={"near": [DB]})
    cycle()
    assert fresh(mine).state == "pending"


def test_what_contradicts_itself_is_refused_by_name(world: World) -> None:
    zones(world)
    never = ask(world, status=422, intent={"near": [{**DB, "key": "node"}], "away": [DB]})
    assert never["errors"][0]["code"] == "contradiction"
    assert "near wants jobs with app=db on the same node and away keeps off jobs with app=db on the same zone" in (
        never["errors"][0]["message"]
    )
    never = ask(world, status=422, intent={"near": [{**DB, "key": "rack"}]})
    assert never["detail"] == "None of 3 nodes matches: the labels rack rules out 3."
    never = ask(world, status=422, labels={"-app": "x"})
    assert never["errors"][0]["code"] == "bad_label"


def test_company_that_left_since_it_was_observed_is_missed(world: World) -> None:
    """The grant is looked at again in the transaction that writes it."""
    zones(world)
    first = granted(world, labels={"app": "db"})
    waits = submit(world, intent={"near": [DB]})
    now = timezone.now()
    observed = observe(now)
    assert observed is not None
    verdicts = decide(observed.snapshot, now=now.timestamp())
    assert [verdict.outcome for verdict in verdicts] == ["grant"]
    for member in members(first):
        report(member, "started")
        report(member, exit_code=0)
    assert apply(observed, verdicts, now, _cycle(now)) == 0
    assert fresh(waits).state == "pending"


def _cycle(now: Any) -> Cycle:
    return Cycle(at=now, considered=1, granted=0, observe_ms=0, decide_ms=0)


def test_a_job_without_bonds_reads_nothing_of_others(world: World, django_assert_num_queries: Any) -> None:
    zones(world)
    granted(world, labels={"app": "db"})
    plain = submit(world)
    observed = observe(timezone.now())
    assert observed is not None
    assert observed.snapshot.fleet.company is None
    assert not Job.objects.get(pk=plain.pk).bonded


def test_a_simulation_knows_who_is_near(world: World) -> None:
    zones(world)
    granted(world, labels={"app": "db"})
    answer = Client().post(
        "/api/v1/simulate",
        data={"jobs": [{"tenant": "vision", "spec": {"groups": [{"script": "true"}], "intent": {"near": [DB]}}}]},
        content_type="application/json",
        headers={"Authorization": f"Bearer {world.token('member')}"},
    )
    assert answer.status_code == 200, answer.content
    (added,) = [item for item in answer.json()["jobs"] if item["job"] is None]
    course = added["after"]
    assert (course["outcome"], set(course["nodes"]) <= {"a1", "a2"}) == ("ended", True), course
