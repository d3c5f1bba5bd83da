"""The intent of a job: what its nodes must have and what it prefers."""

from math import isfinite
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from rmctl.names import package_name

from .errors import BadValue
from .values import Dataset, Jurisdiction, Strict

Label = Annotated[str, StringConstraints(min_length=1, max_length=253)]
Labels = Annotated[list[Label], Field(max_length=100)]
LabelValue = Annotated[str, StringConstraints(max_length=63)]
Version = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,9}(\.[0-9]{1,9}){0,5}$")]
# Of a distribution, as PyPI has it; how it is spelled does not matter.
Package = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,98}[A-Za-z0-9])?$"), AfterValidator(package_name)
]
# Goals that a job can weigh, as the scores of the engine are called.
Goal = Literal["cost", "energy", "latency", "locality", "warmth"]


class Toleration(Strict):
    """A taint that the job accepts; without a value, any value of the key."""

    key: Label
    value: str | None = Field(default=None, max_length=253)
    effect: Literal["NoSchedule", "NoExecute"] | None = None


class NodeLabel(Strict):
    """A demand on one label of a node. Gt and Lt compare numbers; NotIn and DoesNotExist accept its absence."""

    label: Label
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"] = "In"
    values: Labels = Field(default_factory=list)

    @model_validator(mode="after")
    def _values_fit_the_operator(self) -> Self:
        count = len(self.values)
        if self.operator in ("Exists", "DoesNotExist") and count:
            raise BadValue("bad_expression", f"{self.operator} takes no values; leave values out.")
        if self.operator in ("In", "NotIn") and not count:
            raise BadValue("bad_expression", f"{self.operator} needs at least one value.")
        if self.operator in ("Gt", "Lt") and not (count == 1 and _is_number(self.values[0])):
            raise BadValue("bad_expression", f'{self.operator} needs one number as text, such as ["4"].')
        return self


class Requirements(Strict):
    """Hard constraints: a node that misses one is never used.

    `max_price` is for one hour of one member; `image_present` wants the group's own image to be there already.
    """

    labels: dict[Label, Annotated[list[Label], Field(min_length=1, max_length=100)]] = Field(
        default_factory=dict
    )
    nodes: list[NodeLabel] = Field(default_factory=list, max_length=50)
    regions: Labels = Field(default_factory=list)
    jurisdictions: Annotated[list[Jurisdiction], Field(max_length=50)] = Field(default_factory=list)
    trust: int = Field(default=0, ge=0, le=100)
    tolerations: list[Toleration] = Field(default_factory=list, max_length=100)
    architectures: Labels = Field(default_factory=list)
    cpu_flags: Labels = Field(default_factory=list)
    interconnects: Labels = Field(default_factory=list)
    python: Version | None = None
    packages: Annotated[list[Package], Field(max_length=100)] = Field(default_factory=list)
    gpu_compute: Version | None = None
    gpu_driver: Version | None = None
    max_price: float | None = Field(default=None, ge=0, le=1e12)
    image_present: bool = False
    datasets: list[Dataset] = Field(default_factory=list, max_length=100)

    @model_validator(mode="after")
    def _labels_agree(self) -> Self:
        for label, wanted in self.labels.items():
            for item in self.nodes:
                if item.label == label and not any(_accepts(item, value) for value in wanted):
                    text = f"{item.operator} {', '.join(item.values)}".strip()
                    raise BadValue(
                        "contradiction",
                        f"labels wants {label}={'|'.join(wanted)} and nodes wants {label} {text}: "
                        "no node can meet both; leave out one.",
                    )
        return self


class Preference(Strict):
    """A soft constraint: nodes whose label has one of the values score `weight` higher."""

    label: Label
    values: list[Label] = Field(min_length=1, max_length=100)
    weight: int = Field(default=1, ge=1, le=100)


class Together(Strict):
    """How close the members of each group stay.

    `levels` are labels from the widest domain to the narrowest; `level` (by default the narrowest) is the one to
    share. With `slice_size`, every so many members stay in one domain of `slice_level`.
    """

    levels: list[Label] = Field(min_length=1, max_length=6)
    constraint: Literal["required", "preferred", "unconstrained"] = "required"
    level: Label | None = None
    slice_level: Label | None = None
    slice_size: int = Field(default=1, ge=1, le=10_000)

    @model_validator(mode="after")
    def _levels_are_known(self) -> Self:
        if len(set(self.levels)) < len(self.levels):
            raise BadValue("duplicate_level", f"A level is given twice in {', '.join(self.levels)}.")
        for name, level in (("level", self.level), ("slice_level", self.slice_level)):
            if level is not None and level not in self.levels:
                raise BadValue(
                    "unknown_level", f'{name} "{level}" is none of the levels {", ".join(self.levels)}.'
                )
        if self.slice_level is not None:
            level = self.level or self.levels[-1]
            if self.levels.index(self.slice_level) < self.levels.index(level):
                raise BadValue(
                    "contradiction",
                    f"slice_level {self.slice_level} is wider than level {level}: slices lie inside one {level}.",
                )
        return self


