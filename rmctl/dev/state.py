"""State of workflows for tasks on their author's machine: the answers that a portal would give, kept in a file.

Tasks reach it as on a node, by a socket in `RM_STATE`. What the workflow keeps stays in the folder of the run, so the
next run with the same folder finds it; what the run keeps goes with the run.
"""

import json
import shutil
import socketserver
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from rmctl.agent.doors import LINE_BYTES, Request
from rmctl.names import STATE_KEY, STATE_KEYS_MAX, STATE_SOCKET, STATE_VALUE_BYTES
from rmctl.sdk.options import SdkError
from rmctl.spec.errors import describe
from rmctl.spec.values import canonical_json, json_faults

FILE = "state.json"


class Refusal(ValueError):
    """A request that a portal would refuse; the message says why."""


class Values:
    """The values of a scope under their keys, each with its version; a version is never given twice."""

    def __init__(self, noun: str, path: Path | None = None) -> None:
        self._noun, self._path = noun, path
        self._last = 0
        self._rows: dict[str, tuple[int, Any]] = {}
        if path is not None and path.exists():
            self._read(path)

    def _read(self, path: Path) -> None:
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            self._last = int(kept["last"])
            self._rows = {key: (int(row["version"]), row["value"]) for key, row in kept["values"].items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise SdkError(f"{path}: this is no state that rmctl dev has kept ({error}); remove it.") from None

    def _keep(self) -> None:
        if self._path is not None:
            rows = {key: {"version": version, "value": value} for key, (version, value) in self._rows.items()}
            text = json.dumps({"last": self._last, "values": rows}, indent=1, ensure_ascii=False)
            self._path.write_text(text, encoding="utf-8")

    def answer(self, asked: Request) -> dict[str, Any]:
        """What the portal would answer. Raises Refusal."""
        match asked.operation:
            case "list":
                return {"keys": sorted(self._rows), "written": True}
            case "get":
                return {**self._row(asked.key), "written": True}
            case "set":
                return self._set(asked.key, asked.value, asked.expected)
            case "delete":
                return self._delete(asked.key, asked.expected)

    def _row(self, key: str) -> dict[str, Any]:
        if key not in self._rows:
            return {"found": False, "value": None, "version": 0}
        version, value = self._rows[key]
        return {"found": True, "value": value, "version": version}

    def _set(self, key: str, value: Any, expected: int | None) -> dict[str, Any]:
        _check(key, value)
        if expected is not None and expected != self._row(key)["version"]:
            return {**self._row(key), "written": False}
        if key not in self._rows and len(self._rows) >= STATE_KEYS_MAX:
            raise Refusal(f"the state of {self._noun} has {STATE_KEYS_MAX} keys already: delete some.")
        self._last += 1
        self._rows[key] = (self._last, value)
        self._keep()
        return {"found": True, "value": None, "version": self._last, "written": True}

    def _delete(self, key: str, expected: int | None) -> dict[str, Any]:
        if key not in self._rows or expected not in (None, self._rows[key][0]):
            return {**self._row(key), "written": expected is None}
        del self._rows[key]
        self._keep()
        return {"found": False, "value": None, "version": 0, "written": True}


def _check(key: str, value: Any) -> None:
    """Refuse what the portal does not keep. Raises Refusal."""
    if not STATE_KEY.fullmatch(key):
        raise Refusal(f"{describe(key)} is not a key: letters, digits, _ . : and -, at most 200.")
    faults = json_faults(value)
    if faults:
        raise Refusal(faults[0]["message"])
    if len(canonical_json(value)) > STATE_VALUE_BYTES:
        raise Refusal(f"{key} has more than {STATE_VALUE_BYTES // 1024} KiB as JSON.")


class StateServer:
    """Answers tasks while a run goes; `path` is the socket, in a folder of its own, whose path is short enough."""

    def __init__(self, folder: Path) -> None:
        scopes = {"workflow": Values("the workflow", folder / FILE), "run": Values("the run")}
        self._place = Path(tempfile.mkdtemp(prefix="rmctl-state-"))
        self.path = self._place / STATE_SOCKET
        self._server = _Server(str(self.path), scopes)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        shutil.rmtree(self._place)


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True

    def __init__(self, path: str, scopes: Mapping[str, Values]) -> None:
        super().__init__(path, _Talk)
        self._scopes = scopes
        self._turn = threading.Lock()

    def reply(self, line: bytes) -> dict[str, Any]:
        """The answer to a line of a task, or what it is refused for."""
        try:
            asked = msgspec.json.decode(line, type=Request)
            with self._turn:
                return {"answer": self._scopes[asked.scope].answer(asked)}
        except (msgspec.DecodeError, UnicodeError, RecursionError, OverflowError) as error:
            return {"error": f"the request cannot be read: {error}"}
        except Refusal as error:
            return {"error": str(error)}


class _Talk(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        """Answer the requests of one connection until the task closes it."""
        while line := self.rfile.readline(LINE_BYTES + 1):
            if not line.endswith(b"\n"):
                return
            self.wfile.write(json.dumps(self.server.reply(line), ensure_ascii=False).encode() + b"\n")
