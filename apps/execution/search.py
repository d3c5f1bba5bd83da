"""Finding a text in a log of any length, and reading all of it as one file."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

from django.core.files.storage import storages

from apps.core.errors import Invalid

from .models import LogChunk
from .queries import read_log

# What one search looks at before it answers where to go on, and what it holds in memory at a time.
SCAN_BYTES = 64 << 20
PIECE_BYTES = 4 << 20
NEEDLE_BYTES = 200
# What programs write when something goes wrong, in small letters.
ERRORS = (
    b"traceback (most recent call last)", b"error:", b"error]", b"[error", b" error ", b"exception:", b"fatal",
    b"panic:", b"critical", b"segmentation fault", b"out of memory", b"command not found",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Found:
    """The first byte of the nearest match; without one, from where to go on (None: there is nothing more)."""

    at: int | None
    further: int | None
    size: int


def needles_of(text: str) -> tuple[bytes, ...]:
    """What to look for; an empty text means errors. Raises Invalid for one that is too long."""
    needle = text.lower().encode()
    if len(needle) > NEEDLE_BYTES:
        raise Invalid.field("q", f"at most {NEEDLE_BYTES} bytes can be looked for.")
    return (needle,) if needle else ERRORS


def find_in_log(placement_id: int, needles: Sequence[bytes], start: int, *, up: bool) -> Found:
    """The nearest match that begins before `start` (`up`), or at it or behind; letters are taken as small ones.

    A negative start is the end of the log.
    """
    size = read_log(placement_id, 0, 0).size
    position = size if start < 0 else min(start, size)
    overlap = max(map(len, needles)) - 1
    looked = 0
    while looked < SCAN_BYTES and (position > 0 if up else position < size):
        begin = max(0, position - PIECE_BYTES) if up else position
        # A match may reach over the end of what it has to begin in.
        room = position - begin if up else PIECE_BYTES
        data = read_log(placement_id, begin, room + overlap).data.lower()
        at = _last(data, needles, room) if up else _first(data, needles, room)
        if at is not None:
            return Found(begin + at, None, size)
        looked += room
        position = begin if up else begin + room
    return Found(None, position if (position > 0 if up else position < size) else None, size)


def _first(data: bytes, needles: Sequence[bytes], room: int) -> int | None:
    found = [at for needle in needles if 0 <= (at := data.find(needle)) < room]
    return min(found, default=None)


def _last(data: bytes, needles: Sequence[bytes], room: int) -> int | None:
    # Looking forward first is much faster, and most pieces hold none of them.
    there = [needle for needle in needles if needle in data]
    return max((at for one in there if (at := data.rfind(one, 0, room + len(one) - 1)) >= 0), default=None)


class StoredLog(io.RawIOBase):
    """A placement's log as it is now, as one file that can only be read from its beginning to its end.

    The database is asked when it is made and never again, so that any thread may read it.
    """

    def __init__(self, placement_id: int) -> None:
        rows = LogChunk.objects.filter(placement_id=placement_id).order_by("offset")
        chunks = list(rows.values_list("path", "length"))
        self.size = sum(length for _, length in chunks)
        self._paths = iter([path for path, _ in chunks])
        self._piece = memoryview(b"")

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """The next bytes, none at the end."""
        while not self._piece:
            path = next(self._paths, None)
            if path is None:
                return 0
            with storages["logs"].open(path, "rb") as file:
                self._piece = memoryview(file.read())
        count = min(len(buffer), len(self._piece))
        buffer[:count], self._piece = self._piece[:count], self._piece[count:]
        return count