class Apart(Strict):
    """How evenly the members of each group spread over the domains that the label `key` makes, or over each `node`.

    `max_skew`: how many members a domain may have more than another. `most`: how many it may have at all.
    """

    key: Label = "node"
    max_skew: int | None = Field(default=None, ge=1, le=10_000)
    most: int | None = Field(default=None, ge=1, le=10_000)

    @model_validator(mode="after")
    def _limits_something(self) -> Self:
        if self.max_skew is None and self.most is None:
            raise BadValue("required", "Give max_skew, most or both; without them nothing is spread.")
        return self


class Neighbours(Strict):
    """Running jobs of the same tenant whose labels match, on the same `key`: a label of nodes, or each `node`.

    Without a weight it is a hard constraint. With one, nodes that meet it score higher.
    """

    jobs: dict[Label, Annotated[list[LabelValue], Field(min_length=1, max_length=100)]] = Field(
        min_length=1, max_length=20
    )
    key: Label = "node"
    weight: int | None = Field(default=None, ge=1, le=100)

    def __str__(self) -> str:
        who = " and ".join(f"{label}={'|'.join(values)}" for label, values in sorted(self.jobs.items()))
        return f"jobs with {who} on the same {self.key}"

    def excludes(self, other: "Neighbours") -> bool:
        """Whether every job that is meant by this one is also meant by the other, which is at least as wide."""
        wider = self.key in (other.key, "node")
        return wider and all(
            label in self.jobs and set(self.jobs[label]) <= set(values) for label, values in other.jobs.items()
        )


class Intent(Strict):
    """Where the job wants to run; without a pool, the tenant's default one.

    `datasets` are those that it reads, wherever they are, and `near_region` is where its users are: goals look at them.
    """

    pool: Label | None = None
    require: Requirements = Field(default_factory=Requirements)
    prefer: list[Preference] = Field(default_factory=list, max_length=100)
    placement: Literal["pack", "spread"] = "pack"
    goals: dict[Goal, Annotated[int, Field(ge=1, le=100)]] = Field(default_factory=dict)
    together: Together | None = None
    apart: Apart | None = None
    datasets: list[Dataset] = Field(default_factory=list, max_length=100)
    near_region: Label | None = None
    near: list[Neighbours] = Field(default_factory=list, max_length=20)
    away: list[Neighbours] = Field(default_factory=list, max_length=20)

    @model_validator(mode="after")
    def _data_is_named(self) -> Self:
        if "locality" in self.goals and not (self.datasets or self.require.datasets):
            raise BadValue("required", "The goal locality is nearness to data: name it in datasets.")
        if "latency" in self.goals and not (self.near_region or self.datasets or self.require.datasets):
            raise BadValue(
                "required",
                "The goal latency is nearness to users or data: name the users' region in near_region, or datasets.",
            )
        return self

    @model_validator(mode="after")
    def _company_agrees(self) -> Self:
        for one in self.near:
            if one.weight is not None:
                continue
            for other in self.away:
                if other.weight is None and one.excludes(other):
                    raise BadValue(
                        "contradiction",
                        f"near wants {one} and away keeps off {other}: whoever is near enough for the one is too near "
                        "for the other; leave out one, or give one of them a weight.",
                    )
            for item in self.require.nodes:
                if item.label == one.key and item.operator == "DoesNotExist":
                    raise BadValue(
                        "contradiction",
                        f"near wants {one} and require.nodes wants nodes without the label {one.key}: leave out one.",
                    )
        return self

    @model_validator(mode="after")
    def _either_close_or_apart(self) -> Self:
        if self.together is not None and self.apart is not None:
            raise BadValue(
                "contradiction",
                "together wants members close to each other and apart wants them spread: give one of the two.",
            )
        return self


def _is_number(text: str) -> bool:
    try:
        return isfinite(float(text))
    except ValueError:
        return False


def _accepts(item: NodeLabel, value: str) -> bool:
    """Whether a label with this value meets the demand."""
    if item.operator in ("Exists", "DoesNotExist"):
        return item.operator == "Exists"
    if item.operator in ("In", "NotIn"):
        return (value in item.values) == (item.operator == "In")
    if not _is_number(value):
        return False
    return float(value) > float(item.values[0]) if item.operator == "Gt" else float(value) < float(item.values[0])
