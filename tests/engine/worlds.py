"""Small builders and Hypothesis strategies for trees, fleets and requests."""

from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import strategies as st

from engine.company import Bonds, Company, Neighbours
from engine.constraints import Apart, Expression, Facts, Hardware, Together
from engine.placement import Fleet, Groups, NodeRow, Request
from engine.quota import FlavorResource, Limit, Node, QuotaTree
from engine.sites import NOWHERE, Site
from engine.snapshot import Candidate, PoolView, Snapshot
from engine.stores import Stored, Wanted
from engine.topology import Constraint

GIB = 1 << 30
CPU: FlavorResource = ("default", "cpu")
GPU: FlavorResource = ("default", "gpu")
RESOURCES = ("cpu", "memory", "storage", "gpu")


def row(number: int, **values: Any) -> NodeRow:
    """A ready node of 8 cores and 32 GiB; what is free defaults to the capacity."""
    values.setdefault("cpu_capacity", 8000)
    values.setdefault("memory_capacity", 32 * GIB)
    values.setdefault("storage_capacity", 100 * GIB)
    for name in ("cpu", "memory", "storage"):
        values.setdefault(f"{name}_free", values[f"{name}_capacity"])
    if values.get("gpu_free"):
        values.setdefault("gpu_model", "A100")
        values.setdefault("gpu_memory", 40 * GIB)
    return NodeRow(id=100 + number, name=f"n{number}", **values)


def totals(groups: Groups) -> dict[str, int]:
    """What groups are charged, by resource."""
    return {
        "cpu": sum(request.cpu * count for request, count in groups),
        "memory": sum(request.memory * count for request, count in groups),
        "storage": sum(request.storage * count for request, count in groups),
        "gpu": sum(request.gpu_count * request.gpu_milli * count for request, count in groups),
    }


def candidate(job: int, queue: int, groups: Groups | Request, **values: Any) -> Candidate:
    """A candidate of pool `p`; one request stands for one group of one member."""
    listed = [(groups, 1)] if isinstance(groups, Request) else list(groups)
    values.setdefault("amounts", totals(listed))
    values.setdefault("submitted", float(job))
    values.setdefault("priority", 0)
    values.setdefault("pool", "p")
    values.setdefault("equivalence", tuple((request.shape, count) for request, count in listed))
    return Candidate(job=job, queue=queue, groups=listed, **values)


def one_pool(fleet: Fleet, *flavors: str) -> dict[str, PoolView]:
    """Pool `p` of all nodes; each flavor has those that name it, or all of them if none does."""
    everything = np.ones(len(fleet), dtype=np.bool_)
    views = []
    for flavor in flavors or ("default",):
        mask = fleet.flavor_mask(flavor)
        views.append((flavor, mask if mask.any() else everything))
    return {"p": PoolView(everything, views)}


def wide_tree(queues: int, flavors: tuple[str, ...] = ("default",), nominal: int = 10**15) -> QuotaTree:
    """Queues 1…n below cohort 0, with so much quota that it does not matter unless `nominal` says so."""
    limits = {(flavor, resource): Limit(nominal) for flavor in flavors for resource in RESOURCES}
    nodes = [Node(0, None, "all", {})]
    return QuotaTree(nodes + [Node(queue, 0, f"q{queue}", limits) for queue in range(1, queues + 1)], {})


amount = st.integers(0, 12)
limit_or_none = st.one_of(st.none(), st.integers(0, 8))
limits = st.builds(Limit, nominal=amount, borrowing_limit=limit_or_none, lending_limit=limit_or_none)


@st.composite
def trees(draw: st.DrawFn, frs: tuple[FlavorResource, ...] = (CPU,)) -> list[Node]:
    """Forests of up to 8 nodes, any depth, parents before children."""
    count = draw(st.integers(1, 8))
    nodes = []
    for number in range(count):
        parent = draw(st.one_of(st.none(), st.integers(0, number - 1))) if number else None
        mine = {fr: draw(limits) for fr in frs if draw(st.integers(0, 4))}
        nodes.append(Node(number, parent, f"node{number}", mine))
    return nodes


def leaves(nodes: list[Node]) -> list[int]:
    """Ids of the nodes that are nobody's parent."""
    parents = {node.parent for node in nodes}
    return [node.id for node in nodes if node.id not in parents]


