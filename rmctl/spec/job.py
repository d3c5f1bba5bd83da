"""The job spec: the one schema that the API, the CLI, the SDK and the forms share."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from .errors import BadValue, SpecError, describe, field_error
from .intent import Intent, Label
from .quantities import Cpu, Duration, Seconds, Size
from .values import (
    Digest,
    Environment,
    Identifier,
    Image,
    JobLabels,
    Line,
    Script,
    Secrets,
    Slug,
    Strict,
    canonical_json,
    check_variables,
    plain_number,
    validated,
)

MIB = 2**20
SPEC_BYTES = 1024 * 1024
MAX_MEMBERS = 10_000

# What becomes of a job that is evicted, and the seconds that it has from SIGTERM to SIGKILL.
OnPreempt = Literal["requeue", "fail"]
Notice = Annotated[Duration, Field(ge=0, le=3600)]


def _enough(size: int) -> int:
    if size < MIB:
        raise BadValue("absurd_quantity", f'{size} bytes is less than 1Mi; give a size such as "128Mi".')
    return size


class GpuRequest(Strict):
    """Cards for one member: `count` whole cards, or a share of one in thousandths (`milli`)."""

    count: int = Field(default=1, ge=1, le=64)
    milli: int = Field(default=1000, ge=1, le=1000)
    models: list[Label] = Field(default_factory=list, max_length=50)
    memory: Size | None = None

    @model_validator(mode="after")
    def _share_of_one(self) -> Self:
        if self.count > 1 and self.milli != 1000:
            raise BadValue(
                "bad_share", "Only one card can be shared: with count above 1 leave milli at 1000."
            )
        return self


class Resources(Strict):
    """What one member of a group gets; `cpu` is guaranteed, `cpu_limit` is the most it may use."""

    cpu: Cpu = Field(default=100, json_schema_extra={"default": "100m"})
    cpu_limit: Cpu | None = None
    memory: Annotated[Size, AfterValidator(_enough)] = Field(
        default=128 * MIB, json_schema_extra={"default": "128Mi"}
    )
    storage: Annotated[Size, AfterValidator(_enough)] = Field(
        default=256 * MIB, json_schema_extra={"default": "256Mi"}
    )
    pids: int = Field(default=256, ge=1, le=1_000_000)
    gpu: GpuRequest | None = None

    @model_validator(mode="after")
    def _limit_is_above(self) -> Self:
        if self.cpu_limit is not None and self.cpu_limit < self.cpu:
            raise BadValue(
                "limit_below_request",
                f"cpu_limit ({self.cpu_limit}m) is below cpu ({self.cpu}m); raise it or leave it out.",
            )
        return self


class Retries(Strict):
    """How often a failed job is tried again, after delay × factor^n seconds, at most max_delay, ± jitter; not after an
    exit status that stands in `final`."""

    limit: int = Field(default=0, ge=0, le=100)
    delay: Duration = Field(default=5, json_schema_extra={"default": "5s"})
    factor: float = Field(default=2.0, ge=1, le=100)
    max_delay: Duration = Field(default=300, json_schema_extra={"default": "5m"})
    jitter: float = Field(default=0.2, ge=0, le=1)
    final: list[Annotated[int, Field(ge=1, le=255)]] = Field(default_factory=list, max_length=255)


def check_minimum(count: int, least: int | None) -> None:
    """Raises BadValue when fewer members than the fewest are wanted."""
    if least is not None and least > count:
        raise BadValue(
            "minimum_above_count", f"min_count ({least}) is above count ({count}); lower it or leave it out."
        )


class GroupSpec(Strict):
    """`count` equal members that start together; each runs `command` (argv) or `script` (bash).

    With a `min_count` the job also starts with fewer members, as many as fit, but at least so many.
    """

    name: Identifier = "main"
    count: int = Field(default=1, ge=1, le=MAX_MEMBERS)
    min_count: int | None = Field(default=None, ge=1, le=MAX_MEMBERS)
    command: list[str] | None = Field(default=None, min_length=1, max_length=1000)
    script: Script | None = None
    image: Image | None = None
    env: Environment = Field(default_factory=dict)
    secrets: Secrets = Field(default_factory=dict)
    resources: Resources = Field(default_factory=lambda: Resources())

    @field_validator("name")
    @classmethod
    def _short_name(cls, name: str) -> str:
        if len(name) > 63:
            raise BadValue("bad_id", "The name of a group has at most 63 characters.")
        return name

    @field_validator("command")
    @classmethod
    def _startable(cls, command: list[str] | None) -> list[str] | None:
        if command is not None:
            if not command[0].strip():
                raise BadValue("empty", "The first word is the program to run; it is empty.")
            if max(len(word.encode()) for word in command) > 120 * 1024:
                raise BadValue(
                    "too_large", "One argument has at most 120 KiB; put larger data into the inputs."
                )
        return command

    @model_validator(mode="after")
    def _one_way_to_run(self) -> Self:
        if (self.command is None) == (self.script is None):
            what = "both" if self.command is not None else "neither"
            raise BadValue("command_or_script", f"Give exactly one of command and script; {what} is given.")
        check_minimum(self.count, self.min_count)
        check_variables(self.env, self.secrets)
        return self


class JobSpec(Strict):
    """A job as submitted. Build it with `parse_job`, which refuses with a `SpecError` naming every fault.

    When it is evicted it has `notice` seconds from SIGTERM to SIGKILL, to write a checkpoint; then it waits
    again with its old place in the queue, or fails, as `on_preempt` says.
    """

    name: Line = "job"
    tenant: Slug | None = None
    groups: list[GroupSpec] = Field(min_length=1, max_length=100)
    labels: JobLabels = Field(default_factory=dict)
    intent: Intent = Field(default_factory=Intent)
    priority: int = Field(default=0, ge=-1000, le=1000)
    time_limit: Seconds = Field(default=3600, json_schema_extra={"default": "1h"})
    on_preempt: OnPreempt = "requeue"
    notice: Notice = Field(default=10, json_schema_extra={"default": "10s"})
    retries: Retries = Field(default_factory=lambda: Retries())
    bundle: Digest | None = None
    inputs: dict[str, Any] = Field(default_factory=dict)

    @field_validator("name")
    @classmethod
    def _printable(cls, name: str) -> str:
        if not name.isprintable() or not name.strip():
            raise BadValue(
                "bad_name", f"{describe(name)} is not a name: use printable characters on one line."
            )
        return name

    @model_validator(mode="after")
    def _groups_fit_together(self) -> Self:
        names = [group.name for group in self.groups]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise BadValue(
                "duplicate_group", f"Group {', '.join(twice)} is given twice; each needs its own name."
            )
        members = sum(group.count for group in self.groups)
        if members > MAX_MEMBERS:
            raise BadValue(
                "too_many_members", f"{members} members; a job has at most {MAX_MEMBERS} in all groups."
            )
        return self

    @model_validator(mode="after")
    def _intent_fits_the_groups(self) -> Self:
        require, together = self.intent.require, self.intent.together
        for name, value in (("gpu_compute", require.gpu_compute), ("gpu_driver", require.gpu_driver)):
            if value is not None and not any(group.resources.gpu for group in self.groups):
                raise BadValue(
                    "contradiction",
                    f"intent.require.{name} asks for cards, but no group has resources.gpu: "
                    "give one of them a gpu.",
                )
        if require.image_present and not any(group.image for group in self.groups):
            raise BadValue(
                "contradiction",
                "intent.require.image_present asks for the image to be there, but no group has an image: "
                "give one of them an image.",
            )
        if together is not None and together.slice_size > 1:
            if len(self.groups) > 1:
                raise BadValue(
                    "bad_slices", "Slices divide one group; with several groups leave slice_size out."
                )
            if self.groups[0].count % together.slice_size:
                raise BadValue(
                    "bad_slices",
                    f"{self.groups[0].count} members are no multiple of the slice size {together.slice_size}.",
                )
        return self

    def normalised(self) -> dict[str, Any]:
        """Every field, with plain integers: millicores, bytes, seconds. What the portal stores."""
        return {
            "name": self.name,
            "labels": dict(self.labels),
            "groups": [_plain_group(group) for group in self.groups],
            "intent": self.intent.model_dump(),
            "priority": self.priority,
            "time_limit": self.time_limit,
            "on_preempt": self.on_preempt,
            "notice": plain_number(self.notice),
            "retries": {
                "limit": self.retries.limit,
                "delay": plain_number(self.retries.delay),
                "factor": self.retries.factor,
                "max_delay": plain_number(self.retries.max_delay),
                "jitter": self.retries.jitter,
                **({"final": self.retries.final} if self.retries.final else {}),
            },
            "bundle": self.bundle,
            "inputs": self.inputs,
        }


def as_written(data: Mapping[str, Any]) -> dict[str, Any]:
    """A stored normal form as it could have been submitted (without its tenant)."""
    groups = []
    for group in data["groups"]:
        amounts = group["resources"]
        gpu = amounts["gpu"]
        resources = {
            "cpu": f"{amounts['cpu_millicores']}m",
            "cpu_limit": f"{amounts['cpu_limit_millicores']}m",
            "memory": amounts["memory_bytes"],
            "storage": amounts["storage_bytes"],
            "pids": amounts["pids"],
            "gpu": gpu
            and {
                "count": gpu["count"],
                "milli": gpu["milli"],
                "models": gpu["models"],
                "memory": gpu["memory_bytes"] or None,
            },
        }
        groups.append({**group, "resources": resources})
    return {**data, "groups": groups}


def _plain_group(group: GroupSpec) -> dict[str, Any]:
    resources, gpu = group.resources, group.resources.gpu
    return {
        "name": group.name,
        "count": group.count,
        "min_count": group.min_count,
        "command": group.command,
        "script": group.script,
        "image": group.image,
        "env": dict(group.env),
        "secrets": dict(group.secrets),
        "resources": {
            "cpu_millicores": resources.cpu,
            "cpu_limit_millicores": resources.cpu_limit or max(1000, resources.cpu),
            "memory_bytes": resources.memory,
            "storage_bytes": resources.storage,
            "pids": resources.pids,
            "gpu": None
            if gpu is None
            else {
                "count": gpu.count,
                "milli": gpu.milli,
                "models": list(gpu.models),
                "memory_bytes": gpu.memory or 0,
            },
        },
    }


def parse_job(data: Any) -> JobSpec:
    """Validate a job as submitted (parsed JSON). Raises SpecError naming every fault."""
    if not isinstance(data, Mapping):
        raise SpecError([field_error("", f"A job is a JSON object, not {describe(data)}.", "wrong_type")])
    job = validated(JobSpec, data)
    if len(canonical_json(data)) > SPEC_BYTES:
        raise SpecError(
            [field_error("", "The job has more than 1 MiB; put data into the bundle.", "too_large")]
        )
    return job


def job_schema() -> dict[str, Any]:
    """JSON Schema of a job as submitted."""
    return JobSpec.model_json_schema()
