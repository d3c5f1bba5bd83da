"""Nodes as arrays, and what one member of a job asks of a node."""

import copy
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.company import Bonds, Company
from engine.constraints import ANYTHING, NODE, UNKNOWN, Apart, Expression, Facts, Hardware, Together
from engine.lending import Amounts, Lending, Terms
from engine.sites import NOWHERE, Site, Sites
from engine.stores import NOTHING, Stored, Stores, Wanted

Mask = npt.NDArray[np.bool_]
# Nodes that a job may take: the same for all its groups, or a set for each.
Nodes = Mask | tuple[Mask, ...]
Int64 = npt.NDArray[np.int64]
Int32 = npt.NDArray[np.int32]
Int16 = npt.NDArray[np.int16]
Float64 = npt.NDArray[np.float64]

# Codes of values by node, and the codes.
Coded = tuple[npt.NDArray[np.intp], dict[str, int]]

WHOLE_CARD = 1000
NO_CARD = -1
# Answers kept for static requests; a bound, because tenants choose the requests.
_CACHE_LIMIT = 4096
# Changes that rankings remember; after that they start anew.
_CHANGES_MAX = 100_000


@dataclass(frozen=True, slots=True)
class NodeRow:
    """One node in plain values. `gpu_free` is by card index, in thousandths, -1 where there is no card.

    Prices are for an hour of a core and of a whole card; `network` is in megabits a second and `watts`
    what a core and a card in use add; 0 where it is not known.
    """

    id: int
    name: str
    cpu_free: int
    memory_free: int
    storage_free: int
    cpu_capacity: int
    memory_capacity: int
    storage_capacity: int
    gpu_free: Sequence[int] = ()
    gpu_model: str = ""
    gpu_memory: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: Sequence[Mapping[str, str]] = ()
    trust: int = 0
    region: str = ""
    ready: bool = True
    flavor: frozenset[str] = frozenset()
    runtimes: frozenset[str] = frozenset()
    tasks: int = 0
    facts: Facts = UNKNOWN
    price_cpu: float = 0.0
    price_gpu: float = 0.0
    lending: Lending | None = None
    stored: Stored = NOTHING
    network: int = 0
    site: Site = NOWHERE
    watts: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True, eq=False)
