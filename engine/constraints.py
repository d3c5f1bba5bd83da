"""What a job may demand of nodes beyond amounts, and of its members among themselves; plain values that hash."""

from dataclasses import dataclass
from itertools import takewhile
from math import isfinite

from engine.topology import Constraint

# A spread over single nodes; every other key is a label's.
NODE = "node"
OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt")


def version(text: str) -> tuple[int, ...]:
    """The leading numbers of a dotted version, to compare: `535.104.05` is (535, 104, 5), `3.12rc1` is (3, 12).

    Zeros at the end count for nothing; what does not begin with a number is ().
    """
    numbers = []
    for part in text.split("."):
        digits = "".join(takewhile(str.isdecimal, part))
        if not digits:
            break
        numbers.append(int(digits[:18]))  # Nodes choose what they report.
        if digits != part:
            break
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)


@dataclass(frozen=True, slots=True)
class Facts:
    """What a node is made of; what is not known is empty, and meets no demand.

    `gpu_compute` (compute capability, such as `8.6`) is the lowest of its cards.
    """

    architecture: str = ""
    cpu_flags: frozenset[str] = frozenset()
    python: str = ""
    gpu_compute: str = ""
    gpu_driver: str = ""
    interconnects: frozenset[str] = frozenset()
    packages: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Hardware:
    """Demands on `Facts`: versions are at least so high, one of the architectures, every flag,
    interconnect and Python package."""

    architectures: frozenset[str] = frozenset()
    cpu_flags: frozenset[str] = frozenset()
    python: str = ""
    gpu_compute: str = ""
    gpu_driver: str = ""
    interconnects: frozenset[str] = frozenset()
    packages: frozenset[str] = frozenset()


UNKNOWN, ANYTHING = Facts(), Hardware()


@dataclass(frozen=True, slots=True)
class Expression:
    """A demand on one label. A node without the label meets only `NotIn` and `DoesNotExist`.

    `Gt` and `Lt` compare numbers with the one value; a label that is no number meets neither.
    """

    label: str
    operator: str
    values: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.operator not in OPERATORS:
            raise ValueError(f"the operator must be one of {', '.join(OPERATORS)}, not {self.operator!r}")
        if self.operator in ("Gt", "Lt") and (len(self.values) != 1 or _number(self.values[0]) is None):
            raise ValueError(f"{self.operator} must have one number to compare with")

    def accepts(self, value: str | None) -> bool:
        """Whether a label with this value (None: no such label) meets the demand."""
        if self.operator in ("NotIn", "DoesNotExist"):
            return value is None or (self.operator == "NotIn" and value not in self.values)
        if value is None:
            return False
        if self.operator == "Exists":
            return True
        if self.operator == "In":
            return value in self.values
        number, bound = _number(value), _number(self.values[0])
        if number is None or bound is None:
            return False
        return number > bound if self.operator == "Gt" else number < bound

    def __str__(self) -> str:
        if self.operator in ("Exists", "DoesNotExist"):
            return f"{self.label} {self.operator}"
        return f"{self.label} {self.operator} {'|'.join(self.values)}"


@dataclass(frozen=True, slots=True)
class Together:
    """How close the members of each group stay: labels from the widest to the narrowest domain, and the level.

    With slices, every `slice_size` members stay in one domain of `slice_level`.
    """

    levels: tuple[str, ...]
    constraint: Constraint
    level: str
    slice_level: str | None = None
    slice_size: int = 1

    def __post_init__(self) -> None:
        for level in (self.level, self.slice_level):
            if level is not None and level not in self.levels:
                raise ValueError(f"the level {level!r} must be one of {', '.join(self.levels)}")
        if self.slice_size < 1:
            raise ValueError("a slice must have at least one member")


@dataclass(frozen=True, slots=True)
class Apart:
    """How evenly the members of each group spread over the domains that a label (or `node`) makes.

    No domain has more than `max_skew` members more than another whose nodes match, and none more than `most`;
    None does not limit.
    """

    key: str
    max_skew: int | None = None
    most: int | None = None

    def __post_init__(self) -> None:
        if min(value for value in (self.max_skew, self.most, 1) if value is not None) < 1:
            raise ValueError("max_skew and most must be at least 1")


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if isfinite(value) else None
