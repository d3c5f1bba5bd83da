"""A thin client of the portal's REST API.

Errors of the portal arrive as `ApiError` with its code and fields; a portal that cannot be reached as
`Unreachable`. Every change carries an Idempotency-Key, so that a repeated one has its effect and its answer once;
requests are repeated with the same key when the connection fails or the portal says that it is away.
"""

import os
import time
import tomllib
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self
from urllib.parse import parse_qs, urlsplit

import httpx

import rmctl

TRIES = 5
FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 5.0
PAGE = 200


class ClientError(Exception):
    """Base of what this module raises."""


class ConfigError(ClientError):
    """No usable address or token; the message says how to give one."""


class Unreachable(ClientError):
    """The portal did not answer, however often it was asked."""


class ApiError(ClientError):
    """The portal refused: HTTP `status`, a stable `code`, and `errors` that name fields."""

    def __init__(self, status: int, code: str, detail: str, errors: list[dict[str, str]]) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = errors


@dataclass(frozen=True, slots=True)
class Config:
    """Where the portal is and who asks; `tenant` is the one to use when none is named."""

    url: str = ""
    token: str = field(default="", repr=False)
    tenant: str = ""


def config_path() -> Path:
    """`$XDG_CONFIG_HOME/rmctl/config.toml`, by default in ~/.config."""
    base = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(base).expanduser() / "rmctl" / "config.toml"


def load_config() -> Config:
    """The configuration file with RMCTL_URL, RMCTL_TOKEN and RMCTL_TENANT over it. Raises ConfigError."""
    path = config_path()
    try:
        stored = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        stored = {}
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}. Mend it, or run `rmctl login` again.") from None
    url = os.environ.get("RMCTL_URL")
    # A token belongs to its portal: another address from the environment must not be sent the stored one.
    same = not url or url.rstrip("/") == str(stored.get("url", "")).rstrip("/")
    return Config(
        url=url or str(stored.get("url", "")),
        token=os.environ.get("RMCTL_TOKEN") or (str(stored.get("token", "")) if same else ""),
        tenant=os.environ.get("RMCTL_TENANT") or (str(stored.get("tenant", "")) if same else ""),
    )