facts = st.sampled_from(
    [
        Facts(),
        Facts("x86_64", frozenset({"avx"}), "3.9.2", "7.5", "470.82"),
        Facts("x86_64", frozenset({"avx", "avx2"}), "3.11.4", "8.0", "535.104.5", frozenset({"nvlink"})),
        Facts("aarch64", python="3.12.0", packages=frozenset({"numpy"})),
    ]
)
hardware = st.sampled_from(
    [
        *[Hardware()] * 6,
        Hardware(architectures=frozenset({"x86_64"}), cpu_flags=frozenset({"avx2"})),
        Hardware(gpu_compute="8.0", interconnects=frozenset({"nvlink"})),
        Hardware(gpu_driver="535", python="3.10"),
        Hardware(packages=frozenset({"numpy"})),
    ]
)
expressions = st.sampled_from(
    [
        *[()] * 4,
        (Expression("zone", "NotIn", ("a",)),),
        (Expression("zone", "Exists"), Expression("zone", "In", ("b",))),
    ]
)


SITES = (Site("eu", frozenset({"EU", "DE"}), {"us": 90.0}, 300.0), Site("us", frozenset({"US"}), {"eu": 90.0}))
stored = st.sampled_from(
    [
        *[Stored(), Stored(frozenset({"base"})), Stored(datasets={"corpus": GIB})],
        Stored(frozenset({"base"}), {"corpus": 0, "maps": 1}),
    ]
)
wanted = st.sampled_from(
    [
        *[None] * 6,
        Wanted("base", image_needed=True),
        Wanted(datasets=("corpus", "maps"), needed=("maps",)),
        Wanted("base", datasets=("corpus",)),
    ]
)


@st.composite
def node_rows(draw: st.DrawFn, most: int = 5) -> list[NodeRow]:
    """Up to `most` small nodes with partly used resources, cards, labels and taints."""
    rows = []
    for number in range(draw(st.integers(1, most))):
        cpu, memory = draw(st.sampled_from([2000, 4000, 8000])), draw(st.sampled_from([4, 8, 16]))
        cards = draw(st.lists(st.sampled_from([-1, 0, 300, 500, 700, 1000]), max_size=3))
        rows.append(
            row(
                number,
                cpu_capacity=cpu,
                cpu_free=draw(st.integers(0, 8)) * cpu // 8,
                memory_capacity=memory * GIB,
                memory_free=draw(st.integers(0, memory)) * GIB,
                storage_capacity=10 * GIB,
                storage_free=draw(st.integers(0, 10)) * GIB,
                gpu_free=cards,
                gpu_model=draw(st.sampled_from(["A100", "T4"])) if cards else "",
                labels={"zone": draw(st.sampled_from("ab"))} if draw(st.booleans()) else {},
                taints=[{"key": "k", "value": "v", "effect": "NoSchedule"}] if not draw(st.integers(0, 4)) else [],
                trust=draw(st.integers(0, 2)),
                region=draw(st.sampled_from(["eu", "us"])),
                ready=draw(st.integers(0, 6)) > 0,
                runtimes=frozenset({"podman"}) if draw(st.booleans()) else frozenset(),
                tasks=draw(st.integers(0, 3)),
                facts=draw(facts),
                price_cpu=draw(st.sampled_from([0.0, 0.5, 2.0])),
                price_gpu=draw(st.sampled_from([0.0, 1.0])),
                stored=draw(stored),
                site=draw(st.sampled_from([NOWHERE, *SITES])),
                watts=draw(st.sampled_from([(0.0, 0.0), (5.0, 300.0), (2.0, 0.0)])),
                network=draw(st.sampled_from([0, 100, 10_000])),
            )
        )
    return rows


closeness = st.sampled_from(
    [
        *[{}] * 6,
        {"together": Together(("zone",), Constraint.REQUIRED, "zone")},
        {"together": Together(("zone",), Constraint.PREFERRED, "zone")},
        {"apart": Apart("node", most=1)},
        {"apart": Apart("zone", max_skew=1)},
    ]
)


_WEB = (("app", ("web",)),)
bonds = st.builds(
    Bonds,
    tenant=st.sampled_from([1, 1, 2]),
    labels=st.sampled_from([(), (("app", "web"),), (("app", "db"),)]),
    near=st.sampled_from(
        [
            *[()] * 4,
            (Neighbours(_WEB, "zone"),),
            (Neighbours((("app", ("db", "web")),)),),
            (Neighbours(_WEB, "zone", 2.0), Neighbours((("app", ("db",)),), "node", 1.0)),
        ]
    ),
    away=st.sampled_from([*[()] * 4, (Neighbours(_WEB),), (Neighbours((("app", ("db",)),), "zone"),)]),
)


