"""Reading the files of a bundle without unpacking it."""

import gzip
import hashlib
import io
import tarfile

from django.core.files.base import ContentFile
from django.core.files.storage import storages

from apps.execution import sources
from apps.execution.commands.files import bundle_path
from apps.execution.sources import sources_of


def kept(data: bytes) -> str:
    """The digest of a bundle of these bytes in the store."""
    digest = hashlib.sha256(data).hexdigest()
    if not storages["bundles"].exists(bundle_path(digest)):
        storages["bundles"].save(bundle_path(digest), ContentFile(data))
    return digest


def packed(files: dict[str, bytes]) -> bytes:
    """A tar.gz of these files."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return stream.getvalue()


def test_texts_and_what_is_none() -> None:
    long = "ä" * sources.TEXT_BYTES
    files = {"./train.py": b"print(1)\n", "b.bin": b"\x00\x01", "a/long.txt": long.encode(), "latin": b"\xe4\n"}
    found = sources_of(kept(packed(files)))
    assert [file.name for file in found.files] == ["a/long.txt", "b.bin", "latin", "train.py"]
    assert not found.partial
    train = found.named("train.py")
    assert train is not None
    assert (train.text, train.size, train.cut) == ("print(1)\n", 9, False)
    assert [file.text for file in found.files[1:3]] == [None, None]
    assert found.files[0].text == long[: sources.TEXT_BYTES // 2]
    assert found.files[0].cut
    assert found.named("b") is None


def test_a_sign_that_is_cut_in_two_leaves_the_rest() -> None:
    long = ("x" + "ä" * sources.TEXT_BYTES).encode()
    text = sources_of(kept(packed({"long.txt": long}))).files[0].text
    assert text is not None
    assert len(text.encode()) == sources.TEXT_BYTES - 1


def test_no_more_is_read_than_the_limit() -> None:
    small = packed({"a.txt": b"first", "bomb": bytes(4 * sources.READ_BYTES), "z.txt": b"never reached"})
    assert len(small) < 1 << 20
    found = sources_of(kept(small))
    assert found.partial
    assert [file.name for file in found.files] == ["a.txt", "bomb"]
    many = sources_of(kept(packed({f"{place:03d}": b"" for place in range(sources.FILES_MAX + 1)})))
    assert (len(many.files), many.partial) == (sources.FILES_MAX, True)


def test_what_is_damaged_or_gone() -> None:
    assert sources_of("0" * 64).files == ()
    assert sources_of(kept(gzip.compress(b"no archive"))).files == ()
    whole = packed({"a.txt": b"first" * 5000, "b.bin": hashlib.sha256().digest() * 5000})
    assert sources_of(kept(whole[:-40])).partial
    assert sources_of(kept(b"\x1f\x8bnothing of gzip")).partial
