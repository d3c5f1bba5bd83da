"""What if: agreement with what then happens, every kind of change, who may ask what, and that nothing is written."""

from datetime import timedelta
from random import Random
from typing import Any

import pytest
from django.apps import apps
from django.db import InternalError, connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from apps.core.actors import SYSTEM
from apps.fleet import commands as fleet
from apps.jobs import commands as jobs
from apps.jobs.models import Attempt, Job
from apps.quotas import commands as quotas
from apps.quotas.budgets import create_budget
from apps.scheduling import changes, simulation
from tests.personas import World
from tests.work import cycle, fresh, pump, simulated_cluster, simulated_node, submit

SPEC = {"name": "new", "groups": [{"command": ["sleep", "100"], "resources": {"cpu": "2"}}], "time_limit": "100s"}


def asked(api: Any, persona: str = "operator", **body: Any) -> dict[str, Any]:
    answer = getattr(api, persona).post("simulate", body)
    assert answer.status_code == 200, answer.content
    return dict(answer.json())


def refused(api: Any, persona: str = "operator", status: int = 422, **body: Any) -> dict[str, Any]:
    answer = getattr(api, persona).post("simulate", body)
    assert answer.status_code == status, answer.content
    return dict(answer.json())


def by_job(answer: dict[str, Any]) -> dict[int, dict[str, Any]]:
    return {row["job"]: row for row in answer["jobs"]}


def starts_in(row: dict[str, Any], side: str = "after") -> float | None:
    """Seconds from now."""
    at = row[side]["starts_at"]
    return None if at is None else round((timezone.datetime.fromisoformat(at) - timezone.now()).total_seconds())


