"""Placing all members of a job at once, or saying why not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from engine.amounts import amount_text
from engine.constraints import Together
from engine.domains import Evenly, parts, shared
from engine.filters import FILTERS, static_filters
from engine.filters.gpu import cards_with
from engine.fleet import WHOLE_CARD, Fleet, Int64, Mask, NodeRow, Nodes, Request, of_group
from engine.fragmentation import Mix, growth
from engine.funnels import Funnel, Step
from engine.matching import (
    Split,
    candidates,
    capacity_answer,
    expect,
    fitting,
    funnels,
    matching,
    sieve,
    static_answer,
)
from engine.ranking import ranking
from engine.reasons import Reason
from engine.scores import terms, total_score
from engine.topology import Constraint

__all__ = [
    "Fleet", "Funnel", "Member", "NodeFree", "NodeRow", "Placed", "Request", "Split", "Step", "Unplaced",
    "allowed_by_terms", "candidates", "expect", "feasibility", "find_places", "fits_node", "fits_row", "matching",
    "node_with_room", "nodes_with_amounts", "obstacles", "place_gang", "place_one", "placed_members", "shortages",
    "sieve", "take_members",
]  # fmt: skip

Groups = Sequence[tuple[Request, int]]
# Answers kept for groups on empty nodes; a bound, because tenants choose the requests.
OBSTACLES_MAX = 4096
# Requests times nodes that are looked at together.
CELLS = 1 << 20
# Less than any amount that is free, also where more is taken than there is.
_NO_MATTER = int(np.iinfo(np.int64).min)
# How far it went: members placed, the group that failed, and the fleet as those members left it.
_Failure = tuple[int, int, Fleet]
# (group index, rank over all groups, node index, card indices)
Member = tuple[int, int, int, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Placed:
    """Every member has a node; `members` are in the order of their ranks."""

    members: tuple[Member, ...]
    scores: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Unplaced:
    """No place for all members; nothing was taken."""

    reason: Reason
    funnel: Funnel
    detail: str


@dataclass(frozen=True, slots=True)
class NodeFree:
    """What is free on one node as its locked rows say; `gpu` maps card index to thousandths."""

    cpu: int
    memory: int
    storage: int
    gpu: Mapping[int, int] = field(default_factory=dict)


def fits_node(free: NodeFree, request: Request, gpus: Sequence[int]) -> str | None:
    """The dimension in which a member with these cards does not fit the node, or None if it fits."""
    if request.cpu > free.cpu:
        return "cpu"
    if request.memory > free.memory:
        return "memory"
    if request.storage > free.storage:
        return "storage"
    if len(set(gpus)) != request.gpu_count:
        return "gpu"
    if any(free.gpu.get(card, -1) < request.gpu_milli for card in gpus):
        return "gpu"
    return None


def take_members(fleet: Fleet, groups: Groups, members: Sequence[Member]) -> None:
    """Charge placed members to a fleet."""
    for group, _, node, cards in members:
        fleet.take(groups[group][0], node, cards)


# Choosing


def _choose_cards(fleet: Fleet, request: Request, node: int) -> tuple[int, ...]:
    """Cards of a node that fits: a share goes to the card on which least is lost, else to the one it leaves fullest."""
    if not request.gpu_count:
        return ()
    free = fleet.gpu_free[node].tolist()
    fitting = [card for card, amount in enumerate(free) if amount >= request.gpu_milli]
    if request.gpu_count == 1:
        if isinstance(fleet.mix, Mix) and request.gpu_milli < WHOLE_CARD and len(fitting) > 1:
            _, cards = growth(fleet, fleet.mix, fleet.may_run, request, np.array([node], dtype=np.intp))
            return (int(cards[0]),)
        return (min(fitting, key=free.__getitem__),)
    # Emptiest first, so that the largest number of members with several shares fits on the node.
    fitting.sort(key=lambda card: (-free[card], card))
    return tuple(sorted(fitting[: request.gpu_count]))


def node_with_room(fleet: Fleet, request: Request, known: int | None = None) -> int | None:
    """A node on which one member has room now, if there is any at all: the one that had it before, if it still has."""
    own = known if request.bonds is None else None  # Whoever has bonds looks at more than one node.
    if own is not None and fits_row(fleet, request, own) and allowed_by_terms(fleet, request, own):
        return own
    answer = capacity_answer(fleet, request)
    return int(answer.fitting.argmax()) if answer.any else None


def nodes_with_amounts(fleet: Fleet, requests: Sequence[Request]) -> list[int | None]:
    """For each request the first node that matches it and has the amounts for one member now, if there is any.

    Far cheaper than to ask for one after the other, and mostly the end of it: on a full fleet hardly any has.
    """
    if not len(fleet):
        return [None] * len(requests)
    found: list[int | None] = []
    step = max(1, CELLS // len(fleet))
    cards = {milli: cards_with(fleet, milli) for milli in {one.gpu_milli for one in requests if one.gpu_count}}
    for start in range(0, len(requests), step):
        part = requests[start : start + step]
        fits = np.array([static_answer(fleet, request).passing for request in part])
        for free, needs in (
            (fleet.cpu, [request.cpu for request in part]),
            (fleet.memory, [request.memory for request in part]),
            (fleet.storage, [request.storage or _NO_MATTER for request in part]),
        ):
            fits &= free >= np.array(needs, dtype=np.int64)[:, np.newaxis]
        for row, request in enumerate(part):
            if request.gpu_count:
                fits[row] &= cards[request.gpu_milli] >= request.gpu_count
        first = fits.argmax(axis=1)
        some = np.take_along_axis(fits, first[:, np.newaxis], axis=1)[:, 0]
        found += [node if fits_it else None for node, fits_it in zip(first.tolist(), some.tolist(), strict=True)]
    return found


def place_one(fleet: Fleet, request: Request, allowed: Mask | None) -> Placed | None:
    """A place for a single member, or None. The fleet is not changed."""
    answer = capacity_answer(fleet, request)
    if not answer.any:
        return None
    fitting = answer.fitting if allowed is None else answer.fitting & allowed
    nodes = np.flatnonzero(fitting)
    if not len(nodes):
        return None
    node = int(nodes[0])
    if len(nodes) > 1:
        node = ranking(fleet, request).best(fitting)
    cards = _choose_cards(fleet, request, node)
    scores = {"node": fleet.names[node], "candidates": len(nodes), "terms": terms(fleet, request, node)}
    return Placed(((0, 0, node, cards),), scores)


def _fill(scratch: Fleet, request: Request, count: int, allowed: Mask | None) -> list[tuple[int, tuple[int, ...]]]:
    """Nodes and cards for up to `count` equal members, charged to `scratch`.

    After each member only its own node is scored again. For equal members the greedy choice finds places for
    all of them whenever there are any, also where they have to spread: a domain that is full while others hold
    more holds back every order alike.
    """
    score = np.full(len(scratch), -np.inf)
    nodes = np.flatnonzero(fitting(scratch, request, allowed))
    if len(nodes):
        score[nodes] = total_score(scratch, request, nodes)
    evenly = Evenly(scratch, request.apart, matching(scratch, request, allowed)) if request.apart else None
    places: list[tuple[int, tuple[int, ...]]] = []
    while len(nodes) and len(places) < count:
        choice = score if evenly is None else evenly.open_scores(score)
        node = int(np.argmax(choice))
        if choice[node] == -np.inf:
            break
        if evenly is not None:
            evenly.add(node)
        cards = _choose_cards(scratch, request, node)
        scratch.take(request, node, cards)
        places.append((node, cards))
        if not allowed_by_terms(scratch, request, node):
            # Nodes that are lent under the same terms share the cap that is used up.
            assert scratch.terms is not None
            score[scratch.terms.codes == scratch.terms.codes[node]] = -np.inf
        elif fits_row(scratch, request, node):
            score[node] = total_score(scratch, request, np.array([node], dtype=np.intp))[0]
        else:
            score[node] = -np.inf
    return places


def allowed_by_terms(fleet: Fleet, request: Request, node: int) -> bool:
    """Whether the terms under which a node is lent let a member go there now."""
    if fleet.terms is None or request.consumer is None:
        return True
    return fleet.terms.allow(node, request.consumer, request.limit, request.held)


def fits_row(fleet: Fleet, request: Request, node: int) -> bool:
    """Whether one node has the amounts for one more member."""
    if fleet.cpu[node] < request.cpu or fleet.memory[node] < request.memory or fleet.storage[node] < request.storage:
        return False
    if not request.gpu_count:
        return True
    return int(np.count_nonzero(fleet.gpu_free[node] >= request.gpu_milli)) >= request.gpu_count


def _difficulty(fleet: Fleet, request: Request, allowed: Mask | None) -> tuple[float, ...]:
    """Sorts the hardest request first: cards, then the part it takes of its largest matching node."""
    mask = matching(fleet, request, allowed)
    parts = [
        need / max(1, int(capacity[mask].max(initial=0)))
        for need, capacity in ((request.cpu, fleet.cpu_capacity), (request.memory, fleet.memory_capacity))
    ]
    return (-request.gpu_count * request.gpu_milli, -max(parts), int(np.count_nonzero(mask)))


def _place_many(fleet: Fleet, groups: Groups, allowed: Nodes | None) -> Placed | _Failure:
    """Places for all groups, near to each other where they have to be."""
    together = next((request.together for request, _ in groups if request.together), None)
    if together is None:
        return _place_anywhere(fleet, groups, allowed)
    if len(groups) > 1:
        return _place_in_one(fleet, groups, allowed, together)
    outcome = _place_in_parts(fleet, groups, of_group(allowed, 0))
    if isinstance(outcome, Placed) or groups[0][0].consumer is None or together.slice_size > 1:
        return outcome
    # The topology counts room alone: a cap on what others hold may have ended it in one domain and not in the next.
    other = _place_in_one(fleet, groups, allowed, together)
    return other if isinstance(other, Placed) else max(outcome, other, key=lambda one: one[0])


def _place_in_one(fleet: Fleet, groups: Groups, allowed: Nodes | None, together: Together) -> Placed | _Failure:
    """Places for all groups in the first domain that takes them."""
    matches = [matching(fleet, request, of_group(allowed, index)) for index, (request, _) in enumerate(groups)]
    everywhere = np.logical_or.reduce(matches, axis=0)
    failure: _Failure = (0, 0, fleet)
    for inside in shared(fleet, together, everywhere):
        usable = tuple(inside & nodes for nodes in allowed) if isinstance(allowed, tuple) else inside
        outcome = _place_anywhere(fleet, groups, usable)
        if isinstance(outcome, Placed):
            return outcome
        failure = max(failure, outcome, key=lambda one: one[0])
    return failure


def _place_in_parts(fleet: Fleet, groups: Groups, allowed: Mask | None) -> Placed | _Failure:
    """Places for one group in the domains that its topology leads to."""
    ((request, count),) = groups
    found = parts(fleet, request, count, fitting(fleet, request, allowed))
    if isinstance(found, int):
        return found, 0, fleet
    scratch = fleet.draft()
    places = []
    for inside, units in found:
        places += _fill(scratch, request, units, inside if allowed is None else inside & allowed)
    if len(places) < count:  # Caps on what others hold go across domains.
        return len(places), 0, scratch
    return _numbered(fleet, groups, {0: places})


def _place_anywhere(fleet: Fleet, groups: Groups, allowed: Nodes | None) -> Placed | _Failure:
    """Places for all groups, hardest first."""
    order = sorted(
        range(len(groups)), key=lambda index: _difficulty(fleet, groups[index][0], of_group(allowed, index))
    )
    failure: _Failure | None = None
    # Packing different groups greedily can get in its own way; spreading is the second try.
    for strategy in (None, "spread", "pack") if len(groups) > 1 else (None,):
        scratch, placed = fleet.draft(), 0
        places: dict[int, list[tuple[int, tuple[int, ...]]]] = {}
        for index in order:
            request, count = groups[index]
            if strategy is not None:
                request = replace(request, strategy=strategy)
            places[index] = _fill(scratch, request, count, of_group(allowed, index))
            placed += len(places[index])
            if len(places[index]) < count:
                failure = failure or (placed, index, scratch)
                break
        else:
            return _numbered(fleet, groups, places)
    assert failure is not None
    return failure


def _numbered(fleet: Fleet, groups: Groups, places: Mapping[int, Sequence[tuple[int, tuple[int, ...]]]]) -> Placed:
    members: list[Member] = []
    for index in range(len(groups)):
        for node, cards in places[index]:
            members.append((index, len(members), node, cards))
    return placed_members(members)


def placed_members(members: Sequence[Member]) -> Placed:
    """Members of several groups, or several of one, with what is told of their places."""
    return Placed(tuple(members), {"nodes": len({node for _, _, node, _ in members}), "members": len(members)})


def place_gang(
    fleet: Fleet, groups: Groups, *, allowed: Nodes | None = None, feasible: bool = False
) -> Placed | Unplaced:
    """All members of all groups, or why not. The fleet is not changed; see `take_members`.

    With `feasible` the caller vouches that `feasibility` found no obstacle, so it is not asked again.
    """
    outcome = _place(fleet, groups, allowed)
    if isinstance(outcome, Placed):
        return outcome
    never = None if feasible else feasibility(fleet, groups, allowed=allowed)
    return never or _waiting(fleet, groups, allowed, *outcome)


def find_places(fleet: Fleet, groups: Groups, allowed: Nodes | None) -> Placed | None:
    """The same without a word on why not, which costs more than to find out."""
    outcome = _place(fleet, groups, allowed)
    return outcome if isinstance(outcome, Placed) else None


def _place(fleet: Fleet, groups: Groups, allowed: Nodes | None) -> Placed | _Failure:
    if len(groups) == 1 and groups[0][1] == 1:
        return place_one(fleet, groups[0][0], of_group(allowed, 0)) or (0, 0, fleet)
    return _place_many(fleet, groups, allowed)


# Why not


def feasibility(fleet: Fleet, groups: Groups, *, allowed: Nodes | None = None) -> Unplaced | None:
    """Why the groups could not be placed even if nothing else ran, or None if they could."""
    bare: Fleet | None = None
    for index, (request, count) in enumerate(groups):
        inside = of_group(allowed, index)
        mask = matching(fleet, request, inside)
        matches = int(np.count_nonzero(mask))
        if not matches:
            funnel, _ = candidates(fleet, request, inside)
            return Unplaced(Reason.NO_NODE_MATCHES, funnel, _no_match_text(request, funnel))
        slots = _slots(fleet, request)[mask]
        if not slots.any():
            bare = bare or fleet.empty()
            funnel, _ = candidates(bare, request, inside)
            (dimensions,) = _dimensions(bare, request, Split([mask]), mask)
            return Unplaced(Reason.EXCEEDS_EVERY_NODE, funnel, _short_text(request, matches, dimensions, empty=True))
        if int(np.minimum(slots, count).sum()) < count:
            funnel, _ = candidates(fleet, request, inside)
            detail = (
                f"{count} members needed at once; the {matches} matching nodes hold at most "
                f"{int(slots.sum())} even when empty."
            )
            return Unplaced(Reason.EXCEEDS_EVERY_NODE, funnel, detail)
    if _entangled(groups):
        outcome = _place_many(bare or fleet.empty(), groups, allowed)
        if not isinstance(outcome, Placed):
            placed, index, _ = outcome
            funnel, _ = candidates(fleet, groups[index][0], of_group(allowed, index))
            total = sum(count for _, count in groups)
            request = groups[index][0]
            within = " within what is lent at once" if request.consumer is not None else ""
            detail = f"only {placed} of {total} members find room {_how(request)}{within}, even on empty nodes."
            return Unplaced(Reason.EXCEEDS_EVERY_NODE, funnel, detail)
    return None


def _entangled(groups: Groups) -> bool:
    """Whether members have to be placed to know whether they find room, even on empty nodes."""
    if len(groups) > 1 or any(request.together or request.apart for request, _ in groups):
        return True
    ((request, count),) = groups
    return count > 1 and request.consumer is not None  # A cap goes over many nodes.


def _how(request: Request) -> str:
    """In which way the members of a group have to be placed, for people."""
    if request.together is not None and request.together.constraint == Constraint.REQUIRED:
        return f"in one {request.together.level}"
    if request.apart is None:
        return "together"
    skew, most = request.apart.max_skew, request.apart.most
    limits = [f"at most {most} in each"] if most is not None else []
    limits += [f"a difference of at most {skew}"] if skew is not None else []
    return f"spread over {request.apart.key} with {' and '.join(limits)}"


def _slots(fleet: Fleet, request: Request) -> Int64:
    """How many such members each node holds when it is empty."""
    if fleet.slots is not None and fleet.slots[0] is request:
        return fleet.slots[1]
    slots = np.full(len(fleet), np.iinfo(np.int32).max, dtype=np.int64)
    for need, capacity in (
        (request.cpu, fleet.cpu_capacity),
        (request.memory, fleet.memory_capacity),
        (request.storage, fleet.storage_capacity),
    ):
        if need:
            slots = np.minimum(slots, np.maximum(capacity, 0) // need)
    if request.gpu_count:
        by_cards = fleet.cards * (WHOLE_CARD // request.gpu_milli) // request.gpu_count
        slots = np.minimum(slots, np.where(fleet.cards >= request.gpu_count, by_cards, 0))
    fleet.slots = (request, slots)
    return slots


def _no_match_text(request: Request, funnel: Funnel) -> str:
    if not funnel.total:
        return "there is no node here."
    static = {item.name for item in static_filters()}
    parts = [
        f"{FILTERS[step.filter].words(request)} rules out {step.rejected}"
        for step in funnel.steps
        if step.filter in static and step.rejected
    ]
    nodes = "the only node does not match" if funnel.total == 1 else f"none of {funnel.total} nodes matches"
    return f"{nodes}: {', '.join(parts)}."


def _dimensions(fleet: Fleet, request: Request, split: Split, matching: Mask) -> list[list[tuple[str, int, int]]]:
    """For each set of nodes (resource, needed, best on any one that matches) by what is asked for; cards by number."""
    amounts = [
        (name, need, free)
        for name, need, free in (
            ("cpu", request.cpu, fleet.cpu),
            ("memory", request.memory, fleet.memory),
            ("storage", request.storage, fleet.storage),
            ("gpu", request.gpu_count, cards_with(fleet, request.gpu_milli) if request.gpu_count else fleet.cpu),
        )
        if need
    ]
    free = np.array([free for _, _, free in amounts], dtype=np.int64).reshape(len(amounts), len(fleet))
    found = []
    for mask in split.masks:
        best = (free * (mask & matching)).max(axis=1, initial=0).tolist()
        found.append([(name, need, most) for (name, need, _), most in zip(amounts, best, strict=True)])
    return found


def _short_text(request: Request, matches: int, dimensions: Sequence[tuple[str, int, int]], *, empty: bool) -> str:
    """Names the scarcest resource, or that no node has all of them at once."""
    short = [(best / need, name, best) for name, need, best in dimensions if best < need]
    where = "the only matching node" if matches == 1 else f"the best of {matches} matching nodes"
    state = "in all" if empty else "free"
    if not short:
        asked = ", ".join(FILTERS[name].words(request) for name, _, _ in dimensions)
        nodes = "the only matching node has not" if matches == 1 else f"none of {matches} matching nodes has"
        return f"needs {asked} on one node; {nodes} all of it {'when empty' if empty else 'free'} at once."
    _, name, best = min(short)
    if name != "gpu":
        have = amount_text(name, best)
    elif request.gpu_milli == WHOLE_CARD:
        have = str(best)
    else:
        have = f"{best} such card{'' if best == 1 else 's'}"
    return f"needs {FILTERS[name].words(request)} on one node; {where} has {have} {state}."


def _waiting(fleet: Fleet, groups: Groups, allowed: Nodes | None, placed: int, index: int, left: Fleet) -> Unplaced:
    """The present shortage: of the group that failed, given what the members before it would take."""
    nodes = of_group(allowed, index)
    inside = np.ones(len(fleet), dtype=np.bool_) if nodes is None else nodes
    unplaced = shortages(left, groups[index][0], Split([inside]))[0]
    total = sum(count for _, count in groups)
    if groups[index][0].together or groups[index][0].apart:
        return replace(unplaced, detail=f"{placed} of {total} members find room now {_how(groups[index][0])}.")
    if total > 1:
        return replace(unplaced, detail=f"{placed} of {total} members find room now; the next one {unplaced.detail}")
    return unplaced


def shortages(fleet: Fleet, request: Request, split: Split) -> list[Unplaced]:
    """For each set of nodes what one more member is short of there now; it is known to have no room."""
    usable = static = static_answer(fleet, request).passing
    bounds = [""] * len(split.masks)
    if fleet.terms is not None and request.consumer is not None:
        usable = static & fleet.terms.usable(request.consumer, request.limit, request.held)
        bounds = [
            fleet.terms.words(fleet.names, static & mask, request.consumer, request.limit, request.held)
            for mask in split.masks
        ]
    if fleet.company is not None and request.bonds is not None:
        allowed = fleet.company.allowed(request.bonds)
        usable = usable if allowed is None else usable & allowed
        beside = [fleet.company.words(request.bonds, static & mask) for mask in split.masks]
        bounds = [" ".join(filter(None, both)) for both in zip(bounds, beside, strict=True)]
    matches = split.counts(usable[np.newaxis])
    return [
        Unplaced(
            Reason.WAITING_FOR_CAPACITY,
            funnel,
            " ".join([_short_text(request, count, dimensions, empty=False)] * (count > 0) + [bound] * bool(bound)),
        )
        for funnel, (count,), dimensions, bound in zip(
            funnels(fleet, request, split), matches, _dimensions(fleet, request, split, usable), bounds, strict=True
        )
    ]


# Several sets of nodes at once


def obstacles(fleet: Fleet, groups: Groups, split: Split) -> Sequence[Unplaced | None]:
    """For each set of nodes what `feasibility` says of the groups there."""
    if _entangled(groups):
        return [feasibility(fleet, groups, allowed=mask) for mask in split.masks]
    ((request, count),) = groups
    static, key = static_answer(fleet, request), (split, request, count)
    found = static.obstacles.get(key)
    if found is None:
        slots = np.where(static.passing, np.minimum(_slots(fleet, request), count), 0)
        found = [
            None if most >= count else feasibility(fleet, groups, allowed=mask)
            for most, mask in zip((slots.astype(np.float64) @ split.columns).tolist(), split.masks, strict=True)
        ]
        if len(static.obstacles) >= OBSTACLES_MAX:
            static.obstacles.clear()
        static.obstacles[key] = found
    return found
