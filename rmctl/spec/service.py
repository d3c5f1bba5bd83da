"""The service spec: what a long-running service is deployed from, by the API, the CLI, the SDK and the forms."""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, model_validator

from .errors import BadValue, SpecError, describe, field_error
from .job import JobSpec, as_written
from .quantities import MAX_SECONDS, Duration, Seconds, parse_cpu
from .values import Slug, Strict, plain_number, validated

MAX_REPLICAS = 1000


class Rollout(Strict):
    """How replicas are exchanged: at most `max_surge` above and `max_unavailable` below what is wanted. A new replica
    counts once it has run for `min_ready`; a rollout without progress for `progress_deadline` has failed."""

    max_surge: int = Field(default=1, ge=0, le=MAX_REPLICAS)
    max_unavailable: int = Field(default=0, ge=0, le=MAX_REPLICAS)
    min_ready: Duration = Field(default=5, json_schema_extra={"default": "5s"})
    progress_deadline: Seconds = Field(default=600, json_schema_extra={"default": "10m"})

    @model_validator(mode="after")
    def _moves(self) -> Self:
        if not self.max_surge and not self.max_unavailable:
            raise BadValue("contradiction", "With max_surge and max_unavailable both 0 no replica can be exchanged.")
        if self.progress_deadline <= self.min_ready:
            raise BadValue("contradiction", "progress_deadline must be more than min_ready, or no rollout can succeed.")
        return self


class Restart(Strict):
    """When a replica that ended is replaced: at once if it ran for `settled`, else after delay × factor^n, at most
    max_delay."""

    delay: Annotated[Duration, Field(ge=0.1)] = Field(default=1, json_schema_extra={"default": "1s"})
    factor: float = Field(default=2.0, ge=1, le=100)
    max_delay: Duration = Field(default=300, json_schema_extra={"default": "5m"})
    settled: Duration = Field(default=60, json_schema_extra={"default": "1m"})


def _one_replica(job: JobSpec) -> JobSpec:
    group = job.groups[0]
    if len(job.groups) != 1 or group.count != 1 or group.min_count is not None:
        raise BadValue("one_replica", "The job is one replica: one group with count 1; how many there are is replicas.")
    for field, instead in (
        ("time_limit", "a service runs until it is stopped"),
        ("retries", "the service replaces what ends, see restart"),
        ("tenant", "name the tenant of the service"),
        ("name", "replicas have the name of the service"),
    ):
        if field in job.model_fields_set:
            raise BadValue("wrong_field", f"Remove {field} of the job: {instead}.")
    return job


class ServiceSpec(Strict):
    """A service as deployed. Build it with `parse_service`, which refuses with a `SpecError` naming every fault.

    Without `replicas` a new service has one, and one that is there keeps what it has.
    """

    name: Slug
    tenant: Slug | None = None
    replicas: int | None = Field(default=None, ge=0, le=MAX_REPLICAS)
    job: Annotated[JobSpec, AfterValidator(_one_replica)]
    rollout: Rollout = Field(default_factory=Rollout)
    restart: Restart = Field(default_factory=Restart)

    def normalised_job(self) -> dict[str, Any]:
        """The job of a replica as the portal stores jobs: named as the service, with the longest time limit."""
        plain = self.job.normalised()
        return {**plain, "name": self.name, "time_limit": MAX_SECONDS}

    def policy(self) -> dict[str, float]:
        """How it rolls and restarts, in plain numbers."""
        parts: tuple[Strict, ...] = (self.rollout, self.restart)
        return {name: plain_number(getattr(part, name)) for part in parts for name in type(part).model_fields}


class DeployService(Strict):
    """Deploy a service from a workflow; the task's arguments are further variables of its replicas. With `wait` the
    task ends as the rollout does: failed after `timeout`, or skipped if `soft_fail`."""

    spec: ServiceSpec
    replicas: int | None = Field(default=None, ge=0, le=MAX_REPLICAS)
    wait: bool = True
    timeout: Seconds = Field(default=3600, json_schema_extra={"default": "1h"})
    soft_fail: bool = False

    def deployment(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """What to deploy, as somebody would give it."""
        data = self.spec.model_dump(mode="json", exclude_defaults=True)
        if self.replicas is not None:
            data["replicas"] = self.replicas
        group = data["job"]["groups"][0]
        texts = {
            name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            for name, value in inputs.items()
        }
        if texts:
            group["env"] = {**group.get("env", {}), **texts}
        return data


def parse_service(data: Any) -> ServiceSpec:
    """Validate a service as deployed (parsed JSON). Raises SpecError naming every fault."""
    if not isinstance(data, Mapping):
        raise SpecError([field_error("", f"A service is a JSON object, not {describe(data)}.", "wrong_type")])
    return validated(ServiceSpec, data)


def written(name: str, replicas: int, policy: Mapping[str, Any], job: Mapping[str, Any]) -> dict[str, Any]:
    """A service from what the portal stores of it, as it could have been deployed, without what goes without saying."""
    given = {key: value for key, value in as_written(job).items() if key not in ("name", "time_limit", "retries")}
    for group in given["groups"]:
        resources = group["resources"]
        if parse_cpu(resources["cpu_limit"]) == max(1000, parse_cpu(resources["cpu"])):
            resources["cpu_limit"] = None
    parts = {
        field: {key: policy[key] for key in part.model_fields if key in policy}
        for field, part in (("rollout", Rollout), ("restart", Restart))
    }
    spec = ServiceSpec.model_validate({"name": name, "replicas": replicas, "job": given, **parts})
    return spec.model_dump(mode="json", exclude_defaults=True)