goals = st.sampled_from(
    [
        *[()] * 3,
        (("cost", 3.0),),
        (("locality", 2.0), ("warmth", 1.0)),
        (("energy", 1.0), ("latency", 1.0)),
    ]
)


@st.composite
def requests(draw: st.DrawFn) -> Request:
    """Requests of a size that often but not always fits `node_rows`."""
    cards = draw(st.sampled_from([0, 0, 1, 1, 2]))
    return Request(
        cpu=draw(st.sampled_from([0, 250, 1000, 3000])),
        memory=draw(st.sampled_from([0, 1, 4])) * GIB,
        storage=draw(st.sampled_from([0, 1, 3])) * GIB,
        gpu_count=cards,
        gpu_milli=draw(st.sampled_from([300, 500, 1000])) if cards else 1000,
        gpu_models=frozenset(draw(st.sampled_from([(), (), ("A100",)]))) if cards else frozenset(),
        labels=draw(st.sampled_from([{}, {}, {"zone": ("a",)}])),
        regions=draw(st.sampled_from([(), (), ("eu",)])),
        trust=draw(st.sampled_from([0, 0, 1])),
        tolerations=draw(st.sampled_from([(), ({"key": "k"},)])),
        image=draw(st.sampled_from([False, False, True])),
        prefer=draw(st.sampled_from([(), (("zone", ("b",), 5.0),)])),
        strategy=draw(st.sampled_from(["pack", "spread"])),
        hardware=draw(hardware),
        expressions=draw(expressions),
        max_price=draw(st.sampled_from([None, None, None, 1.0])),
        goals=draw(goals),
        wanted=draw(wanted),
        jurisdictions=draw(st.sampled_from([frozenset[str](), frozenset[str](), frozenset({"EU"})])),
        near_region=draw(st.sampled_from(["", "us"])),
        **draw(closeness),
    )


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    """Whole worlds: one pool with two flavors, a tree of queues, and candidates of few kinds."""
    fleet = Fleet.build(draw(node_rows(6)))
    first = np.array(draw(st.lists(st.booleans(), min_size=len(fleet), max_size=len(fleet))))
    frs = tuple((flavor, resource) for flavor in ("x", "y") for resource in RESOURCES)
    sizes = {"cpu": 1000, "memory": GIB, "storage": GIB, "gpu": 500}
    nodes = [
        Node(
            node.id,
            node.parent,
            node.name,
            {
                fr: Limit(
                    *(
                        None if value is None else value * sizes[fr[1]]
                        for value in (limit.nominal, limit.borrowing_limit, limit.lending_limit)
                    )  # type: ignore[arg-type]
                )
                for fr, limit in node.limits.items()
            },
        )
        for node in draw(trees(frs))
    ]
    queues = [*leaves(nodes), 99] if not draw(st.integers(0, 9)) else leaves(nodes)
    single = st.tuples(requests(), st.just(1)).map(lambda group: [group])
    gang = st.lists(st.tuples(requests(), st.integers(1, 3)), min_size=1, max_size=2)
    kinds = draw(st.lists(single | gang, min_size=1, max_size=4))
    if draw(st.booleans()):
        kinds = [
            [(replace(request, bonds=mine), count) for request, count in kind]
            for kind in kinds
            for mine in [draw(st.none() | bonds)]
        ]
        there = draw(st.lists(st.tuples(bonds, st.integers(0, len(fleet) - 1)), max_size=4))
        fleet.company = Company(fleet.domains, there)
    items = [
        candidate(
            job,
            draw(st.sampled_from(queues)),
            draw(st.sampled_from(kinds)),
            priority=draw(st.integers(0, 2)),
            submitted=float(draw(st.integers(0, 5))),
            pool=draw(st.sampled_from(["p", "p", "p", "p", "q"])),
            not_before=draw(st.sampled_from([0.0, 0.0, 0.0, 100.0])),
        )
        for job in range(draw(st.integers(0, 12)))
    ]
    pools = {"p": PoolView(np.ones(len(fleet), dtype=np.bool_), [("x", first), ("y", ~first)])}
    suspended = frozenset(queues[:1]) if not draw(st.integers(0, 9)) else frozenset()
    across = draw(st.sampled_from([frozenset[str](), frozenset({"p"}), frozenset({"p", "q"})]))
    return Snapshot(fleet, pools, QuotaTree(nodes, {}), items, suspended, across=across)
