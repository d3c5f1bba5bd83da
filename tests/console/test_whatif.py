"""The what-if page: questions as rows, faults beside the fields that they are about, answers against what is."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from apps.console import figures, whatif_forms
from apps.core.actors import SYSTEM
from apps.jobs.models import Job
from apps.quotas.budgets import create_budget
from apps.scheduling import simulation
from tests.personas import World
from tests.work import cycle, fresh, simulated_node, submit

from .conftest import People

NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)
SETTINGS = {"horizon": "86400", "run_times": "limit"}


@pytest.fixture
def queue(world: World) -> tuple[Job, Job]:
    """A job that runs on the one node for 100 s, and one that waits for it."""
    simulated_node(world, cpu=2000)
    first = submit(world, "sleep 100", cpu="2", name="first", time_limit="100s")
    cycle()
    second = submit(world, "sleep 100", cpu="2", name="second", time_limit="100s")
    cycle()
    assert (fresh(first).state, fresh(second).state) == ("granted", "pending")
    return first, second


def asked(people: People, persona: str = "operator", status: int = 200, **values: str) -> str:
    answer = people.as_(persona).post("/whatif/", {**SETTINGS, **values})
    assert answer.status_code == status, answer.content.decode()[:4000]
    return str(answer.content.decode())


def cells(page: str, job: int | str) -> list[str]:
    """The texts of a job's row in the answer."""
    row = re.search(rf'<tr data-testid="answer-{job}">(.*?)</tr>', page, re.S)
    assert row is not None, job
    return [" ".join(re.sub(r"<[^>]+>", " ", cell).split()) for cell in re.findall(r"<td.*?</td>", row[1], re.S)]


def fault(page: str, field: str) -> str:
    """What stands beside a field."""
    found = re.search(rf'id="e-{re.escape(field)}".*?<span>(.*?)</span>', page, re.S)
    assert found is not None, field
    return found[1]


def test_another_node_lets_the_one_that_waits_start_now(queue: tuple[Job, Job], people: People) -> None:
    first, second = queue
    page = asked(people, **{"0-kind": "add", "0-like": "sim-1", "0-copies": "1", "0-at": "0s"}, focus=str(second.pk))
    assert re.fullmatch(r"1 min \d\d s earlier", cells(page, second.pk)[4])
    assert cells(page, first.pk)[4] == "none"
    assert "1 start earlier" in page
    assert page.index(f'answer-{second.pk}"') < page.index(f'answer-{first.pk}"')  # What was asked about comes first.
    assert 'data-testid="tiles"' in page
    assert "CPU in use" in page
    assert fresh(second).state == "pending"  # Nothing was changed by asking.


def test_a_job_like_another_is_new_and_delays_nobody_that_came_before(queue: tuple[Job, Job], people: People) -> None:
    _, second = queue
    member = asked(people, "member", **{"0-kind": "job", "0-like": str(second.pk), "0-copies": "2", "0-at": "0s"})
    assert member.count('data-testid="answer-new"') == 2
    assert cells(member, second.pk)[4] == "none"
    assert 'data-testid="tiles"' not in member  # Figures of the whole are for those who see all of it.
    ahead = asked(
        people, "member",
        **{"0-kind": "job", "0-like": str(second.pk), "0-priority": "100", "0-time_limit": "50s", "0-copies": "1"},
    )  # fmt: skip
    assert re.fullmatch(r"\d+ s later", cells(ahead, second.pk)[4])


def test_a_job_from_fields_alone(queue: tuple[Job, Job], people: People) -> None:
    page = asked(people, **{"4-kind": "job", "4-tenant": "speech", "4-cpu": "2", "4-memory": "1Gi", "4-copies": "1"})
    assert cells(page, "new")[:2] == ["what-if (added)", "speech"]


