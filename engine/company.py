"""Which jobs are where, for those that want to be near some of the others or away from them.

As inter-pod affinity of Kubernetes: a job that wants others near is placed only in a domain (of a label, or a single
node) where such a job is, or anywhere while there is none and the job is one of those itself, so that the first of a
series starts. A job that keeps away from others keeps these away too for as long as it runs. What counts is whether
at least one member is there; members of one job do not count for each other.

Members are counted by domain for each question that was asked, and the counts are kept up as members come and go: one
step for each question that concerns the member, and nothing for members of jobs without bonds.
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from engine.constraints import NODE

Mask = npt.NDArray[np.bool_]
Int64 = npt.NDArray[np.int64]
# A number for the domain of each node by a key; 0 is none.
Domains = Callable[[str], npt.NDArray[np.intp]]
Labels = tuple[tuple[str, str], ...]
_Key = TypeVar("_Key")


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Jobs of which each of these labels has one of the values, in the same domain of `key`.

    Without a weight it is a demand, with one a preference.
    """

    jobs: tuple[tuple[str, tuple[str, ...]], ...]
    key: str = NODE
    weight: float | None = None

    def __post_init__(self) -> None:
        if not self.jobs:
            raise ValueError("neighbours are named by at least one label")
        if self.weight is not None and not self.weight > 0:
            raise ValueError("the weight of a preference must be above 0")

    def means(self, labels: Labels) -> bool:
        """Whether a job with these labels is meant."""
        mine = dict(labels)
        return all(mine.get(label) in values for label, values in self.jobs)

    @property
    def who(self) -> str:
        """The jobs that are meant, for people."""
        return "jobs with " + " and ".join(f"{label}={'|'.join(values)}" for label, values in self.jobs)

    def __str__(self) -> str:
        return f"{self.who} on the same {self.key}"


@dataclass(frozen=True)
class Bonds:
    """What a job is to others of its tenant and they to it. Jobs of other tenants never count."""

    tenant: int
    labels: Labels = ()
    near: tuple[Neighbours, ...] = ()
    away: tuple[Neighbours, ...] = ()

    @cached_property
    def near_needs(self) -> tuple[Neighbours, ...]:
        """Whom it demands near."""
        return tuple(one for one in self.near if one.weight is None)

    @cached_property
    def away_needs(self) -> tuple[Neighbours, ...]:
        """Whom it demands away."""
        return tuple(one for one in self.away if one.weight is None)

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """Labels that a node needs so that anybody can be near."""
        return tuple(sorted({one.key for one in self.near_needs} - {NODE}))


@dataclass(frozen=True, slots=True)
class _Question:
    """How many members are in each domain of `key` that are meant by `neighbours`, or, where `labels` are given, that
    keep away from jobs with these."""

    tenant: int
    key: str
    jobs: Neighbours | None = None
    labels: Labels = ()

    def counts(self, bonds: Bonds) -> bool:
        if bonds.tenant != self.tenant:
            return False
        if self.jobs is not None:
            return self.jobs.means(bonds.labels)
        return any(one.key == self.key and one.means(self.labels) for one in bonds.away_needs)


