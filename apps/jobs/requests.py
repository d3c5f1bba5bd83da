"""From a normalised job spec to what the engine places and charges."""

from collections.abc import Hashable, Iterable
from dataclasses import replace
from functools import lru_cache
from typing import Any

from engine.company import Bonds, Neighbours
from engine.constraints import Apart, Expression, Hardware, Together
from engine.fleet import Request
from engine.stores import Wanted
from engine.topology import Constraint
from rmctl.names import canonical_image

Groups = tuple[tuple[Request, int], ...]


def minimums_of(spec: dict[str, Any]) -> tuple[int | None, ...]:
    """By group: with how few members the job starts too; empty where all groups are all or nothing."""
    least = tuple(group.get("min_count") for group in spec["groups"])
    return least if any(least) else ()


def groups_of(spec: dict[str, Any], *, fewest: bool = False) -> Groups:
    """Each group as (request of one member, number of members, or the fewest with which the job starts)."""
    intent = spec["intent"]
    require = intent.get("require") or {}
    shared = {
        "labels": {key: tuple(values) for key, values in (require.get("labels") or {}).items()},
        "regions": frozenset(require.get("regions") or ()),
        "trust": require.get("trust") or 0,
        "jurisdictions": frozenset(require.get("jurisdictions") or ()),
        "near_region": intent.get("near_region") or "",
        "tolerations": tuple(require.get("tolerations") or ()),
        "expressions": tuple(
            Expression(item["label"], item["operator"], tuple(item["values"])) for item in require.get("nodes") or ()
        ),
        "max_price": require.get("max_price"),
        "prefer": tuple(
            (item["label"], tuple(item["values"]), float(item.get("weight", 1))) for item in intent.get("prefer") or []
        ),
        "strategy": intent.get("placement") or "pack",
        "goals": tuple((name, float(weight)) for name, weight in sorted((intent.get("goals") or {}).items())),
        "together": _together(intent.get("together")),
        "apart": Apart(**intent["apart"]) if intent.get("apart") else None,
        "bonds": _bonds(spec) if bonded(spec) else None,
    }
    groups = []
    for group in spec["groups"]:
        resources = group["resources"]
        gpu = resources.get("gpu") or {}
        request = Request(
            cpu=resources["cpu_millicores"],
            memory=resources["memory_bytes"],
            storage=resources["storage_bytes"],
            gpu_count=gpu.get("count", 0),
            gpu_milli=gpu.get("milli", 1000),
            gpu_models=frozenset(gpu.get("models") or ()),
            gpu_memory=gpu.get("memory_bytes") or 0,
            image=bool(group.get("image")),
            hardware=_hardware(require, cards=bool(gpu)),
            wanted=_wanted(intent, require, group.get("image")),
            **shared,
        )
        count = (group.get("min_count") if fewest else None) or group["count"]
        groups.append((request, count))
    return tuple(groups)


def _hardware(require: dict[str, Any], *, cards: bool) -> Hardware:
    """What is asked of the machine; what concerns cards is asked only for groups that have some."""
    return Hardware(
        architectures=frozenset(require.get("architectures") or ()),
        cpu_flags=frozenset(require.get("cpu_flags") or ()),
        python=require.get("python") or "",
        gpu_compute=(cards and require.get("gpu_compute")) or "",
        gpu_driver=(cards and require.get("gpu_driver")) or "",
        interconnects=frozenset(require.get("interconnects") or ()),
        packages=frozenset(require.get("packages") or ()),
    )


def _wanted(intent: dict[str, Any], require: dict[str, Any], image: str | None) -> Wanted | None:
    """None where it matters neither to a filter nor to a goal what lies ready."""
    goals, present, needed = intent.get("goals") or {}, require.get("image_present"), require.get("datasets") or ()
    if not (present or needed or not goals.keys().isdisjoint(("warmth", "locality", "latency"))):
        return None
    return Wanted(
        image=canonical_image(image) if image and (present or "warmth" in goals) else "",
        image_needed=bool(present and image),
        datasets=tuple(datasets_of(intent)),
        needed=tuple(sorted(needed)),
    )


def datasets_of(intent: dict[str, Any]) -> list[str]:
    """The datasets that a job reads, whether they have to be on its node or not."""
    return sorted({*(intent.get("datasets") or ()), *((intent.get("require") or {}).get("datasets") or ())})


def bonded(spec: dict[str, Any]) -> bool:
    """Whether it matters to others which job it is, or to it which jobs others are."""
    return bool(spec.get("labels") or spec["intent"].get("near") or spec["intent"].get("away"))