class Request:
    """What one member of a group asks for: amounts on one node, hard constraints and preferences.

    `gpu_count` different cards with `gpu_milli` thousandths free on each. `prefer` holds (label, values, weight)
    and `goals` (name of a score, weight). `max_price` is what an hour of one member may cost. Where nodes are lent with
    bounds, `consumer` is the domain it is for and `limit` the time limit in seconds; without a consumer nobody asks.
    `bonds` is what its job is to others and they to it, `wanted` what it would like to find on its node,
    `near_region` where its users are.
    Requests with equal content are equal and hash alike.
    """

    cpu: int = 0
    memory: int = 0
    storage: int = 0
    gpu_count: int = 0
    gpu_milli: int = WHOLE_CARD
    gpu_models: frozenset[str] = frozenset()
    gpu_memory: int = 0
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    regions: frozenset[str] | tuple[str, ...] = ()
    trust: int = 0
    tolerations: Sequence[Mapping[str, str]] = ()
    image: bool = False
    prefer: tuple[tuple[str, tuple[str, ...], float], ...] = ()
    strategy: str = "pack"
    hardware: Hardware = ANYTHING
    expressions: tuple[Expression, ...] = ()
    max_price: float | None = None
    goals: tuple[tuple[str, float], ...] = ()
    together: Together | None = None
    apart: Apart | None = None
    consumer: int | None = None
    limit: float = 0.0
    bonds: Bonds | None = None
    wanted: Wanted | None = None
    jurisdictions: frozenset[str] = frozenset()
    near_region: str = ""

    def __post_init__(self) -> None:
        if min(self.cpu, self.memory, self.storage, self.gpu_count, self.gpu_memory) < 0:
            raise ValueError("a request cannot ask for a negative amount")
        if self.gpu_count and not 1 <= self.gpu_milli <= WHOLE_CARD:
            raise ValueError(f"gpu_milli must be from 1 to {WHOLE_CARD}, not {self.gpu_milli}")
        if self.strategy not in ("pack", "spread"):
            raise ValueError(f"strategy must be 'pack' or 'spread', not {self.strategy!r}")
        if self.max_price is not None and not self.max_price >= 0:
            raise ValueError("max_price cannot be negative")
        if any(not weight > 0 for _, weight in self.goals):
            raise ValueError("the weight of a goal must be above 0")
        if self.together is not None and self.apart is not None:
            raise ValueError("members cannot be kept together and apart at once")

    @cached_property
    def static_key(self) -> Hashable:
        """Everything that the static filters look at."""
        return (
            self.gpu_count > 0,
            self.gpu_models,
            self.gpu_memory,
            tuple(sorted((key, tuple(values)) for key, values in self.labels.items())),
            frozenset(self.regions),
            self.trust,
            tuple(tuple(sorted(toleration.items())) for toleration in self.tolerations),
            self.image,
            self.hardware,
            self.expressions,
            # What it costs depends on the amounts.
            None if self.max_price is None else (self.max_price, self.cpu, self.gpu_count, self.gpu_milli),
            self.together,
            self.apart,
            None if self.consumer is None else (self.consumer, self.limit, self.held),
            self.bonds and self.bonds.keys,
            self.wanted and self.wanted.needs,
            self.jurisdictions,
        )

    @cached_property
    def held(self) -> Amounts:
        """What one member counts with where it is bounded how much others hold."""
        return self.cpu, self.memory, self.gpu_count * self.gpu_milli

    @cached_property
    def shape(self) -> Hashable:
        """Everything that placement looks at."""
        amounts = (self.cpu, self.memory, self.storage, self.gpu_count, self.gpu_milli)
        prefer = tuple((label, tuple(values), weight) for label, values, weight in self.prefer)
        return (*amounts, self.static_key, prefer, self.strategy, self.goals, self.bonds, self.wanted, self.near_region)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Request) and self.shape == other.shape

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash(self.shape)


