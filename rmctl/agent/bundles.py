"""Bundles: fetched once, verified, kept up to a size, and unpacked without trusting what is in them."""

import asyncio
import gzip
import hashlib
import os
import re
import shutil
import tarfile
import tempfile
from pathlib import Path, PurePosixPath

from rmctl.agent.errors import PortalRefusal, Refused
from rmctl.agent.portal import Portal

CACHE_BYTES = 2 * 1024**3
MAX_MEMBERS = 20_000
MAX_HEADER_BYTES = 1024**2
DIGEST = re.compile(r"[0-9a-f]{64}")


class BundleCache:
    """The files `DATA/bundles/<sha256>`; the least recently used go first."""

    def __init__(self, folder: str, portal: Portal) -> None:
        self.folder = folder
        self.portal = portal
        self._locks: dict[str, asyncio.Lock] = {}
        os.makedirs(folder, mode=0o700, exist_ok=True)
        for name in os.listdir(folder):
            if not DIGEST.fullmatch(name):
                os.unlink(f"{folder}/{name}")  # a download that the last agent did not finish

    async def get(self, digest: str) -> str:
        """Path of the verified bundle. Raises Refused, PortalAway (try again), OSError."""
        if not DIGEST.fullmatch(digest):
            raise Refused(f"bundle: {digest!r} is not a SHA-256 in hexadecimal")
        path = f"{self.folder}/{digest}"
        async with self._locks.setdefault(digest, asyncio.Lock()):
            if os.path.exists(path):
                os.utime(path)
            else:
                await asyncio.to_thread(self._fetch, digest, path)
        return path

    def _fetch(self, digest: str, path: str) -> None:
        with tempfile.NamedTemporaryFile(dir=self.folder, prefix="download-", delete=False) as file:
            try:
                self.portal.get_bundle(digest, file)
                file.flush()
                with open(file.name, "rb") as written:
                    actual = hashlib.file_digest(written, "sha256").hexdigest()
                if actual != digest:
                    raise Refused(
                        f"bundle: {digest} arrived with the digest {actual}; push the workflow again"
                    )
                os.rename(file.name, path)
            except PortalRefusal as error:
                os.unlink(file.name)
                raise Refused(f"bundle: the portal does not give out {digest}: {error}") from error
            except BaseException:
                os.unlink(file.name)
                raise
        self._shrink(path)

    def _shrink(self, keep: str) -> None:
        entries = sorted(
            (entry.stat().st_mtime, entry.stat().st_size, entry.path) for entry in os.scandir(self.folder)
        )
        total = sum(size for _, size, _ in entries)
        for _, size, path in entries:
            if total > CACHE_BYTES and path != keep:
                os.unlink(path)
                total -= size


class _Bounded:
    """A file for tarfile that refuses the huge reads by which a crafted header would fill the memory."""

    def __init__(self, file: gzip.GzipFile) -> None:
        self._file = file
        self.seek = file.seek
        self.tell = file.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MAX_HEADER_BYTES:
            raise Refused("bundle: a header in the archive is too long")
        return self._file.read(size)


def unpack(archive: str, target: str, limit_bytes: int, owner: int | None) -> None:
    """Unpack a tar.gz into the folder `target`, all of it or Refused: nothing absolute, no `..`, no link that
    leaves, no devices, not more than `limit_bytes`. Files belong to user `owner` when that is given."""
    unpacker = _Unpacker(target, limit_bytes, owner)
    try:
        with gzip.open(archive) as file:
            bounded = _Bounded(file)
            with tarfile.open(fileobj=bounded, mode="r:") as tar:  # type: ignore[call-overload]
                for member in tar:
                    unpacker.add(tar, member)
    except (tarfile.TarError, EOFError, gzip.BadGzipFile, UnicodeError, ValueError) as error:
        raise Refused(f"bundle: it is not a sound tar.gz archive: {error}") from error


class _Unpacker:
    def __init__(self, target: str, limit_bytes: int, owner: int | None) -> None:
        self.target = Path(target)
        self.left = limit_bytes
        self.members = 0
        self.owner = owner
        self.links: set[PurePosixPath] = set()

    def add(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        self.members += 1
        if self.members > MAX_MEMBERS:
            raise Refused(f"bundle: it has more than {MAX_MEMBERS} members")
        name = self._inside(member.name, PurePosixPath())
        if name == PurePosixPath():
            return
        if any(parent in self.links for parent in (name, *name.parents)):
            raise Refused(f"bundle: {member.name!r} lies behind a link of the same archive")
        path = self.target / name
        self._make_folder(path.parent)
        if member.isdir():
            self._make_folder(path)
        elif member.isreg():
            self._write_file(tar, member, path)
        elif member.issym():
            self._inside(member.linkname, name.parent, member.name)
            os.symlink(member.linkname, path)
            self.links.add(name)
            self._own(path)
        elif member.islnk():
            source = self._inside(member.linkname, PurePosixPath(), member.name)
            if source in self.links or not (self.target / source).is_file():
                raise Refused(f"bundle: {member.name!r} is a hard link to something that is not a file in it")
            self._charge((self.target / source).stat().st_size)
            shutil.copy(self.target / source, path, follow_symlinks=False)
            self._own(path)
        else:
            raise Refused(
                f"bundle: {member.name!r} is a device or pipe; only files, folders and links may be in it"
            )

    def _inside(self, name: str, base: PurePosixPath, of: str = "") -> PurePosixPath:
        """`name` relative to `base`, both below the target, without `..`; Refused when it leads out."""
        parts = list(base.parts)
        for part in name.split("/"):
            if part == ".." and of and parts:
                parts.pop()
            elif part == ".." or "\0" in part:
                raise Refused(f"bundle: {of or name!r} leads out of the work folder")
            elif part not in ("", "."):
                parts.append(part)
        if name.startswith("/"):
            raise Refused(f"bundle: {of or name!r} is an absolute path; use relative ones")
        return PurePosixPath(*parts)

    def _make_folder(self, path: Path) -> None:
        if path == self.target or path.is_dir():
            return
        self._make_folder(path.parent)
        path.mkdir(mode=0o755)
        self._own(path)

    def _write_file(self, tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
        self._charge(member.size)
        source = tar.extractfile(member)
        if source is None:
            raise Refused(f"bundle: {member.name!r} cannot be read")
        mode = 0o755 if member.mode & 0o100 else 0o644
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
        with open(descriptor, "wb") as file:
            shutil.copyfileobj(source, file)
        self._own(path)

    def _charge(self, size: int) -> None:
        self.left -= size
        if self.left < 0:
            raise Refused("bundle: unpacked it is larger than the storage of the job; ask for more storage")

    def _own(self, path: Path) -> None:
        if self.owner is not None:
            os.chown(path, self.owner, self.owner, follow_symlinks=False)