def _bonds(spec: dict[str, Any]) -> Bonds:
    """Of no tenant yet, see `of_tenant`."""

    def listed(name: str) -> tuple[Neighbours, ...]:
        return tuple(
            Neighbours(
                tuple((label, tuple(values)) for label, values in sorted(one["jobs"].items())),
                one["key"],
                None if one["weight"] is None else float(one["weight"]),
            )
            for one in spec["intent"].get(name) or ()
        )

    return Bonds(0, tuple(sorted((spec.get("labels") or {}).items())), listed("near"), listed("away"))


def of_tenant(groups: Groups, tenant: int) -> Groups:
    """The same as jobs of a tenant: among its jobs it is that it matters who is where."""
    if groups[0][0].bonds is None:
        return groups
    bonds = replace(groups[0][0].bonds, tenant=tenant)
    return tuple((replace(request, bonds=bonds), count) for request, count in groups)


def _together(given: dict[str, Any] | None) -> Together | None:
    if not given:
        return None
    levels = tuple(given["levels"])
    return Together(
        levels=levels,
        constraint=Constraint(given["constraint"]),
        level=given["level"] or levels[-1],
        slice_level=given["slice_level"],
        slice_size=given["slice_size"],
    )


def lent_to(groups: Groups, domain: int, limit: float) -> Groups:
    """The same for a tenant of a domain with a time limit (seconds): what counts where nodes are lent with bounds."""
    return tuple((replace(request, consumer=domain, limit=limit), count) for request, count in groups)


def amounts_of(groups: Iterable[tuple[Request, int]]) -> dict[str, int]:
    """What the whole job is charged, by resource: millicores, bytes, thousandths of a card."""
    totals = {"cpu": 0, "memory": 0, "storage": 0, "gpu": 0}
    for request, count in groups:
        totals["cpu"] += request.cpu * count
        totals["memory"] += request.memory * count
        totals["storage"] += request.storage * count
        totals["gpu"] += request.gpu_count * request.gpu_milli * count
    return {resource: amount for resource, amount in totals.items() if amount}


class RequestCache:
    """Groups, amounts and minimums by equivalence, so that a spec is read once for all equal jobs."""

    def __init__(self, size: int = 20_000) -> None:
        self._known: dict[str, tuple[Groups, dict[str, int]]] = {}
        self._minimums: dict[str, tuple[int | None, ...]] = {}
        self._owned: dict[tuple[Hashable, ...], Groups] = {}
        self._size = size

    def missing(self, equivalences: set[str]) -> set[str]:
        """Those that have to be added from their specs; what is known besides goes when there is no room."""
        found = equivalences - self._known.keys()
        if len(self._known) + len(found) > self._size:
            self._known = {key: self._known[key] for key in equivalences - found}
            self._minimums = {key: least for key, least in self._minimums.items() if key in self._known}
            self._owned.clear()
        return found

    def add(self, equivalence: str, spec: dict[str, Any]) -> None:
        """Remember what a spec asks for."""
        groups = groups_of(spec)
        self._known[equivalence] = (groups, amounts_of(groups))
        least = minimums_of(spec)
        if least:
            self._minimums[equivalence] = least

    def __getitem__(self, equivalence: str) -> tuple[Groups, dict[str, int]]:
        return self._known[equivalence]

    def owned(self, equivalence: str, tenant: int, lent: tuple[int, float] | None) -> tuple[Groups, Hashable]:
        """The groups as a job of a tenant has them, and what is the same for all that have the same.

        `lent` is the tenant's domain and the job's time limit, where nodes are lent with bounds.
        """
        groups = self._known[equivalence][0]
        bonded = groups[0][0].bonds is not None
        if not bonded and lent is None:
            return groups, equivalence
        alike = (equivalence, tenant if bonded else None, lent and lent[1])
        key = (*alike, lent and lent[0])
        found = self._owned.get(key)
        if found is None:
            if len(self._owned) >= self._size:
                self._owned.clear()
            found = of_tenant(groups, tenant)
            found = self._owned[key] = found if lent is None else lent_to(found, *lent)
        return found, alike

    def minimums(self, equivalence: str) -> tuple[int | None, ...]:
        """As `minimums_of` the spec."""
        return self._minimums.get(equivalence, ())


@lru_cache(maxsize=1)
def cache() -> RequestCache:
    """This process's cache."""
    return RequestCache()
