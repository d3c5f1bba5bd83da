"""The texts in a bundle, as pages show them: the code that a workflow runs.

A bundle comes from a tenant, so nothing of it is unpacked to the disk, and no more of it is read than the limits below.
"""

import io
import tarfile
import zlib
from dataclasses import dataclass
from functools import lru_cache
from typing import IO

from django.core.files.storage import storages

from .commands.files import bundle_path

# What is read of a bundle, unpacked; what is behind it is not listed.
READ_BYTES = 16 << 20
FILES_MAX = 200
# What is kept of one text.
TEXT_BYTES = 256 << 10
KEPT = 32


@dataclass(frozen=True, slots=True)
class Source:
    """A file of a bundle: its size in bytes, and its text or the beginning of it; None where it is no text."""

    name: str
    size: int
    text: str | None

    @property
    def cut(self) -> bool:
        """Whether there is more of it."""
        return self.size > TEXT_BYTES


@dataclass(frozen=True, slots=True)
class Sources:
    """The files of a bundle by name; `partial` if not all of them were read."""

    files: tuple[Source, ...]
    partial: bool = False

    def named(self, name: str) -> Source | None:
        """The file of this name."""
        return next((file for file in self.files if file.name == name), None)


class _Bounded(io.RawIOBase):
    """What a gzip stream unpacks to, up to the limit: a small archive may unpack to any size."""

    def __init__(self, packed: IO[bytes]) -> None:
        self.packed = packed
        self.unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        self.left = READ_BYTES

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        wanted = min(len(buffer), self.left)
        while wanted:
            data = self.unpacker.unconsumed_tail or self.packed.read(64 << 10)
            found = self.unpacker.decompress(data, wanted)
            if found or not data:
                buffer[: len(found)] = found
                self.left -= len(found)
                return len(found)
        return 0


@lru_cache(maxsize=KEPT)
def sources_of(sha256: str) -> Sources:
    """The files of a bundle, in the order of their names. Empty where the bundle is gone or no archive."""
    storage = storages["bundles"]
    files: list[Source] = []
    if not storage.exists(bundle_path(sha256)):
        return Sources(())
    with storage.open(bundle_path(sha256)) as packed:
        stream = _Bounded(packed)
        partial = False
        try:
            with tarfile.open(fileobj=io.BufferedReader(stream), mode="r|") as archive:
                for member in archive:
                    if not member.isfile():
                        continue
                    if len(files) == FILES_MAX:
                        partial = True
                        break
                    content = archive.extractfile(member)
                    data = content.read(TEXT_BYTES) if content is not None else b""
                    files.append(Source(member.name.removeprefix("./"), member.size, _text(data)))
        except (tarfile.TarError, zlib.error, EOFError):
            partial = True  # Cut off by the limit, or damaged: what was read stands.
    return Sources(tuple(sorted(files, key=lambda file: file.name)), partial or not stream.left)


def _text(data: bytes) -> str | None:
    """The text that the bytes are, if they are any."""
    if b"\0" in data:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        # Only a sign that was cut in two at the end is no fault.
        return data[: error.start].decode() if len(data) == TEXT_BYTES and error.start > len(data) - 4 else None
