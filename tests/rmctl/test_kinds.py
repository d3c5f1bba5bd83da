"""Branches, sensors, waits, groups, setups and teardowns: what the SDK and YAML make of them, and what is refused."""

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmctl import (
    DAG,
    Dataset,
    Poked,
    SdkError,
    TaskGroup,
    approval,
    bash,
    empty,
    param,
    setup,
    task,
    task_group,
    teardown,
    trigger_run,
    wait_for,
    wait_for_dataset,
    wait_for_run,
    wait_until,
)
from rmctl.sdk import yaml_loader
from rmctl.spec import SpecError, parse_workflow


def tasks_of(dag: DAG, bundle: str | None = "0" * 64) -> dict[str, dict[str, Any]]:
    data = {**dag.definition(file_of=lambda function: "flow.py"), "bundle": bundle}
    spec = parse_workflow(data)
    assert parse_workflow(spec.definition).canonical() == spec.canonical(), "the canonical form is a definition"
    return {entry["id"]: entry for entry in spec.definition["tasks"]}


def edges(dag: DAG) -> dict[str, set[str]]:
    return {name: set(entry["upstream"]) for name, entry in tasks_of(dag).items()}


@task.branch
def pick(value: int) -> str:
    return "a" if value else "b"


@task.short_circuit(ignore_downstream_trigger_rules=False, retries=1)
def go_on() -> bool:
    return True


@task.bash
def say(word: str) -> str:
    return f"echo {word}"


@task.sensor(poke_interval="5s", exponential_backoff=True, timeout="1h", soft_fail=True)
def there(path: str) -> Poked:
    return Poked(True, path)


@setup
@task
def make() -> int:
    return 1


@teardown(on_failure_fail_dagrun=True)
def clean() -> None:
    pass


def test_what_the_decorators_say() -> None:
    with DAG("d") as dag:
        pick(1) >> go_on() >> say("x") >> there("y")
        made = make()
        made >> clean()
    tasks = tasks_of(dag)
    assert tasks["pick"]["decides"] == "branch"
    assert tasks["go_on"]["decides"] == "short_circuit" and not tasks["go_on"]["ignore_downstream_trigger_rules"]
    assert tasks["say"]["returns"] == "script"
    assert tasks["there"]["poke"] == {"interval": "5s", "factor": 2.0, "timeout": "1h", "soft_fail": True}
    assert tasks["make"]["setup"] and tasks["clean"]["teardown"] == {"fails_run": True}
    assert tasks["clean"]["trigger_rule"] == "all_done_setup_success"
    assert pick(0) == "b" and say("x") == "echo x" and there("p").value == "p"
    compiled = parse_workflow({**dag.definition(file_of=lambda f: "flow.py"), "bundle": "0" * 64}).compiled
    command = compiled["there"].base["groups"][0]["command"]
    assert command == ["python", "-m", "rmctl.runner", "--poke", "flow.py", "there"]


def test_waits() -> None:
    with DAG("d", params={"at": "06:00"}) as dag:
        wait_until("morning", param("at"))
        wait_until("day", "2026-01-02T03:04:05Z")
        wait_for("pause", "10m")
        wait_for_run("others", "other", before="1d", allowed=["succeeded", "failed"])
        wait_for_dataset("fresh", Dataset("a") & (Dataset("b") | Dataset("c")), since="triggered", before="1h")
        wait_for_dataset("named", ["a", "b"], since=param("at"), soft_fail=True)
        trigger_run("start", "child", params={"n": param("at")}, wait=True)
        approval("ask", "Go live?", form={"properties": {"why": {"type": "string"}}}, roles=["admin"], default="reject")
    tasks = tasks_of(dag, None)
    assert tasks["morning"]["arguments"] == {"time": {"param": "at"}}
    assert tasks["others"]["wait_for_run"] == {
        "workflow": "other", "allowed": ["succeeded", "failed"], "failed": ["cancelled"]
    }  # fmt: skip
    joined = {"all": ["a", {"any": ["b", "c"]}]}
    assert tasks["fresh"]["wait_for_dataset"] == {"datasets": joined, "since": "triggered"}
    assert tasks["fresh"]["arguments"] == {"before": {"value": "1h"}}
    assert tasks["named"]["wait_for_dataset"] == {"datasets": {"all": ["a", "b"]}, "soft_fail": True}
    assert tasks["named"]["arguments"] == {"since": {"param": "at"}}
    assert tasks["start"]["trigger_run"] == {"workflow": "child", "wait": True}
    assert tasks["ask"]["approval"]["default"] == "reject"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"kind": "wait_until"}, "needs the argument time"),
        ({"kind": "wait_until", "arguments": {"time": {"value": "25:00"}}}, "is not a time"),
        ({"kind": "wait_for", "arguments": {"duration": {"value": "soon"}}}, "is not a duration"),
        ({"kind": "wait_for", "arguments": {"x": {"value": 1}}}, "has no argument x"),
        ({"kind": "wait_for_dataset"}, "needs wait_for_dataset"),
        ({"kind": "wait_for_dataset", "wait_for_dataset": {"datasets": []}}, "at least one dataset"),
        ({"kind": "wait_for_dataset", "wait_for_dataset": {"datasets": ["a b"]}}, "is not the name of a dataset"),
        ({"kind": "empty", "poke": {}}, "poke does not belong"),
        ({"kind": "bash", "script": "true", "decides": "way"}, "Must be one of"),
        ({"kind": "bash", "script": "true", "decides": "branch", "map": {"over": {"x": {"value": []}}}}, "not mapped"),
        ({"kind": "bash", "script": "true", "ignore_downstream_trigger_rules": False}, "belongs to a task that"),
        ({"kind": "empty", "setup": True, "teardown": {}}, "not both"),
        ({"kind": "empty", "teardown": {}, "trigger_rule": "all_done"}, "its own trigger rule"),
        ({"kind": "empty", "teardown": {"setups": ["other"]}}, "which is not a setup"),
        ({"kind": "empty", "teardown": {"setups": ["oter"]}}, "which does not exist. Did you mean other?"),
        ({"kind": "approval", "approval": {"subject": "x", "default": "y"}}, "is not one of the options"),
        ({"kind": "approval", "approval": {"subject": "x", "form": {"x": 1}}}, "Unknown keyword"),
        ({"kind": "trigger_run"}, "needs trigger_run"),
        ({"kind": "empty", "group": "g"}, "group"),
        ({"kind": "empty", "upstream": ["g"]}, "g, which does not exist"),
    ],
)
def test_what_is_refused(fields: dict[str, Any], said: str) -> None:
    data = {"schema": 1, "name": "w", "tasks": [{"id": "x", **fields}, {"id": "other", "kind": "empty"}]}
    with pytest.raises(SpecError) as refused:
        parse_workflow(data)
    assert said in str(refused.value.errors)