class Company:
    """The members of jobs with bonds on the nodes of one fleet. Forks share what they know until one changes.

    `version` counts the changes. One that is `still` counts nothing: members of the same job come and go in it.
    `guests` will come while whoever is placed now is still there: nobody may be where they stay away from or they
    from it, but they are not near anybody yet.
    """

    def __init__(self, domains: Domains, members: Iterable[tuple[Bonds, int]] = ()) -> None:
        self.version, self.still = 0, False
        self.guests: Sequence[tuple[Bonds, int]] = ()
        self._domains, self._shared = domains, False
        # How many members are on a node, by what they are.
        self._here: dict[Bonds, dict[int, int]] = {}
        self._counts: dict[_Question, Int64] = {}
        # By what a member is: of how many questions it is known which count it, and these.
        self._asking: dict[Bonds, tuple[int, list[_Question]]] = {}
        # How many members keep away from others in domains of a key.
        self._keys: dict[str, int] = {}
        # Whose numbers are not those of a fork too.
        self._own: set[Bonds | _Question] = set()
        for bonds, node in members:
            self.count(bonds, node)

    def fork(self) -> "Company":
        """The same, to go on differently."""
        twin = copy.copy(self)
        self._shared = twin._shared = True
        self._own, twin._own = set(), set()
        return twin

    def members(self) -> Iterator[tuple[Bonds, int]]:
        """Every member: what its job is, and its node."""
        for bonds, nodes in self._here.items():
            for node, count in nodes.items():
                yield from [(bonds, node)] * count

    def on(self, domains: Domains) -> "Company":
        """The same members on a fleet with further nodes behind those that there were."""
        return Company(domains, self.members())

    def count(self, bonds: Bonds, node: int, sign: int = 1) -> None:
        """One more member is on a node, or with -1 one fewer."""
        if self.still:
            return
        if self._shared:
            self._here, self._keys, self._asking = self._here.copy(), self._keys.copy(), self._asking.copy()
            self._counts, self._shared = self._counts.copy(), False
        self.version += 1
        if bonds not in self._own:
            self._own.add(bonds)
            self._here[bonds] = self._here.get(bonds, {}).copy()
        _add(self._here[bonds], node, sign)
        for one in bonds.away_needs:
            _add(self._keys, one.key, sign)
        known, asking = self._asking.get(bonds, (0, []))
        if known < len(self._counts):
            asking = [question for question in self._counts if question.counts(bonds)]
            self._asking[bonds] = len(self._counts), asking
        for question in asking:
            if domain := self._domains(question.key)[node]:
                if question not in self._own:
                    self._own.add(question)
                    self._counts[question] = self._counts[question].copy()
                self._counts[question][domain] += sign

    # What holds for a job

    def near(self, bonds: Bonds) -> Mask | None:
        """Nodes with all those near that the job demands; None where it demands nobody."""
        masks = [self._beside(bonds, one) for one in bonds.near_needs]
        return np.logical_and.reduce(masks, axis=0) if masks else None

    def away(self, bonds: Bonds) -> Mask | None:
        """Nodes away from those that the job keeps away from, and from those that keep away from it; None for all."""
        masks = [~self._met(bonds.tenant, one) for one in bonds.away_needs]
        masks += [~self._shunned(bonds, key) for key in self._keys] if bonds.labels else []
        for guest, node in self.guests:
            masks += [self._elsewhere(key, node) for key in apart_by(bonds, guest)]
        return np.logical_and.reduce(masks, axis=0) if masks else None

    def allowed(self, bonds: Bonds) -> Mask | None:
        """Nodes on which the company is as the job demands; None for all."""
        masks = [mask for mask in (self.near(bonds), self.away(bonds)) if mask is not None]
        return np.logical_and.reduce(masks, axis=0) if masks else None

    def preferred(self, bonds: Bonds, nodes: npt.NDArray[np.intp]) -> npt.NDArray[np.float64] | None:
        """The weighted part of the preferences that each of these nodes meets; None without any."""
        wanted = [(one, True) for one in bonds.near if one.weight] + [(one, False) for one in bonds.away if one.weight]
        if not wanted:
            return None
        total, met = sum(one.weight or 0.0 for one, _ in wanted), np.zeros(len(nodes))
        for one, near in wanted:
            met += (self._met(bonds.tenant, one)[nodes] == near) * ((one.weight or 0.0) / total)
        return met

    def words(self, bonds: Bonds, nodes: Mask) -> str:
        """What keeps one more member from these nodes, for people; empty where nothing does."""
        count, said = int(np.count_nonzero(nodes)), list[str]()
        have = "has" if count == 1 else "have"

        def of(mask: Mask) -> str:
            found = int(np.count_nonzero(nodes & mask))
            which = "the only matching node" if count == 1 else f"{found} of {count} matching nodes"
            return which if found else ""

        for one in bonds.near_needs:
            if which := of(~self._beside(bonds, one)):
                none = not self._asked(_Question(bonds.tenant, one.key, one)).any()
                said.append(f"it wants {one}{', and none runs' if none else f', and {which} {have} none'}.")
        for one in bonds.away_needs:
            if which := of(self._met(bonds.tenant, one)):
                said.append(f"it stays away from {one}, and {which} {have} some.")
        for key in self._keys if bonds.labels else ():
            if which := of(self._shunned(bonds, key)):
                said.append(f"jobs that stay away from it run on the same {key} as {which}.")
        return " ".join(said[:1] + [text[:1].upper() + text[1:] for text in said[1:]])

    def _beside(self, bonds: Bonds, one: Neighbours) -> Mask:
        """Nodes in domains with such a job; where there is none and the job is one itself, in any domain."""
        counts = self._asked(_Question(bonds.tenant, one.key, one))
        domains = self._domains(one.key)
        if not counts.any() and one.means(bonds.labels):
            return np.asarray(domains > 0)
        return np.asarray(counts[domains] > 0)

    def _met(self, tenant: int, one: Neighbours) -> Mask:
        return np.asarray(self._asked(_Question(tenant, one.key, one))[self._domains(one.key)] > 0)

    def _shunned(self, bonds: Bonds, key: str) -> Mask:
        question = _Question(bonds.tenant, key, labels=bonds.labels)
        return np.asarray(self._asked(question)[self._domains(key)] > 0)

    def _elsewhere(self, key: str, node: int) -> Mask:
        """Nodes outside of the domain that a node is in."""
        domains = self._domains(key)
        return np.asarray((domains != domains[node]) | (domains == 0))

    def first_of(self, bonds: Bonds) -> list[Neighbours]:
        """Those that the job demands near, of whom none is there, so that it may be the first of them."""
        return [one for one in bonds.near_needs if not self._asked(_Question(bonds.tenant, one.key, one)).any()]

    def together(self, key: str, nodes: Iterable[int]) -> bool:
        """Whether all these nodes are in one domain."""
        return len({int(self._domains(key)[node]) for node in nodes}) <= 1

    def _asked(self, question: _Question) -> Int64:
        """By domain. Who is in none (0) is not in the same as anybody, and is not counted."""
        found = self._counts.get(question)
        if found is None:
            domains = self._domains(question.key)
            found = np.zeros(int(domains.max(initial=0)) + 1, dtype=np.int64)
            for bonds, nodes in self._here.items():
                if nodes and question.counts(bonds):
                    np.add.at(found, domains[list(nodes)], list(nodes.values()))
            found[0] = 0
            self._counts[question] = found
        return found


def apart_by(one: Bonds, other: Bonds) -> set[str]:
    """The keys by which two jobs must not share a domain."""
    if one.tenant != other.tenant:
        return set()
    needs = [need.key for need in one.away_needs if need.means(other.labels)]
    return {*needs, *(need.key for need in other.away_needs if need.means(one.labels))}


def _add(counts: dict[_Key, int], key: _Key, amount: int) -> None:
    left = counts.get(key, 0) + amount
    if left > 0:
        counts[key] = left
    else:
        counts.pop(key, None)