@dataclass(frozen=True, slots=True)
class StaticAnswer:
    """Nodes that pass all static filters, and the mask of each filter that was asked something.

    In `obstacles` is kept why groups could not even be placed on empty nodes (engine.placement.obstacles).
    """

    passing: Mask
    masks: tuple[tuple[str, Mask], ...]
    obstacles: dict[Hashable, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CapacityAnswer:
    """What all filters said of one request now, a mask by each, and the nodes that pass every one, if there are
    `any`."""

    request: Request
    version: int
    masks: Sequence[tuple[str, Mask]]
    fitting: Mask
    any: bool

    @property
    def filters(self) -> tuple[str, ...]:
        """The names of the filters."""
        return tuple(name for name, _ in self.masks)

    @property
    def passed(self) -> Mask:
        """A row for each filter."""
        return np.array([mask for _, mask in self.masks])


@dataclass(eq=False)
class Fleet:
    """N nodes as arrays: amounts free now, capacities, and what does not change while a cycle runs.

    Only `take` and `give` may change it once it has been asked anything; for other changes build anew.
    """

    ids: Int64
    names: list[str]
    cpu: Int64
    memory: Int64
    storage: Int64
    cpu_capacity: Int64
    memory_capacity: Int64
    storage_capacity: Int64
    gpu_free: Int32
    gpu_model: Int16
    models: list[str]
    gpu_memory: Int64
    labels: list[dict[str, str]]
    taints: list[list[dict[str, str]]]
    trust: Int16
    region: list[str]
    ready: Mask
    flavor: list[frozenset[str]]
    runtimes: list[frozenset[str]]
    tasks: Int32
    facts: list[Facts]
    price_cpu: Float64
    price_gpu: Float64
    stores: Stores
    sites: Sites
    # Where some are lent with bounds.
    terms: Terms | None = None
    # Where some jobs want others near or away.
    company: Company | None = field(default=None, repr=False)
    # What the static filters said, by `Request.static_key`; shared with forks.
    static_answers: dict[Hashable, StaticAnswer] = field(default_factory=dict, repr=False)
    label_columns: dict[str, Coded] = field(default_factory=dict, repr=False)
    # Counts the changes of free amounts; the last answer about them is good while it stays the same.
    version: int = 0
    capacity_answer: CapacityAnswer | None = field(default=None, repr=False)
    # The last request for which it was counted how many such members each empty node holds.
    slots: tuple[Request, Int64] | None = field(default=None, repr=False)
    # Indices of nodes whose free amounts changed, in order; rankings follow it.
    changes: list[int] = field(default_factory=list, repr=False)
    # `engine.ranking.Ranking` by what is asked for.
    rankings: dict[Request, object] = field(default_factory=dict, repr=False)
    # `engine.fragmentation.Mix`, when something is known of the work that comes, and where its classes may run.
    mix: object | None = field(default=None, repr=False)
    may_run: npt.NDArray[np.bool_] | None = field(default=None, repr=False)

    @classmethod
    def build(cls, rows: Sequence[NodeRow]) -> "Fleet":
        """Arrays from plain rows, in their order; earlier rows win ties."""
        models = sorted({row.gpu_model for row in rows if row.gpu_model})
        codes = {model: code for code, model in enumerate(models)}
        width = max((len(row.gpu_free) for row in rows), default=0)
        # Column-major, as every question about cards goes over all nodes card by card.
        gpu_free = np.full((len(rows), width), NO_CARD, dtype=np.int32, order="F")
        for index, row in enumerate(rows):
            gpu_free[index, : len(row.gpu_free)] = row.gpu_free

        def column(name: str) -> Int64:
            return np.array([getattr(row, name) for row in rows], dtype=np.int64)

        return cls(
            ids=column("id"),
            names=[row.name for row in rows],
            cpu=column("cpu_free"),
            memory=column("memory_free"),
            storage=column("storage_free"),
            cpu_capacity=column("cpu_capacity"),
            memory_capacity=column("memory_capacity"),
            storage_capacity=column("storage_capacity"),
            gpu_free=gpu_free,
            gpu_model=np.array([codes.get(row.gpu_model, -1) for row in rows], dtype=np.int16),
            models=models,
            gpu_memory=column("gpu_memory"),
            labels=[dict(row.labels) for row in rows],
            taints=[[dict(taint) for taint in row.taints] for row in rows],
            trust=np.array([row.trust for row in rows], dtype=np.int16),
            region=[row.region for row in rows],
            ready=np.array([row.ready for row in rows], dtype=np.bool_),
            flavor=[row.flavor for row in rows],
            runtimes=[row.runtimes for row in rows],
            tasks=np.array([row.tasks for row in rows], dtype=np.int32),
            facts=[row.facts for row in rows],
            price_cpu=np.array([row.price_cpu for row in rows], dtype=np.float64),
            price_gpu=np.array([row.price_gpu for row in rows], dtype=np.float64),
            stores=Stores([row.stored for row in rows], [row.network for row in rows]),
            sites=Sites([row.site for row in rows], [row.watts for row in rows]),
            terms=Terms.of([row.lending for row in rows]),
        )

    def __len__(self) -> int:
        return len(self.names)

    def fork(self) -> "Fleet":
        """A fleet with its own free amounts; everything else, the kept answers too, is shared."""
        self._warm()
        twin = copy.copy(self)
        twin.cpu, twin.memory, twin.storage = self.cpu.copy(), self.memory.copy(), self.storage.copy()
        twin.gpu_free, twin.tasks = self.gpu_free.copy(order="K"), self.tasks.copy()
        twin.changes, twin.rankings = self.changes.copy(), self.rankings.copy()
        twin.terms = self.terms and self.terms.fork()
        twin.company = self.company and self.company.fork()
        return twin

    def draft(self) -> "Fleet":
        """A fork to place the members of one job in, who are no company for each other."""
        twin = self.fork()
        if twin.company is not None:
            twin.company.still = True
        return twin

    def empty(self) -> "Fleet":
        """The same nodes with nothing running on them, at no time in particular."""
        self._warm()
        twin = copy.copy(self)
        twin.cpu, twin.memory, twin.storage = self.cpu_capacity, self.memory_capacity, self.storage_capacity
        whole = np.where(self.gpu_free == NO_CARD, NO_CARD, WHOLE_CARD).astype(np.int32)
        twin.gpu_free, twin.tasks = np.asfortranarray(whole), np.zeros_like(self.tasks)
        twin.capacity_answer = None
        twin.changes, twin.rankings = [], {}
        twin.terms, twin.company = self.terms and self.terms.at(None), None
        return twin

    def at(
        self,
        *,
        cpu: Int64,
        memory: Int64,
        storage: Int64,
        gpu_free: Int32,
        tasks: Int32,
        ready: Mask,
        terms: Terms | None = None,
    ) -> "Fleet":
        """The same nodes at another time. What static filters said is kept while the same nodes are ready."""
        self._warm()
        twin = copy.copy(self)
        twin.cpu, twin.memory, twin.storage = cpu, memory, storage
        twin.gpu_free, twin.tasks, twin.ready, twin.terms, twin.company = gpu_free, tasks, ready, terms, None
        twin.capacity_answer, twin.changes, twin.rankings = None, [], {}
        if not np.array_equal(ready, self.ready):
            twin.static_answers, twin.mix, twin.may_run = {}, None, None
        return twin

    def take(self, request: Request, node: int, cards: Sequence[int]) -> None:
        """Charge one member to a node and its cards."""
        self._change(request, node, cards, 1)

    def give(self, request: Request, node: int, cards: Sequence[int]) -> None:
        """Give back what one member holds."""
        self._change(request, node, cards, -1)

    def _change(self, request: Request, node: int, cards: Sequence[int], sign: int) -> None:
        self.version += 1
        self.cpu[node] -= sign * request.cpu
        self.memory[node] -= sign * request.memory
        self.storage[node] -= sign * request.storage
        for card in cards:
            self.gpu_free[node, card] -= sign * request.gpu_milli
        self.tasks[node] += sign
        if self.terms is not None and request.consumer is not None:
            self.terms.take(node, request.consumer, request.held, sign)
        if self.company is not None and request.bonds is not None:
            self.company.count(request.bonds, node, sign)
        if len(self.changes) >= _CHANGES_MAX:
            self.changes, self.rankings = [], {}
        self.changes.append(node)

    # Derived from what does not change

    @cached_property
    def cards(self) -> Int64:
        """Number of cards of each node."""
        count: Int64 = (self.gpu_free != NO_CARD).sum(axis=1, dtype=np.int64)
        return count

    @cached_property
    def per_cpu(self) -> Float64:
        """One over the cpu capacity; 0 where there is none."""
        return _inverse(self.cpu_capacity)

    @cached_property
    def per_memory(self) -> Float64:
        """One over the memory capacity; 0 where there is none."""
        return _inverse(self.memory_capacity)

    @cached_property
    def containers(self) -> Mask:
        """Which nodes can run an image."""
        return np.array([bool(CONTAINER_RUNTIMES & runtimes) for runtimes in self.runtimes], dtype=np.bool_)

    @cached_property
    def regions(self) -> Coded:
        """Code of each node's region, and the codes."""
        return _coded(self.region)

    @cached_property
    def taint_sets(self) -> tuple[npt.NDArray[np.intp], list[list[dict[str, str]]]]:
        """Code of each node's set of taints, and the distinct sets: many nodes share few."""
        distinct: list[list[dict[str, str]]] = []
        known: dict[Hashable, int] = {}
        codes = np.zeros(len(self), dtype=np.intp)
        for index, taints in enumerate(self.taints):
            key = tuple(tuple(sorted(taint.items())) for taint in taints)
            if key not in known:
                known[key] = len(distinct)
                distinct.append(taints)
            codes[index] = known[key]
        return codes, distinct

    @cached_property
    def dearest(self) -> tuple[float, float]:
        """The highest price of a core and of a card."""
        return float(self.price_cpu.max(initial=0.0)), float(self.price_gpu.max(initial=0.0))

    @cached_property
    def fact_sets(self) -> tuple[npt.NDArray[np.intp], list[Facts]]:
        """Code of each node's facts, and the distinct ones: many nodes are alike."""
        known: dict[Facts, int] = {}
        codes = [known.setdefault(facts, len(known)) for facts in self.facts]
        return np.array(codes, dtype=np.intp), list(known)

    def fact_mask(self, test: Callable[[Facts], bool]) -> Mask:
        """Nodes whose facts pass a test."""
        codes, distinct = self.fact_sets
        return np.array([test(facts) for facts in distinct], dtype=np.bool_)[codes]

    def label_column(self, label: str) -> Coded:
        """Code of each node's value of a label (0 where it has none), and the codes."""
        column = self.label_columns.get(label)
        if column is None:
            column = _coded([labels.get(label) for labels in self.labels])
            if len(self.label_columns) >= _CACHE_LIMIT:
                self.label_columns.clear()
            self.label_columns[label] = column
        return column

    def label_mask(self, label: str, values: Sequence[str]) -> Mask:
        """Nodes whose label has one of the values."""
        return coded_mask(self.label_column(label), values)

    def label_test(self, label: str, test: Callable[[str | None], bool]) -> Mask:
        """Nodes whose value of a label (None where it is absent) passes a test."""
        codes, known = self.label_column(label)
        return np.array([test(value) for value in (None, *known)], dtype=np.bool_)[codes]

    def domains(self, key: str) -> npt.NDArray[np.intp]:
        """A number for the domain that each node is in; 0 is none. The key `node` makes each node its own."""
        return np.arange(1, len(self) + 1) if key == NODE else self.label_column(key)[0]

    def price(self, request: Request) -> Float64:
        """What an hour of one member costs on each node."""
        cards = request.gpu_count * request.gpu_milli / WHOLE_CARD
        return np.asarray(self.price_cpu * (request.cpu / 1000) + self.price_gpu * cards, dtype=np.float64)

    def flavor_mask(self, name: str) -> Mask:
        """Nodes that belong to the flavor."""
        return np.array([name in flavors for flavors in self.flavor], dtype=np.bool_)

    def remember(self, request: Request, answer: StaticAnswer) -> None:
        """Keep what the static filters said of requests like this one."""
        if len(self.static_answers) >= _CACHE_LIMIT:
            self.static_answers.clear()
        self.static_answers[request.static_key] = answer

    def keep_ranking(self, request: Request, ranking: object) -> None:
        """Keep the scores of all nodes for requests like this one."""
        if len(self.rankings) >= _CACHE_LIMIT:
            self.rankings.clear()
        self.rankings[request] = ranking

    def _warm(self) -> None:
        """Derive once what every twin would otherwise derive again."""
        _ = self.cards, self.per_cpu, self.per_memory, self.containers, self.regions, self.taint_sets, self.fact_sets


# Runtimes, as agents report them, that can start an image.
CONTAINER_RUNTIMES = frozenset({"docker", "podman", "kubernetes"})


def _inverse(capacity: Int64) -> Float64:
    return np.where(capacity > 0, 1.0 / np.maximum(capacity, 1), 0.0)


def _coded(values: Sequence[str | None]) -> Coded:
    """Codes from 1; 0 stands for None."""
    codes: dict[str, int] = {}
    column = np.zeros(len(values), dtype=np.intp)
    for index, value in enumerate(values):
        if value is not None:
            column[index] = codes.setdefault(value, len(codes) + 1)
    return column, codes


def coded_mask(column: Coded, values: Sequence[str]) -> Mask:
    """Where a coded column has one of the values."""
    codes, known = column
    table = np.zeros(len(known) + 1, dtype=np.bool_)
    table[[known[value] for value in values if value in known]] = True
    return table[codes]


def of_group(nodes: Nodes | None, group: int) -> Mask | None:
    """The nodes that one group of a job may take."""
    return nodes[group] if isinstance(nodes, tuple) else nodes
