"""`state` and `run_state`: what a workflow keeps from run to run, and a run for its tasks. Loaded by tasks that ask.

    from rmctl import state, task

    @task(state=True)
    def load():
        since = state.get("cursor", "1970-01-01")
        ...
        state.set("cursor", newest)

Values are JSON of at most 64 KiB. The task talks to its node's agent, which hands the request to the portal; what an
attempt that was lost or cleared still writes is refused. Outside a task, as in a test, values live as long as the
process. In a script: `python -m rmctl.sdk.state [--run] get KEY [DEFAULT] | set KEY JSON | delete KEY | keys`.
"""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

VARIABLE = "RM_STATE"
VALUE_BYTES = 64 * 1024
# How long to wait for an agent that is being started again.
PATIENCE_SECONDS = 300.0
# A longer path is no address of a socket (sockaddr_un).
PATH_BYTES = 100


class StateError(Exception):
    """The state could not be read or written; the message says why."""


class State:
    """Values under keys, each with a version that grows with every write and never comes again; 0 stands for none."""

    __slots__ = ("_last", "_local", "_scope")

    def __init__(self, scope: str) -> None:
        self._scope = scope
        self._last = 0
        self._local: dict[str, tuple[int, str]] = {}

    def get(self, key: str, default: "Any" = None) -> "Any":
        """The value, or the default where there is none. Raises StateError."""
        found = self._ask("get", key)
        return found["value"] if found["found"] else default

    def get_versioned(self, key: str, default: "Any" = None) -> "tuple[Any, int]":
        """The value with its version for `compare_and_set`; the default and 0 where there is none. Raises
        StateError."""
        found = self._ask("get", key)
        return (found["value"], found["version"]) if found["found"] else (default, 0)

    def set(self, key: str, value: "Any") -> int:
        """Write, whatever is there; returns the version. Raises StateError."""
        return int(self._ask("set", key, value)["version"])

    def compare_and_set(self, key: str, expected_version: int, value: "Any") -> "int | None":
        """Write only where the value still has this version (0: only where there is none); returns the new version, or
        None when others have written since. Raises StateError."""
        answer = self._ask("set", key, value, expected_version)
        return int(answer["version"]) if answer["written"] else None

    def update(self, key: str, function: "Callable[[Any], Any]", default: "Any" = None) -> "Any":
        """Put what `function` makes of the present value (or the default) in its place, and return it. It is called
        again where others were first, so it does nothing else. Raises StateError."""
        value, version = self.get_versioned(key, default)
        while True:
            new = function(value)
            answer = self._ask("set", key, new, version)
            if answer["written"]:
                return new
            value = answer["value"] if answer["found"] else default
            version = answer["version"]

    def delete(self, key: str) -> None:
        """Remove a value; one that is not there is no error. Raises StateError."""
        self._ask("delete", key)

    def keys(self) -> "list[str]":
        """The keys, in order. Raises StateError."""
        return list(self._ask("list")["keys"])

    def _ask(
        self, operation: str, key: str = "", value: "Any" = None, expected: "int | None" = None
    ) -> "dict[str, Any]":
        from json import dumps

        path = os.environ.get(VARIABLE)
        if not path and "RM_JOB_ID" in os.environ:
            raise StateError("this task has not asked for state: give it state=True (in YAML: state: true)")
        try:
            text = dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
            size = len(text.encode())
        except (TypeError, ValueError, RecursionError) as error:
            raise StateError(f"{key}: the value cannot be kept as JSON: {error}") from None
        if size > VALUE_BYTES:
            raise StateError(
                f"{key}: the value has {size // 1024} KiB as JSON, and a value has at most {VALUE_BYTES // 1024} KiB: "
                "keep large data in a file (rmctl.artifact) and its name here"
            )
        if not path:
            return self._at_home(operation, key, text, expected)
        body: dict[str, Any] = {"scope": self._scope, "operation": operation, "key": key, "expected": expected}
        if operation in ("set", "delete"):
            # By this name the portal knows a request that comes again because its answer was lost.
            body["request"] = os.urandom(12).hex()
        if operation == "set":
            body["value"] = value
        answer = _patiently(path, dumps(body, ensure_ascii=False).encode() + b"\n")
        if "error" in answer:
            raise StateError(f"{key + ': ' if key else ''}{answer['error']}")
        return dict(answer["answer"])

    def _at_home(self, operation: str, key: str, text: str, expected: "int | None") -> "dict[str, Any]":
        """Outside a task."""
        from json import loads

        version = self._local[key][0] if key in self._local else 0
        written = operation not in ("set", "delete") or expected is None or expected == version
        if written and operation == "set":
            self._last += 1
            self._local[key] = (self._last, text)
        elif written and operation == "delete":
            self._local.pop(key, None)
        if operation == "list":
            return {"keys": sorted(self._local)}
        if key not in self._local:
            return {"found": False, "value": None, "version": 0, "written": written}
        version, text = self._local[key]
        return {"found": True, "value": loads(text), "version": version, "written": written}


def _patiently(path: str, line: bytes) -> "dict[str, Any]":
    """The answer of the agent; one that is being started again is waited for. Raises StateError."""
    from time import monotonic, sleep

    until, pause = monotonic() + PATIENCE_SECONDS, 0.02
    while True:
        try:
            return _exchange(path, line)
        except OSError as error:
            if monotonic() > until:
                raise StateError(f"the node's agent does not answer at {path}: {error}") from None
            sleep(pause)
            pause = min(2 * pause, 1.0)


def _exchange(path: str, line: bytes) -> "dict[str, Any]":
    """One request and its answer. Raises OSError when there is none."""
    import socket
    from contextlib import suppress
    from json import loads

    folder = -1
    if len(os.fsencode(path)) > PATH_BYTES:
        folder = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY)
        path = f"/proc/self/fd/{folder}/{os.path.basename(path)}"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as door:
            door.connect(path)
            # Refused before all of it was read: the answer says why.
            with suppress(ConnectionError):
                door.sendall(line)
            with door.makefile("rb") as stream:
                text = stream.readline()
    finally:
        if folder >= 0:
            os.close(folder)
    if not text.endswith(b"\n"):
        raise ConnectionResetError("the connection was closed before the answer")
    answer: dict[str, Any] = loads(text)
    return answer


state = State("workflow")
run_state = State("run")


def main(arguments: "list[str]") -> int:
    """The same for scripts; returns the exit status: 1 for what could not be done."""
    import json
    import sys

    usage = "usage: python -m rmctl.sdk.state [--run] get KEY [DEFAULT] | set KEY JSON | delete KEY | keys"
    chosen = run_state if arguments[:1] == ["--run"] else state
    operation, *rest = arguments[chosen is run_state :] or [""]
    try:
        match operation, rest:
            case "get", [key]:
                print(json.dumps(chosen.get(key), ensure_ascii=False))
            case "get", [key, default]:
                print(json.dumps(chosen.get(key, json.loads(default)), ensure_ascii=False))
            case "set", [key, value]:
                chosen.set(key, json.loads(value))
            case "delete", [key]:
                chosen.delete(key)
            case "keys", []:
                found = chosen.keys()
                print("".join(f"{key}\n" for key in found), end="")
            case _:
                print(usage, file=sys.stderr)
                return 2
    except (StateError, ValueError) as error:
        print(f"rmctl.sdk.state: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    import sys

    sys.exit(main(sys.argv[1:]))