@pytest.mark.parametrize("mode", ["none", "easy", "conservative"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_on_a_frozen_fleet_it_agrees_with_what_then_happens(
    world: World, api: Any, clock: Any, mode: str, seed: int
) -> None:
    """Every start and every node of the product's own loop with simulated nodes, job by job."""
    fleet.update_pool(actor=SYSTEM, pool_id=world.pool.pk, backfill=mode)
    simulated_node(world, cpu=4000, cards=2)
    simulated_node(world, "sim-2", cpu=6000)
    limits = [
        {"flavor": "cpu", "resource": name, "nominal": amount}
        for name, amount in (("cpu", 4000), ("memory", 2**40), ("storage", 2**40), ("gpu", 1000))
    ]
    for quota in (world.vision_quota, world.speech_quota):
        quotas.set_limits(actor=SYSTEM, node_id=quota.pk, limits=limits)
    chance = Random(seed)
    submitted = []
    for number in range(18):
        seconds, gang = chance.randint(20, 200), chance.random() < 0.25
        submitted.append(
            submit(
                world,
                f"sleep {seconds}",
                tenant=chance.choice([world.vision, world.speech]),
                name=f"job-{number}",
                cpu="2" if gang else str(chance.randint(1, 4)),
                gpu={"count": 1} if not gang and chance.random() < 0.4 else None,
                count=2 if gang else 1,
                time_limit=f"{seconds}s",
                priority=chance.choice([0, 0, 20]),
            )
        )
    cycle()
    pump()
    clock(7)
    answer = by_job(asked(api, horizon_seconds=86_400, run_times="limit"))
    while Job.objects.filter(state__in=("pending", "granted", "running")).exists():
        while cycle() or Job.objects.filter(state="granted").exists():
            pump()
        ends = [
            attempt.started_at + timedelta(seconds=attempt.job.spec["time_limit"])
            for attempt in Attempt.objects.filter(state="running").select_related("job")
        ]
        assert ends, "everything waits and nothing runs"
        clock((min(ends) - timezone.now()).total_seconds())
        pump()
    assert len(answer) == 18
    waited = 0
    for job in submitted:
        attempt = Attempt.objects.get(job=job)
        told = answer[job.pk]["after"]
        start = timezone.datetime.fromisoformat(told["starts_at"])
        assert abs((attempt.created_at - start).total_seconds()) < 0.5, (job.name, attempt.created_at, start)
        assert set(told["nodes"]) == {member.node.name for member in attempt.placements.select_related("node")}
        waited += attempt.created_at > job.submitted_at + timedelta(seconds=8)
    assert waited >= 5


def busy(world: World) -> tuple[Job, Job]:
    """A node of 4 cpu that is full for 100 s, and a job that waits for it."""
    simulated_node(world, cpu=4000)
    running = submit(world, "sleep 100", cpu="4", time_limit="100s", name="running")
    cycle()
    pump()
    waiting = submit(world, "sleep 100", cpu="4", time_limit="100s", name="waiting")
    cycle()
    return running, waiting


def test_without_changes_it_says_how_it_goes_on(world: World, api: Any, clock: Any) -> None:
    running, waiting = busy(world)
    answer = asked(api)
    assert (answer["total"], answer["affected"]) == (2, 0)
    rows = by_job(answer)
    assert starts_in(rows[waiting.pk]) == 100
    assert rows[running.pk]["after"]["outcome"] == rows[waiting.pk]["after"]["outcome"] == "ended"
    assert rows[waiting.pk]["after"]["waits_seconds"] == pytest.approx(100, abs=1)
    # 200 s of a whole node in a day.
    assert answer["before"]["utilisation"]["cpu"] == pytest.approx(200 / 86_400, rel=0.01)
    assert answer["before"] == answer["after"]
    short = by_job(asked(api, horizon_seconds=50))
    assert (short[running.pk]["after"]["outcome"], short[waiting.pk]["after"]["outcome"]) == ("running", "waiting")
    assert short[waiting.pk]["after"]["detail"]


def test_more_nodes_start_it_now_and_later_ones_later(world: World, api: Any, clock: Any) -> None:
    running, waiting = busy(world)
    answer = asked(api, add_nodes=[{"like": "sim-1", "count": 2}])
    rows = by_job(answer)
    assert (starts_in(rows[waiting.pk], "before"), starts_in(rows[waiting.pk])) == (100, 0)
    assert rows[waiting.pk]["after"]["nodes"] == ["sim-1+1"]
    assert (rows[waiting.pk]["changed"], rows[running.pk]["changed"], answer["affected"]) == (True, False, 1)
    assert answer["after"]["utilisation"]["cpu"] < answer["before"]["utilisation"]["cpu"]
    later = by_job(asked(api, add_nodes=[{"like": "sim-1", "at_seconds": 30}]))
    assert starts_in(later[waiting.pk]) == 30


def test_a_lost_cluster_starts_its_jobs_over_elsewhere(world: World, api: Any, clock: Any) -> None:
    running, waiting = busy(world)
    spare = simulated_cluster(world, "beta-fake", domain=world.beta)
    simulated_node(world, "spare", cpu=4000, cluster=spare, state="cordoned")
    rows = by_job(asked(api, lose_clusters=[{"cluster": "alpha-fake", "at_seconds": 10}]))
    assert rows[running.pk]["after"]["outcome"] == rows[waiting.pk]["after"]["outcome"] == "waiting"
    more = by_job(
        asked(
            api,
            lose_clusters=[{"cluster": "alpha-fake", "at_seconds": 10}],
            add_nodes=[{"like": "spare", "at_seconds": 20}],
        )
    )
    assert {starts_in(more[running.pk]), starts_in(more[waiting.pk])} == {20, 120}
    assert fresh(running).state == "running"


def test_a_cordoned_node_finishes_what_it_runs(world: World, api: Any, clock: Any) -> None:
    running, waiting = busy(world)
    rows = by_job(asked(api, cordon_nodes=[{"node": "sim-1"}]))
    assert (rows[running.pk]["after"]["outcome"], rows[running.pk]["changed"]) == ("ended", False)
    assert rows[waiting.pk]["after"]["outcome"] == "waiting"
    rows = by_job(asked(api, remove_nodes=[{"node": "sim-1"}]))
    assert rows[running.pk]["after"]["outcome"] == "waiting"


def test_a_job_more_and_one_less(world: World, api: Any, clock: Any) -> None:
    running, waiting = busy(world)
    answer = asked(
        api,
        "member",
        cancel=[{"job": running.pk, "at_seconds": 5}],
        jobs=[{"spec": {**SPEC, "priority": 50}, "count": 2}, {"spec": SPEC, "run_seconds": 7, "at_seconds": 1000}],
    )
    rows = answer["jobs"]
    added = [row for row in rows if row["job"] is None]
    assert [row["name"] for row in added] == ["new (added 1)", "new (added 2)", "new (added)"]
    assert [starts_in(row) for row in added] == [5, 5, 1000]
    ends = timezone.datetime.fromisoformat(added[2]["after"]["ends_at"])
    assert (ends - timezone.now()).total_seconds() == pytest.approx(1007, abs=1)
    named = by_job(answer)
    assert named[running.pk]["after"]["outcome"] == "cancelled"
    assert starts_in(named[waiting.pk]) == 105
    assert Job.objects.count() == 2


def test_more_quota_and_whose_it_is(world: World, api: Any, clock: Any) -> None:
    simulated_node(world, cpu=8000)
    for leaf, nominal in ((world.vision_quota, 2000), (world.speech_quota, 0)):
        limits = [{"flavor": "cpu", "resource": "cpu", "nominal": nominal}]
        limits += [{"flavor": "cpu", "resource": name, "nominal": 2**40} for name in ("memory", "storage")]
        quotas.set_limits(actor=SYSTEM, node_id=leaf.pk, limits=limits)
    submit(world, "sleep 100", cpu="2", time_limit="100s")
    cycle()
    waiting = submit(world, "sleep 100", cpu="2", time_limit="100s")
    cycle()
    assert fresh(waiting).reason == "waiting_for_quota"
    change = {"quota": "vision", "flavor": "cpu", "resource": "cpu"}
    for item in ({**change, "change": 2000}, {**change, "nominal": 4000}):
        rows = by_job(asked(api, "member", quotas=[item]))
        assert (starts_in(rows[waiting.pk], "before"), starts_in(rows[waiting.pk])) == (100, 0)
    told = refused(api, "member", quotas=[{**change, "change": -3000}])
    assert told["errors"][0]["field"] == "quotas[0].change"
    for persona in ("stranger", "nobody"):
        told = refused(api, persona, quotas=[{**change, "change": 2000}])
        assert (told["code"], told["errors"][0]["field"]) == ("unknown", "quotas[0].quota")


def test_another_policy(world: World, api: Any, clock: Any) -> None:
    simulated_node(world, cpu=4000)
    submit(world, "sleep 100", cpu="2", time_limit="100s")
    cycle()
    pump()
    head = submit(world, "sleep 100", cpu="4", time_limit="100s", priority=90)
    long = submit(world, "sleep 300", cpu="1", time_limit="300s")
    cycle()
    rows = by_job(asked(api, policy="none"))
    assert (starts_in(rows[head.pk], "before"), starts_in(rows[long.pk], "before")) == (100, 200)
    assert (starts_in(rows[head.pk]), starts_in(rows[long.pk])) == (300, 0)
    assert starts_in(by_job(asked(api, policy="fcfs"))[long.pk]) == 200


def test_who_is_evicted_for_whom(world: World, api: Any, clock: Any) -> None:
    rules = {"within_queue": "lower_priority", "minimum_run_seconds": 0}
    quotas.set_rules(actor=SYSTEM, node_id=world.vision_quota.pk, rules=rules)
    running, _ = busy(world)
    answer = asked(api, "member", jobs=[{"spec": {**SPEC, "priority": 90}, "at_seconds": 10}])
    row = by_job(answer)[running.pk]
    assert row["after"]["evicted_for"] == [None]  # One that is only made up has no number.
    assert row["changed"] and not row["before"]["evicted_for"]


def test_who_sees_what(world: World, api: Any, clock: Any) -> None:
    running, waiting = busy(world)
    theirs = submit(world, "sleep 100", cpu="1", tenant=world.speech, time_limit="100s")
    cycle()
    everything = {running.pk, waiting.pk, theirs.pk}
    for persona, seen in (
        ("operator", everything),
        ("member", {running.pk, waiting.pk}),
        ("admin", {running.pk, waiting.pk}),
        ("stranger", {theirs.pk}),
        ("nobody", set()),
        ("provider", set()),
    ):
        answer = asked(api, persona)
        assert by_job(answer).keys() == seen, persona
        assert (answer["before"] is not None) == (persona == "operator"), persona
    assert api.anonymous.post("simulate", {}).status_code == 401
    for body in (
        {"add_nodes": [{"like": "sim-1"}]},
        {"remove_nodes": [{"node": "sim-1"}]},
        {"lose_clusters": [{"cluster": "alpha-fake"}]},
        {"policy": "none"},
    ):
        for persona in ("member", "stranger", "provider", "nobody"):
            assert refused(api, persona, 403, **body)["code"] == "forbidden"
    told = refused(api, "stranger", cancel=[{"job": running.pk}])
    assert told["errors"][0]["field"] == "cancel[0].job"
    assert refused(api, "stranger", 404, jobs=[{"spec": SPEC, "tenant": "vision"}])["code"] == "not_found"
    # A token that may only read is enough, as nothing is written.
    assert api.as_("member", "read").post("simulate", {"cancel": [{"job": waiting.pk}]}).status_code == 200


def rows_of_everything() -> dict[str, list[Any]]:
    return {model._meta.label: list(model._default_manager.order_by("pk").values()) for model in apps.get_models()}


def test_nothing_is_written(world: World, api: Any, clock: Any, monkeypatch: Any) -> None:
    running, waiting = busy(world)
    body = {
        "jobs": [{"spec": SPEC, "tenant": "vision"}],
        "cancel": [{"job": waiting.pk}],
        "add_nodes": [{"like": "sim-1"}],
        "lose_clusters": [{"cluster": "alpha-fake", "at_seconds": 50}],
        "quotas": [{"quota": "vision", "flavor": "cpu", "resource": "cpu", "change": 1000}],
        "policy": "conservative",
    }
    api.operator.post("simulate", {})  # The token's last use is noted by this one.
    before = rows_of_everything()
    with CaptureQueriesContext(connection) as made:
        assert api.operator.post("simulate", body).status_code == 200
    verbs = {query["sql"].split()[0].upper() for query in made.captured_queries}
    assert verbs <= {"SELECT", "WITH", "SAVEPOINT", "RELEASE", "SET", "BEGIN", "COMMIT"}, verbs
    assert rows_of_everything() == before

    # And if it tried, the database would not let it.
    load = simulation.load_world

    def writing(*arguments: Any, **options: Any) -> Any:
        Job.objects.filter(pk=running.pk).update(priority=7)
        return load(*arguments, **options)

    monkeypatch.setattr(simulation, "load_world", writing)
    with pytest.raises(InternalError, match="read-only transaction"):
        simulation.simulate_changes(actor=SYSTEM, request=simulation_request(), now=timezone.now())
    assert fresh(running).priority == 0
    jobs.cancel(actor=SYSTEM, job_id=waiting.pk)  # Afterwards writing is possible again.
    assert fresh(waiting).state == "cancelled"


def simulation_request() -> dict[str, Any]:
    from apps.scheduling.simulation_api import SimulateBody

    body = SimulateBody(data={})
    body.is_valid(raise_exception=True)
    return dict(body.validated_data)


def test_what_is_too_large_names_the_limit(world: World, api: Any, clock: Any, monkeypatch: Any) -> None:
    busy(world)
    told = refused(api, jobs=[{"spec": SPEC, "tenant": "vision", "count": 1000}, {"spec": SPEC, "count": 1000}])
    assert told["code"] == "simulation_too_large" and "2002 jobs" in told["detail"] and "2000" in told["detail"]
    told = refused(api, add_nodes=[{"like": "sim-1", "count": 1000}, {"like": "sim-1", "count": 1000}])
    assert told["code"] == "simulation_too_large" and "2000" in told["detail"]
    told = refused(api, horizon_seconds=31 * 86_400)
    assert told["errors"][0]["field"] == "horizon_seconds"
    monkeypatch.setattr(changes, "CHANGES_MAX", 1)
    told = refused(api, cordon_nodes=[{"node": "sim-1"}] * 2)
    assert "at most 1" in told["detail"]
    monkeypatch.setattr(simulation, "JOBS_MAX", 1)
    assert "2 jobs run or wait; at most 1" in refused(api)["detail"]
    monkeypatch.setattr(simulation, "JOBS_MAX", 10)
    monkeypatch.setattr(simulation, "deadline", lambda what: simulation_deadline(what))
    assert "takes more than 0 s" in refused(api)["detail"]


def simulation_deadline(what: str) -> Any:
    return DEADLINE(what, seconds=0.0)


DEADLINE = simulation.deadline


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"add_nodes": [{"like": "none"}]}, "add_nodes[0].like"),
        ({"remove_nodes": [{"node": "none"}]}, "remove_nodes[0].node"),
        ({"lose_clusters": [{"cluster": "none"}]}, "lose_clusters[0].cluster"),
        ({"cancel": [{"job": 2**40}]}, "cancel[0].job"),
        ({"quotas": [{"quota": "none", "flavor": "cpu", "resource": "cpu", "nominal": 1}]}, "quotas[0].quota"),
        ({"quotas": [{"quota": "vision", "flavor": "cpu", "resource": "light"}]}, "quotas[0].resource"),
        ({"jobs": [{"tenant": "vision", "spec": {"groups": [{"cpu": 1}]}}]}, "jobs[0].spec.groups[0].cpu"),
        ({"policy": "fair"}, "policy"),
        ({"run_times": "mean"}, "run_times"),
        ({"horizon": 5}, "horizon"),
    ],
)
def test_what_is_wrong_is_named(world: World, api: Any, body: dict[str, Any], field: str) -> None:
    simulated_node(world)
    assert refused(api, **body)["errors"][0]["field"] == field


