"""Bundles: the files a workflow ships, as a tar.gz whose bytes depend on nothing but names and contents."""

import gzip
import hashlib
import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

from .dag import SdkError

MAX_BYTES = 100 * 10**6
MAX_FILES = 10_000
_SKIPPED = ("__pycache__", ".git", ".venv", "node_modules")


def find(folder: Path, patterns: Iterable[str]) -> dict[str, Path]:
    """The files that the globs name, by their name in the bundle; folders stand for all files in them.

    Raises SdkError for a pattern that matches nothing or leaves the folder, also by a symbolic link.
    """
    found: dict[str, Path] = {}
    for pattern in patterns:
        if not pattern or Path(pattern).is_absolute() or ".." in Path(pattern).parts:
            raise SdkError(
                f"files: {pattern!r} leaves {folder}; give globs relative to it, such as 'data/*.csv'."
            )
        matches = sorted(folder.glob(pattern))
        if not matches:
            raise SdkError(f"files: nothing in {folder} matches {pattern!r}.")
        for match in matches:
            for path in sorted(match.rglob("*")) if match.is_dir() else [match]:
                if path.is_file() and not any(part in _SKIPPED for part in path.relative_to(folder).parts):
                    add(found, folder, path)
    return found


def add(found: dict[str, Path], folder: Path, path: Path) -> str:
    """Take one file in and return its name in the bundle. Raises SdkError when it lies outside the folder."""
    real = path.resolve()
    if not real.is_relative_to(folder.resolve()):
        raise SdkError(f"files: {path} lies outside {folder} (at {real}); copy it into the folder.")
    name = path if path.is_relative_to(folder) else real.relative_to(folder.resolve())
    relative = name.relative_to(folder) if name.is_absolute() else name
    found[relative.as_posix()] = real
    return relative.as_posix()


def pack(found: dict[str, Path]) -> bytes:
    """The tar.gz of the files. Raises SdkError above 100 MB or 10,000 files."""
    total = sum(path.stat().st_size for path in found.values())
    if total > MAX_BYTES:
        largest = max(found, key=lambda name: found[name].stat().st_size)
        raise SdkError(
            f"The bundle has {total / 10**6:.0f} MB of files; at most {MAX_BYTES // 10**6} MB can ship. "
            f"The largest is {largest}; leave it out of files and fetch it in a task."
        )
    if len(found) > MAX_FILES:
        raise SdkError(f"The bundle has {len(found)} files; at most {MAX_FILES} can be shipped.")
    raw = io.BytesIO()
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, compresslevel=6, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name in sorted(found):
            content = found[name].read_bytes()
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            entry.mode = 0o755 if found[name].stat().st_mode & 0o100 else 0o644
            archive.addfile(entry, io.BytesIO(content))
    return raw.getvalue()


def digest(bundle: bytes) -> str:
    """SHA-256 in hexadecimal: how the portal names the bundle."""
    return hashlib.sha256(bundle).hexdigest()