def test_losing_the_node_starts_over_what_runs_there(queue: tuple[Job, Job], people: People) -> None:
    first, _ = queue
    page = asked(people, **{"0-kind": "remove", "0-node": "sim-1", "0-at": "10s"})
    assert cells(page, first.pk)[-1].startswith("waiting")
    for kind, name, value in (("drain", "node", "sim-1"), ("lose", "cluster", "alpha-fake")):
        page = asked(people, **{"0-kind": kind, f"0-{name}": value, "0-at": "0s"})
        assert "waiting" in cells(page, queue[1].pk)[3]


def test_a_quota_and_a_policy(queue: tuple[Job, Job], people: People) -> None:
    page = asked(
        people, policy="fcfs",
        **{"1-kind": "quota", "1-quota": "vision", "1-flavor": "cpu", "1-resource": "cpu", "1-amount": "0"},
    )  # fmt: skip
    assert 'data-testid="answer"' in page
    cancelled = asked(people, **{"2-kind": "cancel", "2-job": str(queue[0].pk)})
    assert "earlier" in cells(cancelled, queue[1].pk)[4]


def test_a_budget(world: World, people: People) -> None:
    simulated_node(world, cpu=4000)
    budget = create_budget(actor=SYSTEM, tenant=world.vision, measure="running", amount=1)
    watched = create_budget(actor=SYSTEM, tenant=world.vision, measure="gpu_hours", period="day", amount=1, hard=False)
    submit(world, "sleep 100", cpu="1", time_limit="100s")
    cycle()
    second = submit(world, "sleep 100", cpu="1", time_limit="100s")
    cycle()
    form = people.member.get("/whatif/").content.decode()
    assert f'<option value="{budget.pk}"' in form
    assert f'<option value="{watched.pk}"' not in form  # It holds nobody back.
    row = {"0-kind": "budget", "0-budget": str(budget.pk)}
    for limit in ("2", ""):
        page = asked(people, "member", **row, **{"0-limit": limit})
        assert "earlier" in cells(page, second.pk)[4]
    assert "is not a number" in fault(asked(people, status=422, **row, **{"0-limit": "two"}), "0-limit")
    assert 'data-testid="add-budget"' not in people.stranger.get("/whatif/").content.decode()


@pytest.mark.parametrize(
    ("values", "field", "words"),
    [
        ({"0-kind": "job", "0-like": "999999"}, "0-like", "there is no job 999999"),
        ({"0-kind": "job", "0-tenant": "vision", "0-cpu": "many"}, "0-cpu", "many"),
        ({"0-kind": "job", "0-tenant": "vision", "0-time_limit": "soon"}, "0-time_limit", "soon"),
        ({"0-kind": "job", "0-tenant": "vision", "0-copies": "1001"}, "0-copies", "1000"),
        ({"0-kind": "job", "0-tenant": "vision", "0-at": "31d"}, "0-at", "2592000"),
        ({"0-kind": "job", "0-tenant": "vision", "0-at": "later"}, "0-at", "later"),
        ({"0-kind": "cancel", "0-job": "x"}, "0-job", "not a whole number"),
        ({"0-kind": "add", "0-like": "nowhere", "0-copies": "1"}, "0-like", "no live node nowhere"),
        ({"0-kind": "add", "0-like": "sim-1", "0-copies": "0"}, "0-copies", "1"),
        ({"0-kind": "remove", "0-node": "sim-1", "1-kind": "remove", "1-node": "b"}, "1-node", "no live node b"),
        ({"0-kind": "lose", "0-cluster": "nowhere"}, "0-cluster", "no cluster nowhere"),
        (
            {"0-kind": "quota", "0-quota": "vision", "0-flavor": "cpu", "0-resource": "cpu", "0-amount": "-9999"},
            "0-amount",
            "the nominal quota would be",
        ),
        (
            {"0-kind": "quota", "0-quota": "vision", "0-flavor": "cpu", "0-resource": "cpu", "0-amount": "two"},
            "0-amount",
            "two",
        ),
        ({"policy": "best"}, "policy", "best"),
        ({"horizon": "soon"}, "horizon", "integer"),
    ],
)
def test_faults_stand_beside_their_fields(
    queue: tuple[Job, Job], people: People, values: dict[str, str], field: str, words: str
) -> None:
    page = asked(people, status=422, **values)
    assert words in fault(page, field)
    assert 'data-testid="answer"' not in page