def test_groups_give_prefixes_and_edges() -> None:
    with DAG("d") as dag:
        first = empty("first")
        with TaskGroup("g", tooltip="The middle") as g:
            a = empty("a")
            with TaskGroup("h"):
                b, c = empty("b"), empty("c")
            a >> [b, c]
        last = empty("last")
        first >> g >> last
    assert edges(dag) == {
        "first": set(), "g.a": {"first"}, "g.h.b": {"g.a"}, "g.h.c": {"g.a"}, "last": {"g.h.b", "g.h.c"}
    }  # fmt: skip
    spec = parse_workflow(dag.definition()).definition
    assert spec["groups"] == [{"id": "g", "description": "The middle"}, {"id": "g.h", "parent": "g"}]
    assert tasks_of(dag)["g.h.b"]["group"] == "g.h"


def test_groups_behind_groups_and_without_prefix() -> None:
    @task_group
    def part() -> None:
        empty("x") >> empty("y")

    with DAG("d") as dag:
        one = part()
        with TaskGroup("plain", prefix_group_id=False) as other:
            empty("z")
        one >> other
    assert edges(dag) == {"part.x": set(), "part.y": {"part.x"}, "z": {"part.y"}}


def test_a_teardown_is_no_end_of_its_group() -> None:
    with DAG("d") as dag:
        with TaskGroup("g") as g:
            made, work = empty("make"), empty("work")
            made >> work >> empty("clean").as_teardown(setups=made)
        g >> empty("after")
    assert edges(dag)["after"] == {"g.work"}
    assert edges(dag)["g.clean"] == {"g.work", "g.make"}


def test_a_block_of_a_teardown_is_between_it_and_its_setup() -> None:
    with DAG("d") as dag:
        made = empty("make")
        with empty("clean").as_teardown(setups=made):
            empty("a") >> empty("b")
            empty("c")
    assert edges(dag) == {"make": set(), "clean": {"make", "b", "c"}, "a": {"make"}, "b": {"a"}, "c": {"make"}}
    with DAG("d"), pytest.raises(SdkError, match="only a teardown opens a block"), empty("x"):
        pass


def test_groups_that_cannot_be() -> None:
    with DAG("d"):
        with TaskGroup("g"):
            empty("x")
        with pytest.raises(SdkError, match="already"):
            TaskGroup("g")
    for groups, said in (
        ([{"id": "g"}], "has no tasks"),
        ([{"id": "g", "parent": "f"}], "is in f, which does not exist"),
        ([{"id": "g", "parent": "h"}, {"id": "h", "parent": "g"}], "inside itself"),
        ([{"id": "x"}], "names another group or a task"),
        ([{"id": "y", "upstream": ["nothing"]}], "waits for nothing, which does not exist"),
    ):
        tasks = [{"id": "x", "kind": "empty"}, {"id": "y.a", "kind": "empty"}]
        with pytest.raises(SpecError) as refused:
            parse_workflow({"name": "w", "groups": groups, "tasks": tasks})
        assert said in str(refused.value.errors), said