def save_config(config: Config) -> Path:
    """Write the configuration, readable by its owner only."""
    path = config_path()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    lines = [
        f"{name} = {_toml(value)}\n"
        for name, value in (("url", config.url), ("token", config.token), ("tenant", config.tenant))
        if value
    ]
    temporary = path.with_suffix(".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.writelines(lines)
    temporary.replace(path)
    return path


def _toml(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


class Client:
    """The API at one address with one token; close it, or use it in a `with` block."""

    def __init__(
        self,
        url: str,
        token: str = "",
        *,
        transport: httpx.BaseTransport | None = None,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(
                f"{url!r} is not the address of a portal; give one such as https://portal.example.org."
            )
        self.url = url.rstrip("/")
        headers = {"User-Agent": f"rmctl/{rmctl.__version__}", "Accept": "application/json"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        self._pause = pause
        self._http = httpx.Client(
            base_url=f"{self.url}/api/v1/",
            headers=headers,
            timeout=httpx.Timeout(30, connect=10, write=120),
            transport=transport,
            # A proxy of the environment is for the outside; it knows another "localhost".
            trust_env=parts.hostname not in ("localhost", "127.0.0.1", "::1"),
        )

    @classmethod
    def from_config(cls, config: Config | None = None) -> Self:
        """A client for the configured portal. Raises ConfigError when none is configured."""
        config = config or load_config()
        if not config.url:
            raise ConfigError(
                "No portal is configured: run `rmctl login URL`, or set RMCTL_URL and RMCTL_TOKEN."
            )
        return cls(config.url, config.token)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the connections back."""
        self._http.close()

    def request(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        content: bytes | None = None,
        params: Mapping[str, Any] | None = None,
        idempotent: bool = True,
    ) -> httpx.Response:
        """One request, repeated while that is safe and useful. Raises ApiError and Unreachable."""
        headers = {}
        if method != "GET" and idempotent:
            headers["Idempotency-Key"] = str(uuid.uuid4())
        if content is not None:
            headers["Content-Type"] = "application/gzip"
        query = {name: value for name, value in (params or {}).items() if value is not None}
        pause = FIRST_PAUSE_SECONDS
        for left in reversed(range(TRIES)):
            try:
                response = self._http.request(
                    method, path, json=body, content=content, params=query, headers=headers
                )
            except httpx.TransportError as error:
                if not left or not idempotent:
                    raise self._unreachable(error) from None
            else:
                if response.status_code not in (429, 502, 503, 504) or not left or not idempotent:
                    return _checked(response)
                pause = max(pause, _retry_after(response))
                if pause > LONGEST_PAUSE_SECONDS:
                    return _checked(response)
            self._pause(pause)
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
        raise AssertionError("the last try returns or raises")

    def _unreachable(self, error: httpx.TransportError) -> Unreachable:
        return Unreachable(f"{self.url} cannot be reached: {error or type(error).__name__}")

    def get(self, path: str, **params: Any) -> Any:
        """The JSON of a GET."""
        return _json(self.request("GET", path, params=params))

    def post(self, path: str, body: Any = None, *, idempotent: bool = True, **params: Any) -> Any:
        """The JSON of a POST."""
        response = self.request(
            "POST", path, body={} if body is None else body, params=params, idempotent=idempotent
        )
        return _json(response) if response.content else None

    def pages(self, path: str, *, limit: int | None = None, **params: Any) -> Iterator[dict[str, Any]]:
        """The rows of a list, page after page, at most `limit`."""
        left = limit
        given = {name: value for name, value in params.items() if value is not None}
        query: dict[str, Any] = {**given, "limit": PAGE if left is None else max(1, min(left, PAGE))}
        while left is None or left > 0:
            page = self.get(path, **query)
            for row in page["results"]:
                yield row
                if left is not None:
                    left -= 1
                    if left == 0:
                        return
            if not page.get("next"):
                return
            query["cursor"] = _cursor(page["next"])

    def events(self, *, look_seconds: float = 1.0, **params: Any) -> Iterator[dict[str, Any]]:
        """What happens, each event once and without end: while there is nothing new, the portal is asked again and
        again."""
        query: dict[str, Any] = {**params, "settled": "true", "ordering": "id", "limit": PAGE}
        while True:
            page = self.get("events", **query)
            yield from page["results"]
            query["cursor"] = _cursor(page["follow"])
            if not page["next"]:
                self._pause(look_seconds)

    def login(self, username: str, password: str, name: str = "rmctl") -> str:
        """Trade a password for a token. Raises ApiError (401) when it is wrong."""
        body = {"username": username, "password": password, "name": name}
        token: str = self.post("login", body, idempotent=False)["token"]
        return token

    def me(self) -> dict[str, Any]:
        """Who the token belongs to, with roles."""
        return dict(self.get("me"))

    def submit(self, job: Mapping[str, Any]) -> dict[str, Any]:
        """Submit a job; its row."""
        return dict(self.post("jobs", job))

    def job(self, job_id: int) -> dict[str, Any]:
        """One job."""
        return dict(self.get(f"jobs/{job_id}"))

    def cancel_job(self, job_id: int, reason: str = "") -> dict[str, Any]:
        """Stop a job."""
        return dict(self.post(f"jobs/{job_id}/cancel", {"reason": reason} if reason else {}) or {})

    def why(self, job_id: int) -> dict[str, Any]:
        """Why a job is where it is: reason, detail and what was tried."""
        return dict(self.get(f"jobs/{job_id}/why"))

    def attempts(self, job_id: int) -> list[dict[str, Any]]:
        """The attempts of a job, oldest first; their number is `token`."""
        return sorted(self.pages(f"jobs/{job_id}/attempts"), key=lambda row: int(row["token"]))

    def log(
        self, job_id: int, *, offset: int = 0, rank: int = 0, attempt: int | None = None
    ) -> tuple[bytes, bool]:
        """(bytes of the log from the offset, whether that is all there will be)."""
        params = {"offset": offset, "rank": rank, "attempt": attempt}
        response = self.request("GET", f"jobs/{job_id}/logs", params=params)
        complete = response.headers.get("X-Log-Complete", "").lower() == "true"
        size = int(response.headers.get("X-Log-Size", offset + len(response.content)))
        return response.content, complete and offset + len(response.content) >= size

    def checkpoints(self, job_id: int) -> list[dict[str, Any]]:
        """What a job's members have saved, the newest first."""
        return list(self.pages(f"jobs/{job_id}/checkpoints"))

    def save_checkpoint(self, job_id: int, checkpoint_id: int, target: IO[bytes]) -> None:
        """Write one of them, a tar.gz, to `target` as it comes, which is not repeated."""
        try:
            with self._http.stream("GET", f"jobs/{job_id}/checkpoints/{checkpoint_id}") as response:
                if response.status_code >= 400:
                    response.read()
                for piece in _checked(response).iter_bytes():
                    target.write(piece)
        except httpx.TransportError as error:
            raise self._unreachable(error) from None

    def upload_bundle(self, content: bytes, tenant: str | None = None) -> str:
        """Store a bundle; its SHA-256."""
        sha256: str = _json(self.request("POST", "bundles", content=content, params={"tenant": tenant}))[
            "sha256"
        ]
        return sha256

    def push(self, definition: Mapping[str, Any], tenant: str | None = None) -> dict[str, Any]:
        """Make a definition the newest version: workflow id, version, digest, and `created` (false: known)."""
        body = {"definition": definition, **({"tenant": tenant} if tenant else {})}
        return dict(self.post("workflows", body))

    def try_push(self, definition: Mapping[str, Any], tenant: str | None = None) -> dict[str, Any]:
        """What `push` would answer, its bundle uploaded; nothing is kept. Raises ApiError as that would."""
        body = {"definition": definition, "bundle_follows": True, **({"tenant": tenant} if tenant else {})}
        return dict(self.post("workflows", body, dry_run="1"))

    def version(self, workflow_id: int, number: int) -> dict[str, Any]:
        """One version of a workflow with its definition."""
        return dict(self.get(f"workflows/{workflow_id}/versions/{number}"))

    def workflow(self, name: str, tenant: str | None = None) -> dict[str, Any]:
        """A workflow by name or id. Raises ApiError (404) for none, ConfigError for a name of several."""
        if name.isdecimal():
            return dict(self.get(f"workflows/{name}"))
        found = [row for row in self.pages("workflows", tenant=tenant, name=name) if row["name"] == name]
        if not found:
            where = f" in tenant {tenant}" if tenant else ""
            raise ApiError(404, "not_found", f"There is no workflow {name}{where} that you can see.", [])
        if len(found) > 1:
            raise ConfigError(f"Several tenants have a workflow {name}: name one with --tenant.")
        return found[0]

    def trigger(
        self, workflow_id: int, params: Mapping[str, Any], note: str = "", *, no_cache: bool = False
    ) -> dict[str, Any]:
        """Start a run, with `no_cache` without earlier results; its row."""
        body = {"params": params, "note": note, **({"no_cache": True} if no_cache else {})}
        return dict(self.post(f"workflows/{workflow_id}/trigger", body))

    def upcoming(self, workflow_id: int, count: int) -> dict[str, Any]:
        """The next runs of a workflow's timetable, with its schedule and time zone."""
        return dict(self.get(f"workflows/{workflow_id}/upcoming", count=count))

    def run(self, run_id: int) -> dict[str, Any]:
        """One run."""
        return dict(self.get(f"runs/{run_id}"))

    def run_graph(self, run_id: int) -> list[dict[str, Any]]:
        """The tasks of a run as nodes of its graph; instances of a mapped one are counted by state in it."""
        nodes: list[dict[str, Any]] = self.get(f"runs/{run_id}/graph")["nodes"]
        return nodes

    def run_tasks(
        self, run_id: int, *, limit: int | None = None, **filters: str | int | None
    ) -> list[dict[str, Any]]:
        """The tasks and instances of a run, oldest first; by `name`, `state` or `job`."""
        return list(self.pages(f"runs/{run_id}/tasks", limit=limit, ordering="id", **filters))

    def run_path(self, run_id: int) -> dict[str, Any]:
        """The longest path of a run."""
        return dict(self.get(f"runs/{run_id}/path"))

    def cancel_run(self, run_id: int, reason: str = "") -> dict[str, Any]:
        """Stop a run and its jobs."""
        return dict(self.post(f"runs/{run_id}/cancel", {"reason": reason} if reason else {}) or {})

    def clear_run(self, run_id: int, body: Mapping[str, Any], *, dry_run: bool = False) -> dict[str, Any]:
        """Let tasks of a run run again; what was, or with `dry_run` would be, cleared."""
        return dict(self.post(f"runs/{run_id}/clear", body, dry_run="1" if dry_run else None))

    def mark_tasks(self, run_id: int, tasks: Sequence[str], state: str, reason: str = "") -> dict[str, Any]:
        """Count tasks as `succeeded`, `failed` or `skipped`; the run."""
        return dict(self.post(f"runs/{run_id}/mark", {"tasks": list(tasks), "state": state, "reason": reason}))

    def note_run(self, run_id: int, note: str) -> dict[str, Any]:
        """Write the note of a run; the run."""
        return dict(self.post(f"runs/{run_id}/note", {"note": note}))

    def tries(self, run_id: int, name: str | None = None) -> list[dict[str, Any]]:
        """Earlier tries of the tasks of a run, oldest first."""
        return list(self.pages(f"runs/{run_id}/tries", ordering="id", name=name))

    def create_backfill(self, body: Mapping[str, Any], *, dry_run: bool = False) -> dict[str, Any]:
        """Run a workflow for a range of its logical times; the backfill with its `plan`."""
        return dict(self.post("backfills", body, dry_run="1" if dry_run else None))

    def backfills(self, *, limit: int | None = None, **filters: Any) -> list[dict[str, Any]]:
        """Backfills, newest first."""
        return list(self.pages("backfills", limit=limit, **filters))

    def backfill(self, backfill_id: int) -> dict[str, Any]:
        """One backfill with its runs by state."""
        return dict(self.get(f"backfills/{backfill_id}"))

    def backfill_action(self, backfill_id: int, verb: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """`pause`, `resume`, `cancel` or `rerun` a backfill; its row."""
        return dict(self.post(f"backfills/{backfill_id}/{verb}", body))


def _cursor(address: str) -> str:
    """Only the cursor is taken: the address may be another one behind a proxy."""
    return parse_qs(urlsplit(address).query)["cursor"][0]


def _json(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        raise ClientError(
            f"{response.url} answered something that is not JSON; is it a portal's address?"
        ) from None


def _retry_after(response: httpx.Response) -> float:
    value = response.headers.get("Retry-After", "")
    return float(value) if value.isdecimal() else 0.0


def _checked(response: httpx.Response) -> httpx.Response:
    """The response of a success; anything else as ApiError."""
    if response.is_success:
        return response
    try:
        body = response.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        body = {}
    elsewhere = f" It points to {response.headers['Location']}." if "Location" in response.headers else ""
    said = f"{response.url} answered {response.status_code} {response.reason_phrase}.{elsewhere}"
    detail = body.get("detail") or said
    errors = [error for error in body.get("errors") or [] if isinstance(error, dict)]
    raise ApiError(response.status_code, str(body.get("code", "")), str(detail), errors)
