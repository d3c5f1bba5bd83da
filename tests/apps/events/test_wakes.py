"""Writing a fact wakes the loops that have work by it, whichever command wrote it."""

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from apps.core import locks, loops
from apps.core.actors import SYSTEM
from apps.core.redis import Commit
from apps.events.wakes import LOOPS, woken_by
from apps.fleet import commands as fleet
from apps.fleet.models import Contribution
from apps.jobs import commands as jobs
from apps.quotas import commands as quotas
from apps.tenants import commands as tenants
from apps.workflows import commands as workflows
from tests.apps.workflows.driver import bash, definition
from tests.personas import World, make_limits
from tests.work import granted, members, report, submit

APPS = Path(__file__).resolve().parents[3] / "apps"


def woken(command: Callable[[], Any]) -> set[str]:
    """The loops that the command's commit would send for."""
    connection.run_on_commit.clear()
    command()
    commits = [function for _, function, *_ in connection.run_on_commit if isinstance(function, Commit)]
    return {name for name in locks.LOOP_KEYS if any(loops._wake(name) in commit.names for commit in commits)}


def test_resuming_a_tenant_wakes_the_scheduler(world: World) -> None:
    def suspended(value: bool) -> set[str]:
        return woken(lambda: tenants.set_tenant_suspended(actor=SYSTEM, tenant_id=world.vision.pk, suspended=value))

    assert suspended(True) == {"schedule"}  # Its jobs are told so at once.
    assert suspended(False) == {"schedule"}
    assert suspended(False) == set()


def test_configuration_wakes_the_scheduler(world: World) -> None:
    node, terms = world.node(), Contribution.objects.get()
    leaf = world.vision_quota.pk
    for command in (
        lambda: fleet.set_labels(actor=SYSTEM, node_id=node.pk, labels={"disk": "ssd"}),
        lambda: fleet.cordon_node(actor=SYSTEM, node_id=node.pk),
        lambda: fleet.uncordon_node(actor=SYSTEM, node_id=node.pk),
        lambda: fleet.update_contribution(actor=SYSTEM, contribution_id=terms.pk, share_percent=50),
        lambda: fleet.update_pool(actor=SYSTEM, pool_id=world.pool.pk, query={"trust": 1}),
        lambda: fleet.update_flavor(actor=SYSTEM, flavor_id=world.flavor.pk, position=3),
        lambda: fleet.update_cluster(actor=SYSTEM, cluster_id=world.cluster.pk, region="us"),
        lambda: quotas.set_limits(actor=SYSTEM, node_id=leaf, limits=make_limits(cpu=1)),
        lambda: quotas.set_weight(actor=SYSTEM, node_id=leaf, weight=2.0),
        lambda: quotas.move_quota_node(actor=SYSTEM, node_id=leaf, parent=None),
    ):
        assert woken(command) == {"schedule"}


def test_a_node_that_is_emptied_or_gone_wakes_recovery_too(world: World) -> None:
    node = world.node()
    assert woken(lambda: fleet.drain_node(actor=SYSTEM, node_id=node.pk)) == {"schedule", "recover"}
    assert woken(lambda: fleet.mark_lost(actor=SYSTEM, node_ids=[node.pk], reason="")) == {"schedule", "recover"}
    assert woken(lambda: fleet.mark_returned(actor=SYSTEM, node_id=node.pk)) == {"schedule"}
    assert woken(lambda: fleet.remove_node(actor=SYSTEM, node_id=node.pk)) == {"schedule", "recover"}


def test_a_job_that_waits_or_has_ended_wakes_the_scheduler(world: World) -> None:
    world.node()
    waiting = submit(world, cpu="8")
    assert woken(lambda: submit(world)) == {"schedule"}
    assert woken(lambda: jobs.hold(actor=SYSTEM, job_id=waiting.pk)) == set()
    assert woken(lambda: jobs.release(actor=SYSTEM, job_id=waiting.pk)) == {"schedule"}
    (member,) = members(granted(world, priority=9))
    assert woken(lambda: report(member, "started")) == set()
    assert woken(lambda: report(member)) == {"schedule"}


def test_workflows_wake_the_timetable_and_their_runs_the_advance_loop(world: World) -> None:
    found: list[int] = []

    def push() -> None:
        pushed = workflows.push(actor=SYSTEM, tenant=world.vision, definition=definition(bash("a"), schedule="@daily"))
        found.append(pushed.workflow.pk)

    assert woken(push) == {"timetable"}
    assert "timetable" in woken(lambda: workflows.pause(actor=SYSTEM, workflow_id=found[0]))
    assert woken(lambda: workflows.resume(actor=SYSTEM, workflow_id=found[0])) == {"timetable", "advance"}
    runs: list[Any] = []
    trigger = lambda: runs.append(workflows.trigger(actor=SYSTEM, workflow_id=found[0]))  # noqa: E731
    assert woken(trigger) == {"advance"}
    assert woken(lambda: workflows.cancel_run(actor=SYSTEM, run_id=runs[0].pk)) == {"advance"}


def test_the_table_names_loops_and_verbs_that_there_are() -> None:
    assert {name for names in LOOPS.values() for name in names} <= set(locks.LOOP_KEYS)
    written = {
        node.value
        for path in APPS.rglob("*.py")
        if path.name != "wakes.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    nouns = {text.partition(".")[0] for text in written if "." in text}
    unknown = [key for key in LOOPS if key not in (written if "." in key else nouns)]
    assert not unknown
    assert woken_by(["thing.happened"]) == set()


def test_no_command_wakes_a_loop_by_itself() -> None:
    """The table is the rule. What a row says without a fact (jobs that runs and services wait for) is the exception."""
    allowed = {"events/record.py", "workflows/moved.py", "services/moved.py"}
    calls = {
        str(path.relative_to(APPS))
        for path in APPS.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.Attribute) and ast.unparse(node) == "loops.wake")
        or (isinstance(node, ast.ImportFrom) and any(name.name == "wake" for name in node.names))
    }
    assert calls <= allowed, f"add the verb to apps/events/wakes.py instead: {sorted(calls - allowed)}"


@pytest.mark.parametrize("verbs", [["tenant.resumed"], ["secret.created", "tenant.resumed"]])
def test_one_verb_among_others_is_enough(verbs: list[str]) -> None:
    assert woken_by(verbs) == {"schedule"}
