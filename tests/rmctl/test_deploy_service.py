"""A task that deploys a service: what the SDK makes of it, and what is refused."""

from typing import Any

import pytest

from rmctl import DAG, bash, deploy_service
from rmctl.spec import SpecError, parse_workflow
from rmctl.spec.service import DeployService, parse_service, written


def test_a_service_is_deployed_with_results_in_its_variables() -> None:
    with DAG("w") as dag:
        image = bash("build", "echo")
        job = {"groups": [{"command": ["serve"], "env": {"A": "b"}}]}
        deploy_service("d", {"name": "web", "job": job}, replicas=2, arguments={"TAG": image}, timeout="5m")
    spec = parse_workflow(dag.definition())
    task = spec.definition["tasks"][1]
    assert task["kind"] == "service" and task["upstream"] == ["build"]
    assert task["service"] == {"spec": {"name": "web", "job": job}, "replicas": 2, "timeout": "5m"}
    options = spec.compiled["d"].options
    assert isinstance(options, DeployService)
    env = options.deployment({"TAG": "v1", "N": [1]})["job"]["groups"][0]["env"]
    assert env == {"A": "b", "TAG": "v1", "N": "[1]"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"map": {"over": {"A": {"value": [1]}}}}, "not mapped"),
        ({"service": {"spec": {"name": "web", "job": {"groups": [{"command": ["{{ ds }}"]}]}}}}, "template"),
        ({"service": {"spec": {"name": "web", "job": {"groups": []}}}}, "items"),
    ],
)
def test_a_deployment_that_makes_no_sense_is_refused(change: dict[str, Any], words: str) -> None:
    service = {"spec": {"name": "web", "job": {"groups": [{"command": ["x"]}]}}}
    with pytest.raises(SpecError, match=words):
        parse_workflow({"name": "w", "tasks": [{"id": "d", "kind": "service", "service": service, **change}]})


def test_what_is_stored_can_be_written_and_deployed_again() -> None:
    job = {"groups": [{"command": ["serve"], "resources": {"cpu": "2"}}], "labels": {"app": "web"}}
    given = {"name": "web", "replicas": 3, "job": job, "rollout": {"max_surge": 2, "min_ready": "1m"}}
    spec = parse_service(given)
    found = written(spec.name, 3, spec.policy(), spec.normalised_job())
    assert found == given
    assert parse_service(found).normalised_job() == spec.normalised_job()
