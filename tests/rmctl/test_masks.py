"""Secrets in logs: hidden with their length kept, also across chunks and while the task still writes them."""

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmctl.agent import logs
from rmctl.agent.logs import HEADER, LogShipper
from rmctl.agent.masks import Masks, of_process, secret_texts
from rmctl.agent.protocol import Log

SECRETS = ("hunter2!", "hunter2!-long", 'a"b/c d', "line one\nline two")


def test_a_secret_is_hidden_in_every_form_that_programs_print() -> None:
    masks = Masks(SECRETS)
    text = b'x hunter2! hunter2!-long {"p": "a\\"b/c d"} u:a%22b%2Fc%20d@h line two\n'
    hidden = masks.hide(text)
    assert len(hidden) == len(text)
    assert hidden == b'x ******** ************* {"p": "********"} u:*************@h ********\n'


def test_short_and_empty_values_are_left() -> None:
    assert not Masks(["", "abc"])
    assert Masks([]).hide(b"abc") == b"abc"


def test_of_a_connection_only_what_is_secret() -> None:
    text = '{"host": "db.example", "password": "pass", "extra": {"key": "kkkk", "n": 5}}'
    values = {"RM_CONNECTION_db": text, "T": "tttt"}
    assert set(secret_texts(["RM_CONNECTION_db", "T", "GONE"], values)) == {"pass", "kkkk", "tttt"}


class Portal:
    """Takes frames and acknowledges them, as the portal does."""

    def __init__(self, shipper: LogShipper) -> None:
        self.shipper, self.data = shipper, b""

    def take(self, log: Log) -> None:
        assert log.offset == len(self.data)
        self.data += log.data
        self.queue = log

    def drain(self) -> None:
        self.shipper.acknowledge((1, 1), len(self.data))


@pytest.fixture
def shipped(tmp_path: Path) -> Callable[[list[bytes], list[str]], list[bytes]]:
    """Write a log in pieces, with a look after each; gives what the portal had after each look and at the end."""
    count = [0]

    def ship(pieces: list[bytes], secrets: list[str]) -> list[bytes]:
        count[0] += 1
        path = tmp_path / f"log-{count[0]}"
        path.write_bytes(HEADER)
        shipper = LogShipper()
        portal = Portal(shipper)
        shipper.add((1, 1), str(path), lambda: None, Masks(secrets))
        shipper.connected(portal.take)
        seen = []
        for piece in pieces:
            with path.open("ab") as stream:
                stream.write(piece)
            shipper.poll()
            portal.drain()
            seen.append(portal.data)
        size = shipper.end((1, 1))
        for _ in range(50):
            portal.drain()
        assert len(portal.data) == size
        return [*seen, portal.data]

    return ship


def test_a_secret_that_comes_in_pieces_never_leaves(shipped: Callable[..., list[bytes]]) -> None:
    seen = shipped([b"begin hun", b"ter", b"2! end\n"], ["hunter2!"])
    assert seen == [b"begin ", b"begin ", b"begin ******** end\n", b"begin ******** end\n"]
    # What was only the beginning of one comes at the end.
    assert shipped([b"begin hunt"], ["hunter2!"]) == [b"begin ", b"begin hunt"]


def test_a_secret_across_two_chunks(shipped: Callable[..., list[bytes]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "MAX_LOG_CHUNK_BYTES", 7)
    text = b"0123 hunter2! and hunter2!hunter2! tail"
    assert shipped([text], ["hunter2!"])[-1] == text.replace(b"hunter2!", b"********")


@given(
    pieces=st.lists(st.text("abx", max_size=12), max_size=8), secrets=st.lists(st.text("ab", min_size=4, max_size=6)),
    chunk=st.integers(1, 9),
)  # fmt: skip
def test_any_cut_hides_what_the_whole_would_hide(pieces: list[str], secrets: list[str], chunk: int) -> None:
    whole = "".join(pieces).encode()
    masks = Masks(secrets)
    expected = masks.hide(whole)
    # What is sent of a log that still grows is what is known to stay.
    sent, grown = 0, b""
    for piece in pieces:
        grown += piece.encode()
        safe = len(grown) - (masks.held(grown[-max(1, masks.longest - 1) :]) if masks else 0)
        assert safe >= sent or not masks
        sent = max(sent, safe)
    for start in range(0, len(whole), chunk):
        before = min(start, max(0, masks.longest - 1))
        cut = whole[start - before : start + chunk + max(0, masks.longest - 1)]
        shown = masks.hide(cut)[before : before + chunk]
        # A chunk never shows a whole secret, whatever the cut.
        assert not any(secret in shown for secret in masks.secrets)
    assert not any(secret in expected for secret in masks.secrets)


def test_the_variables_of_a_running_process() -> None:
    shell = subprocess.Popen(
        ["/bin/sh", "-c", "TOKEN=hunter2! sh -c 'read end'; true"],
        env={"PATH": os.environ["PATH"]},
        stdin=subprocess.PIPE,
    )
    try:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if found := of_process(shell.pid, ["TOKEN", "OTHER"]):
                break
        assert found == {"TOKEN": "hunter2!"}
    finally:
        shell.communicate(b"end\n", timeout=30)
    assert of_process(shell.pid, ["TOKEN"]) == {}