def test_held_jobs_stay_and_those_that_wait_for_another_try_come_then(world: World, api: Any, clock: Any) -> None:
    simulated_node(world, cpu=4000)
    held = submit(world, cpu="1")
    jobs.hold(actor=SYSTEM, job_id=held.pk)
    again = submit(world, "exit 1", cpu="1", retries={"limit": 1, "delay": "60s", "jitter": 0})
    cycle()
    pump()
    pump()
    assert fresh(again).reason == "backoff"
    rows = by_job(asked(api))
    assert rows.keys() == {again.pk}
    assert starts_in(rows[again.pk]) == pytest.approx(60, abs=1)




def test_the_command_line_asks_what_the_portal_understands(
    world: World, api: Any, clock: Any, tmp_path: Any
) -> None:
    from rmctl.cli.whatif import Question

    _, waiting = busy(world)
    budget = create_budget(actor=SYSTEM, tenant=world.vision, measure="running", amount=9)
    (tmp_path / "job.yaml").write_text("groups: [{command: [sleep, '9'], resources: {cpu: 1}}]\ntime_limit: 9s\n")
    (tmp_path / "changes.yaml").write_text(
        f"horizon: 2h\ncordon_nodes: [{{node: sim-1, at_seconds: 60}}]\ncancel: [{{job: {waiting.pk}}}]\n"
    )

    class Asked:
        def pages(self, path: str) -> Any:
            return api.operator.get(path).json()["results"]

    question = Question(
        file=tmp_path / "changes.yaml",
        job=[tmp_path / "job.yaml"],
        cancel=None,
        add_nodes=["sim-1=2"],
        remove_node=None,
        cordon_node=None,
        lose_cluster=["alpha-agents"],
        quota=["vision.cpu=+2", "speech.cpu.memory=1Gi"],
        budget=[f"{budget.pk}=3", f"{budget.pk}=none"],
        policy="conservative",
        horizon=None,
        run_times="p90",
        tenant="vision",
    )
    body = question.body(Asked())  # type: ignore[arg-type]
    assert body["quotas"][0] == {"quota": "vision", "flavor": "cpu", "resource": "cpu", "change": 2000}
    assert body["budgets"] == [{"budget": budget.pk, "amount": 3.0}, {"budget": budget.pk, "amount": None}]
    told = asked(api, **body)
    added = next(row for row in told["jobs"] if row["job"] is None)
    assert (starts_in(added), added["after"]["outcome"]) == (0, "ended")
    assert by_job(told)[waiting.pk]["after"]["outcome"] == "cancelled"
