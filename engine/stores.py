"""What lies ready on nodes, and what a job would like to find there: its image and its data."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
Float64 = npt.NDArray[np.float64]

# Megabits a second of a node that does not say how fast its network is.
USUAL_NETWORK = 1000
_CACHE_LIMIT = 4096


@dataclass(frozen=True, slots=True)
class Stored:
    """Full names of the images on a node, and bytes of its datasets by name."""

    images: frozenset[str] = frozenset()
    datasets: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What one member starts from: its image (full name, empty for none) and the datasets that it reads.

    The image must be there if `image_needed`, and so must the datasets that are `needed`.
    """

    image: str = ""
    image_needed: bool = False
    datasets: tuple[str, ...] = ()
    needed: tuple[str, ...] = ()

    @property
    def needs(self) -> Hashable:
        """What static filters look at."""
        return self.image if self.image_needed else "", self.needed


NOTHING = Stored()


class Stores:
    """What lies on the nodes of a fleet, as arrays of those who ask; it does not change."""

    def __init__(self, stored: Sequence[Stored], network: Iterable[int]) -> None:
        self._stored = stored
        self._speed = np.array([speed or USUAL_NETWORK for speed in network], dtype=np.float64) * 125_000
        self._kept: dict[Hashable, Mask] = {}
        self._sizes: dict[str, int] = {}
        self._seconds: dict[tuple[str, ...], Float64] = {}

    def has_image(self, image: str) -> Mask:
        """Nodes that have an image."""
        return self._keep(("image", image), lambda one: image in one.images)

    def has(self, dataset: str) -> Mask:
        """Nodes that hold a dataset."""
        return self._keep(("has", dataset), lambda one: dataset in one.datasets)

    def size(self, dataset: str) -> int:
        """Bytes of a dataset: the most that any node has of it; 0 where none has it."""
        found = self._sizes.get(dataset)
        if found is None:
            if len(self._sizes) >= _CACHE_LIMIT:
                self._sizes.clear()
            found = max((one.datasets.get(dataset, 0) for one in self._stored), default=0)
            self._sizes[dataset] = found
        return found

    def seconds(self, datasets: tuple[str, ...]) -> Float64:
        """How long each node would need to fetch those of the datasets that it does not hold."""
        found = self._seconds.get(datasets)
        if found is None:
            missing = np.zeros(len(self._stored))
            for dataset in datasets:
                missing += np.where(self.has(dataset), 0.0, float(self.size(dataset)))
            if len(self._seconds) >= _CACHE_LIMIT:
                self._seconds.clear()
            found = self._seconds[datasets] = np.asarray(missing / self._speed, dtype=np.float64)
        return found

    def longest(self, datasets: Iterable[str]) -> float:
        """How long the slowest node would need to fetch all of the datasets."""
        total = sum(self.size(dataset) for dataset in datasets)
        return total / float(self._speed.min(initial=np.inf))

    def _keep(self, key: Hashable, test: Callable[[Stored], bool]) -> Mask:
        found = self._kept.get(key)
        if found is None:
            if len(self._kept) >= _CACHE_LIMIT:
                self._kept.clear()
            found = self._kept[key] = np.array([test(one) for one in self._stored], dtype=np.bool_)
        return found
