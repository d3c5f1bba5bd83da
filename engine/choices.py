"""Which flavors a job may have: one for all its groups, or another one for each.

The members of a group share a flavor, as one asks for the same as the other; so do all resources of a member, as
they come from its node.
"""

from collections.abc import Iterable, Sequence
from itertools import islice, product
from math import prod
from typing import NamedTuple

from engine.fleet import Fleet, Mask, Nodes
from engine.placement import Groups, Split, obstacles

# Choices that are tried for one job.
CHOICES_MAX = 24
# Between the names of different flavors; no flavor has it in its own.
SEVERAL = " + "


class Choice(NamedTuple):
    """A flavor with its nodes; or where groups have different ones, `flavors` and nodes of each group."""

    name: str
    nodes: Nodes
    flavors: tuple[str, ...] = ()


def combinations(open_to: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    """A flavor (by place in the pool's order) for each group, from those that are open to it; at most CHOICES_MAX.

    Like Kueue's: the first group gets the first flavor it can have, and so on. Where that would be too many, groups
    to which the same are open get the same, and of these the first; one for all groups is always among them.
    """
    if prod(len(group) for group in open_to) <= CHOICES_MAX:
        return list(product(*open_to))
    kinds = list(dict.fromkeys(tuple(group) for group in open_to))
    same = [flavor for flavor in kinds[0] if all(flavor in kind for kind in kinds)]
    found = [
        tuple(chosen[kinds.index(tuple(group))] for group in open_to)
        for chosen in islice(product(*kinds), CHOICES_MAX)
    ]
    for flavor in same:
        if (uniform := (flavor,) * len(open_to)) not in found:
            found.append(uniform)
    return found


def choices(fleet: Fleet, groups: Groups, flavors: Sequence[Choice], split: Split) -> Sequence[Choice]:
    """What a job could have of these flavors with their nodes (`split`), in the order to try.

    Open to a group are the flavors that could hold it if they were empty. Where some group has none, no choice
    could serve the job, and each flavor by itself says why.
    """
    if len(groups) == 1 or len(flavors) < 2:
        return flavors
    open_to = [
        [place for place, never in enumerate(obstacles(fleet, [group], split)) if never is None] for group in groups
    ]
    if not all(open_to):
        return flavors
    return [choice(flavors, chosen) for chosen in combinations(open_to)]


def choice(flavors: Sequence[Choice], chosen: Sequence[int]) -> Choice:
    """These flavors, by group."""
    if len(set(chosen)) == 1:
        return flavors[chosen[0]]
    names = tuple(flavors[place].name for place in chosen)
    return Choice(named(names), tuple(_mask(flavors[place]) for place in chosen), names)


def named(flavors: Iterable[str]) -> str:
    """What a choice of different flavors is called, by group."""
    return SEVERAL.join(flavors)


def _mask(flavor: Choice) -> Mask:
    assert not isinstance(flavor.nodes, tuple)
    return flavor.nodes