@pytest.mark.parametrize(
    ("groups", "upstream", "field", "said"),
    [
        ([{"id": "g", "upstream": ["g"]}], [], "groups[0].upstream", "Group g waits for itself."),
        ([{"id": "g", "upstream": ["g.a"]}], [], "groups[0].upstream", "waits for g.a, which is in it"),
        ([{"id": "g"}, {"id": "g.h", "upstream": ["g"]}], [], "groups[1].upstream", "waits for g, which it is in"),
        ([{"id": "g", "upstream": ["g.h"]}, {"id": "g.h"}], [], "groups[0].upstream", "waits for g.h, which is in it"),
        ([{"id": "g"}, {"id": "g.h"}], ["z", "g"], "tasks[0].upstream[1]", "Task g.a waits for g, the group that it"),
    ],
)
def test_nothing_waits_for_what_it_is_in_or_what_is_in_it(
    groups: list[Any], upstream: list[str], field: str, said: str
) -> None:
    tasks = [
        {"id": name, "kind": "bash", "script": "x", "upstream": upstream if name == "g.a" else []}
        for name in ("g.a", "g.h.b", "z")
    ]
    if not any(group["id"] == "g.h" for group in groups):
        tasks[1]["group"] = "g"
    with pytest.raises(SpecError) as refused:
        parse_workflow({"schema": 1, "name": "w", "groups": groups, "tasks": tasks})
    [fault] = refused.value.errors
    assert (fault["field"], fault["code"]) == (field, "cycle") and said in fault["message"]


def test_yaml_has_the_same() -> None:
    text = """
name: w
groups:
  g: {upstream: [start], description: all of it}
tasks:
  start: {wait_until: "06:00"}
  pause: {wait_for: 10m, upstream: [g]}
  g.pick: {script: "echo '\\"g.work\\"' > $RM_RESULT", decides: branch}
  g.make: {kind: empty, setup: true}
  g.work: {script: "true", upstream: [g.pick, g.make]}
  g.clean: {script: "true", upstream: [g.work], teardown: {setups: [g.make]}}
  child: {trigger_run: {workflow: other, wait: true}, arguments: {n: {value: 1}}, upstream: [g]}
  ask: {approval: {subject: "Go on?"}}
  yesterday: {wait_for_run: {workflow: w}, arguments: {before: {value: 1d}}}
  fresh: {wait_for_dataset: {datasets: s3://a, since: triggered}}
"""
    definition, _ = yaml_loader.workflow(text)
    spec = parse_workflow(definition)
    found = {entry["id"]: entry for entry in spec.definition["tasks"]}
    assert (found["pause"]["kind"], found["pause"]["upstream"]) == ("wait_for", ["g.work"])
    assert found["g.pick"]["upstream"] == found["g.make"]["upstream"] == ["start"]
    assert found["fresh"]["wait_for_dataset"] == {"datasets": {"all": ["s3://a"]}, "since": "triggered"}
    assert found["g.clean"]["upstream"] == ["g.make", "g.work"]
    assert parse_workflow(spec.definition).digest() == spec.digest()


@given(st.integers(0, 2**32))
def test_edges_of_groups_equal_a_naive_reference(seed: int) -> None:
    chance = random.Random(seed)
    names = [f"g{number}" for number in range(chance.randint(1, 3))]
    parents: dict[str, str | None] = {name: chance.choice([None, *names[:place]]) for place, name in enumerate(names)}
    # Tasks of groups in blocks, as a `with` makes them; edges only forward, so that there is no cycle.
    owners: dict[str, str | None] = {}
    for place, name in enumerate([*names, None]):
        owners |= {f"t{place}{number}": name for number in range(chance.randint(1, 3))}
    order = list(owners)
    own = {name: [n for n in order[:place] if chance.random() < 0.3] for place, name in enumerate(order)}

    def inside(task_id: str, group: str) -> bool:
        owner = owners[task_id]
        while owner is not None and owner != group:
            owner = parents[owner]
        return owner == group

    group = names[0]
    members = [name for name in owners if inside(name, group)]
    tasks: list[dict[str, Any]] = [{"id": name, "kind": "empty", "upstream": own[name]} for name in owners]
    for entry in tasks:
        if owners[entry["id"]]:
            entry["group"] = owners[entry["id"]]
    tasks += [{"id": "before", "kind": "empty"}, {"id": "after", "kind": "empty", "upstream": [group]}]
    groups: list[dict[str, Any]] = [{"id": n, **({"parent": parents[n]} if parents[n] else {})} for n in names]
    groups[0]["upstream"] = ["before"]
    spec = parse_workflow({"name": "w", "groups": groups, "tasks": tasks})
    found = {entry["id"]: set(entry["upstream"]) for entry in spec.definition["tasks"]}
    firsts = {name for name in members if not set(own[name]) & set(members)}
    lasts = {name for name in members if not any(name in own[other] for other in members)}
    assert found["after"] == lasts
    for name in owners:
        assert found[name] == set(own[name]) | ({"before"} if name in firsts else set())


def test_a_bash_branch() -> None:
    with DAG("d") as dag:
        bash("pick", "echo 1", decides="branch") >> empty("a")
    assert tasks_of(dag)["pick"]["decides"] == "branch"