def test_what_is_too_large_is_refused_with_the_limit(
    queue: tuple[Job, Job], people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = {f"{number}-kind": "cancel" for number in range(whatif_forms.ROWS_MAX + 1)}
    assert "at most 50" in asked(people, status=422, **rows)
    many = dict.fromkeys(("0-copies", "1-copies"), "1000") | {f"{n}-kind": "job" for n in range(2)}
    page = asked(people, status=422, **many, **{"0-tenant": "vision", "1-tenant": "vision"})
    assert "2002 jobs with those that are added; at most 2000 can be simulated" in page
    monkeypatch.setattr(simulation, "SECONDS_MAX", -1.0)
    monkeypatch.setattr(simulation.deadline, "__defaults__", (-1.0,))
    assert "to compute: ask for a shorter horizon_seconds or fewer jobs" in asked(people, status=422)


def test_the_fleet_is_not_a_members_to_ask_about(queue: tuple[Job, Job], people: People) -> None:
    form = people.member.get("/whatif/").content.decode()
    assert 'data-row-add="job"' in form
    assert 'data-row-add="remove"' not in form
    assert 'name="policy"' not in form
    page = asked(people, "member", **{"0-kind": "remove", "0-node": "sim-1"}, policy="fcfs")  # Not among their kinds.
    assert cells(page, queue[1].pk)[4] == "none"
    stranger = asked(people, "stranger", **{"0-kind": "job", "0-like": str(queue[1].pk)}, status=422)
    assert "there is no job" in fault(stranger, "0-like")
    assert "second" not in asked(people, "stranger")


def test_a_question_about_a_job_begins_with_one_like_it(queue: tuple[Job, Job], people: People) -> None:
    job = queue[1].pk
    assert f'href="/whatif/?job={job}"' in people.member.get(f"/jobs/{job}/").content.decode()
    page = people.member.get(f"/whatif/?job={job}").content.decode()
    assert re.search(rf'name="0-like"[^>]*value="{job}"', page)
    assert 'data-next="1"' in page
    assert people.stranger.get(f"/whatif/?job={job}").status_code == 404


def test_what_is_in_use_goes_as_far_as_somebody_runs(queue: tuple[Job, Job], api: Any) -> None:
    told = api.operator.post("simulate", {"run_times": "limit", "cancel": [{"job": queue[1].pk, "at_seconds": 0}]})
    use = told.json()["use"]
    assert len(use["at"]) == len(use["after"]["cpu"]) + 1 == simulation.BINS + 1
    begin, end = (datetime.fromisoformat(use["at"][place]) for place in (0, -1))
    assert 195 < (end - begin).total_seconds() < 201
    assert [use["before"]["cpu"][place] for place in (0, 30, 90, -2)] == pytest.approx([1, 1, 1, 1])
    assert [use["after"]["cpu"][place] for place in (0, 30, 90, -2)] == pytest.approx([1, 1, 0, 0])
    assert api.member.post("simulate", {}).json()["use"] is None


def test_figures_of_an_answer() -> None:
    edges = [NOW + timedelta(seconds=place) for place in range(3)]
    use = figures.use_over_time(edges, [0.5, 0.0], [1.0, 0.25])
    assert use["data"][0]["y"] == [100.0, 25.0, 25.0]
    later = NOW + timedelta(minutes=5)
    moves = figures.starts([("a #1", NOW, later), ("b #2", later, NOW), ("new", None, NOW)])
    lines = [trace for trace in moves["data"] if trace["mode"] == "lines"]
    assert [trace["line"]["color"] for trace in lines] == ["var(--fill-red)", "var(--fill-green)"]
    assert moves["data"][-1]["y"] == ["a #1", "b #2", "new"]
    assert figures.starts([])["data"] == []
