"""Single hard constraints of a job let go: what `engine.suggestions` tries besides labels, regions and sizes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import numpy as np

from engine.amounts import duration_text
from engine.company import Bonds, Neighbours
from engine.constraints import ANYTHING
from engine.fleet import Fleet, Request
from engine.placement import Groups
from engine.topology import Constraint

# What hardware is called for people, by field of `engine.constraints.Hardware`.
_NAMES = {
    "architectures": "architecture",
    "cpu_flags": "cpu flags",
    "python": "Python",
    "gpu_compute": "compute capability",
    "gpu_driver": "GPU driver",
    "interconnects": "interconnect",
    "packages": "Python packages",
}


@dataclass(frozen=True, slots=True)
class Relaxation:
    """One constraint of the job spec's `field` changed in all groups; `kind` is a key of the costs of suggestions."""

    field: str
    before: Any
    after: Any
    text: str
    kind: str
    change: Callable[[Request], Request]


def _changed(**changes: Any) -> Callable[[Request], Request]:
    return lambda request: replace(request, **changes)


def _without_hardware(field: str, request: Request) -> Request:
    nothing: dict[str, Any] = {field: getattr(ANYTHING, field)}
    return replace(request, hardware=replace(request.hardware, **nothing))


def relaxations(groups: Groups) -> Iterator[Relaxation]:
    """Each hard constraint that can only be kept or let go."""
    yield from _hardware(groups)
    first = groups[0][0]
    yield from _company(first.bonds)
    yield from _stores(groups)
    if first.jurisdictions:
        names = sorted(first.jurisdictions)
        yield Relaxation(
            "intent.require.jurisdictions", names, [], f"under any jurisdiction, not only {' or '.join(names)}: now",
            "jurisdictions", _changed(jurisdictions=frozenset()),
        )  # fmt: skip
    for expression in first.expressions:
        kept = tuple(one for one in first.expressions if one != expression)
        yield Relaxation(
            "intent.require.nodes", [str(one) for one in first.expressions], [str(one) for one in kept],
            f"without {expression}: now", "labels", _changed(expressions=kept),
        )  # fmt: skip
    if first.together is not None and first.together.constraint == Constraint.REQUIRED:
        loose = replace(first.together, constraint=Constraint.PREFERRED)
        yield Relaxation(
            "intent.together.constraint", Constraint.REQUIRED.value, Constraint.PREFERRED.value,
            f"with one {loose.level} only preferred: now", "together",
            lambda request: replace(request, together=loose) if request.together == first.together else request,
        )  # fmt: skip
    if first.apart is not None:
        before = {"key": first.apart.key, "max_skew": first.apart.max_skew, "most": first.apart.most}
        yield Relaxation(
            "intent.apart", before, None, f"without the spread over {first.apart.key}: now", "apart",
            _changed(apart=None),
        )  # fmt: skip


def _stores(groups: Groups) -> Iterator[Relaxation]:
    """Without having the image, or one of the datasets, there."""
    wanted = [request.wanted for request, _ in groups if request.wanted is not None]
    if any(one.image_needed for one in wanted):
        yield Relaxation(
            "intent.require.image_present", True, False, "without its image being there already: now", "stores",
            lambda request: _with_wanted(request, image_needed=False),
        )  # fmt: skip
    needed = wanted[0].needed if wanted else ()
    for name in needed:
        kept = tuple(other for other in needed if other != name)
        yield Relaxation(
            "intent.require.datasets", list(needed), list(kept), f"without dataset {name} on the node: now", "stores",
            partial(_with_wanted, needed=kept),
        )  # fmt: skip


def _with_wanted(request: Request, **changes: Any) -> Request:
    return request if request.wanted is None else replace(request, wanted=replace(request.wanted, **changes))


def _company(bonds: Bonds | None) -> Iterator[Relaxation]:
    """Without one of those who have to be near, or away."""
    for name in ("near", "away") if bonds is not None else ():
        given: tuple[Neighbours, ...] = getattr(bonds, name)
        for one in given:
            if one.weight is None:
                kept: dict[str, Any] = {name: tuple(other for other in given if other != one)}
                assert bonds is not None
                yield Relaxation(
                    f"intent.{name}", [str(other) for other in given], [str(other) for other in kept[name]],
                    f"without {'' if name == 'near' else 'staying away from '}{one}: now", "company",
                    _changed(bonds=replace(bonds, **kept)),
                )  # fmt: skip


def _hardware(groups: Groups) -> Iterator[Relaxation]:
    for field in (item.name for item in fields(ANYTHING)):
        wanted = next((value for request, _ in groups if (value := getattr(request.hardware, field))), None)
        if not wanted:
            continue
        listed = sorted(wanted) if isinstance(wanted, frozenset) else wanted
        said = ", ".join(listed) if isinstance(listed, list) else listed
        yield Relaxation(
            f"intent.require.{field}", listed, [] if isinstance(listed, list) else None,
            f"without {_NAMES[field]} {said}: now", "hardware",
            partial(_without_hardware, field),
        )  # fmt: skip


def prices(fleet: Fleet, groups: Groups) -> list[Relaxation]:
    """Higher ceilings for the price, the lowest first: each a price that some node has."""
    ceiling = groups[0][0].max_price
    if ceiling is None:
        return []
    found = np.unique(np.concatenate([fleet.price(request) for request, _ in groups]))
    return [_dearer(ceiling, price) for price in found[found > ceiling].tolist()]


def limits(fleet: Fleet, groups: Groups) -> list[Relaxation]:
    """Shorter time limits, the longest first: the whole minutes for which nodes are still lent."""
    request, _ = groups[0]
    if fleet.terms is None or request.consumer is None:
        return []
    left = {seconds // 60 * 60 for seconds in fleet.terms.remaining(request.consumer)}
    return [_shorter(request.limit, limit) for limit in sorted(left, reverse=True) if 0 < limit < request.limit]


def _shorter(before: float, limit: float) -> Relaxation:
    text = f"a time limit of {duration_text(limit)} instead of {duration_text(before)}: now"
    return Relaxation("time_limit", before, limit, text, "time_limit", _changed(limit=limit))


def _dearer(ceiling: float, price: float) -> Relaxation:
    return Relaxation(
        "intent.require.max_price", ceiling, price, f"a price of {price:g} an hour instead of {ceiling:g}: now",
        "price", _changed(max_price=price),
    )  # fmt: skip
