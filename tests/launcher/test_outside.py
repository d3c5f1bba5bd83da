"""`./portal` with a PostgreSQL and a Redis of somebody else, on TCP and with passwords that need quoting."""

import asyncio
import os
import pty
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
import redis
from django.core.management import CommandError

from deploy.local.environment import Environment
from deploy.local.folder import DataFolder
from deploy.local.outside import OutsideServers, Place
from deploy.local.processes import Identified, family
from deploy.local.servers import Postgres, Redis
from deploy.local.stack import free_port
from deploy.local.supervisor import enter
from rmportal import environment
from rmportal.management.commands import check_servers

from .conftest import ROOT, WAIT_SECONDS, until
from .running import own_environment, read_until, start

PASSWORD = "p@ss:w/r d?#%1"
DATABASE = "portal"


@dataclass
class Servers:
    """A real PostgreSQL and a real Redis with passwords."""

    data: DataFolder
    postgres_port: int
    redis_port: int

    def __post_init__(self) -> None:
        packages = Environment(ROOT).packages
        self._postgres = Postgres(packages, self.data, durable=False)
        self._redis = Redis(packages, self.data)
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._postgres.initialise()
        folder = self.data.postgres
        self._postgres._run(
            "postgres", "--single", "-D", str(folder), "postgres",
            text=f"ALTER ROLE postgres PASSWORD '{PASSWORD}'\nCREATE DATABASE {DATABASE}\n",
        )  # fmt: skip
        (folder / "pg_hba.conf").write_text("host all all 127.0.0.1/32 scram-sha-256\n")

    @property
    def variables(self) -> dict[str, str]:
        secret = quote(PASSWORD, safe="")
        return {
            "DATABASE_URL": f"postgresql://postgres:{secret}@127.0.0.1:{self.postgres_port}/{DATABASE}",
            "REDIS_URL": f"redis://:{secret}@127.0.0.1:{self.redis_port}/3",
        }

    def start(self) -> None:
        """Start both and wait until they let clients in."""
        service = self._postgres.service()
        self._running["postgres"] = subprocess.Popen(
            [*service.argv, "-c", "listen_addresses=127.0.0.1", "-p", str(self.postgres_port)],
            env=dict(service.environment),
            cwd="/",
            preexec_fn=partial(enter, os.getpid(), signal.SIGINT, self._postgres.identity),
        )
        redis_options = ["--bind", "127.0.0.1", "--port", str(self.redis_port), "--requirepass", PASSWORD]
        self._running["redis"] = subprocess.Popen(
            [
                str(self._redis.binary),
                *redis_options,
                "--save",
                "",
                "--dir",
                str(self.data.redis),
                "--loglevel",
                "warning",
            ],
            preexec_fn=partial(enter, os.getpid(), signal.SIGINT, None),
        )
        asyncio.run(until(self.answer))

    def answer(self) -> bool:
        """True when both let a client with the password in."""
        try:
            psycopg.connect(self.variables["DATABASE_URL"]).close()
            with redis.Redis.from_url(self.variables["REDIS_URL"]) as client:
                return bool(client.ping())
        except (psycopg.OperationalError, redis.ConnectionError):
            return False

    def stop(self) -> None:
        for process in self._running.values():
            process.send_signal(signal.SIGINT)
            process.wait(30)
        self._running.clear()


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    data = DataFolder(tmp_path_factory.mktemp("servers") / "data")
    data.open()
    found = Servers(data, free_port(), free_port())
    found.start()
    yield found
    found.stop()
    data.delete()


def portal(data: Path, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run `./portal …` on this data folder to its end."""
    command = [sys.executable, str(ROOT / "portal"), arguments[0], "--data", str(data), *arguments[1:]]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env=own_environment(**variables),
        timeout=120,
        check=False,
    )


def test_a_portal_on_outside_servers_from_its_start_to_its_end(servers: Servers, tmp_path: Path) -> None:
    data = tmp_path / "data"
    said: list[str] = []
    with start(data, free_port(), said, **servers.variables) as process:
        assert process.stdout is not None
        assert f"at 127.0.0.1:{servers.postgres_port} and Redis" in said[0]
        pids = family(process.pid)
        assert len(pids) > 4
        told = portal(data, "status")
        assert told.returncode == 0, told.stdout
        assert f"outside, at 127.0.0.1:{servers.redis_port}" in told.stdout
        counted = portal(data, "shell", "-c", "print('people', User.objects.count())")
        assert "people 1" in counted.stdout, counted.stderr

        servers.stop()
        read_until(process.stdout, said, "postgres at")
        read_until(process.stdout, said, "redis at")
        assert "does not answer; work waits until it does" in said[-1]
        told = portal(data, "status")
        assert told.returncode == 1
        assert told.stdout.count("away") == 2

        servers.start()
        read_until(process.stdout, said, "answers again")
        read_until(process.stdout, said, "answers again")
        assert portal(data, "status").returncode == 0
        # Nothing had to be restarted for that.
        assert set(pids) <= set(family(process.pid))

        arguments = b"".join(Path(f"/proc/{pid}/cmdline").read_bytes() for pid in family(process.pid))
        logs = b"".join(path.read_bytes() for path in (data / "log").iterdir())
        process.send_signal(signal.SIGTERM)
        said += process.stdout.readlines()
        assert process.wait(60) == 0
    for secret in (PASSWORD, quote(PASSWORD, safe=""), quote(PASSWORD)):
        assert secret.encode() not in arguments + logs
        assert secret not in "".join(said) + told.stdout

    forgotten = portal(data, "up", "--port", str(free_port()))
    assert forgotten.returncode == 2
    assert "set DATABASE_URL as before" in forgotten.stderr
    assert not (data / "postgres").exists()
    deleted = portal(data, "reset", "--yes")
    assert "outside server and was left as it is" in deleted.stdout
    with psycopg.connect(servers.variables["DATABASE_URL"]) as server:
        assert server.execute("SELECT count(*) FROM auth_user").fetchone() == (1,)


@pytest.mark.parametrize(
    ("name", "old", "new", "told"),
    [
        (
            "DATABASE_URL",
            quote(PASSWORD, safe=""),
            "wrong",
            'password authentication failed for user "postgres"',
        ),
        ("DATABASE_URL", f"/{DATABASE}", "/nowhere", 'database "nowhere" does not exist'),
        ("DATABASE_URL", "postgresql", "mysql", "starts with 'mysql'"),
        ("DATABASE_URL", quote(PASSWORD, safe=""), "a@b", "percent-encoded"),
        ("DATABASE_URL", f"/{DATABASE}", f"/{DATABASE}?sslmode=require", "does not support SSL"),
        ("REDIS_URL", f":{quote(PASSWORD, safe='')}@", ":wrong@", "invalid username-password pair"),
        ("REDIS_URL", f":{quote(PASSWORD, safe='')}@", "", "it wants a password"),
        ("REDIS_URL", "/3", "/99", "DB index is out of range"),
        ("REDIS_URL", "redis:", "amqp:", "one of the following schemes"),
    ],
)
def test_a_server_that_cannot_be_used_is_named_and_nothing_starts(
    servers: Servers, tmp_path: Path, name: str, old: str, new: str, told: str
) -> None:
    variables = {**servers.variables, name: servers.variables[name].replace(old, new)}
    assert variables != servers.variables
    answer = portal(tmp_path / "data", "up", "--port", str(free_port()), **variables)
    assert answer.returncode == 2
    assert answer.stderr.startswith(f"portal: {name}"), answer.stderr
    assert told in answer.stderr
    assert "The portal was not started." in answer.stderr
    assert "Traceback" not in answer.stderr
    assert not list((tmp_path / "data" / "log").glob("web.log"))


def test_both_servers_down_are_both_named(tmp_path: Path) -> None:
    ports = free_port(), free_port()
    answer = portal(
        tmp_path / "data",
        "up",
        DATABASE_URL=f"postgresql://me@127.0.0.1:{ports[0]}/portal",
        REDIS_URL=f"redis://127.0.0.1:{ports[1]}/0",
    )
    assert answer.returncode == 2
    assert f'"127.0.0.1", port {ports[0]} failed: Connection refused' in answer.stderr
    assert f"REDIS_URL: Error 111 connecting to 127.0.0.1:{ports[1]}" in answer.stderr


@pytest.mark.django_db
def test_an_old_postgresql_is_refused_with_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_servers.postgresql().startswith("PostgreSQL ")
    monkeypatch.setattr(check_servers, "POSTGRESQL_OLDEST", 99)
    with pytest.raises(CommandError, match=r"is PostgreSQL [\d.]+.*; RMPortal needs 99 or newer"):
        check_servers.postgresql()


def test_a_shell_needs_a_portal_that_was_up(tmp_path: Path) -> None:
    answer = portal(tmp_path / "data", "shell")
    assert answer.returncode == 2
    assert f"There is no portal in {tmp_path / 'data'} yet: make one with ./portal up" in answer.stderr
    assert not (tmp_path / "data").exists()


def read_terminal(terminal: int, *words: str) -> None:
    """Read what a program shows until it has shown these words in this order; fails the test when they do not come."""
    screen = ""
    for word in words:
        while word not in screen:
            assert select.select([terminal], [], [], WAIT_SECONDS)[0], f"{word!r} did not come: {screen!r}"
            screen += os.read(terminal, 65536).decode()
        screen = screen.partition(word)[2]


def test_ctrl_c_in_the_shell_of_a_stopped_portal_drops_a_line_not_the_shell(
    servers: Servers, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    with start(data, free_port(), **servers.variables) as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(
            sys.executable,
            [sys.executable, str(ROOT / "portal"), "shell", "--data", str(data)],
            own_environment(**servers.variables),
        )
    shell = Identified.of(pid)
    assert shell is not None
    try:
        read_terminal(terminal, ">>> ")
        os.write(terminal, b"x = 1 +")
        read_terminal(terminal, "x = 1 +")
        # A signal that comes just before Python waits for a key is only seen at the next one.
        os.write(terminal, b"\x03")
        os.write(terminal, b"\n")
        read_terminal(terminal, "KeyboardInterrupt", ">>> ")
        os.write(terminal, b"print(6 * 7)\n")
        read_terminal(terminal, "\n42", ">>> ")
        os.write(terminal, b"\x04")
        read_terminal(terminal, "now exiting")
        assert shell.wait(30)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    finally:
        os.close(terminal)
        shell.signal(signal.SIGKILL)


def test_addresses_are_read_as_libpq_and_redis_read_them(monkeypatch: pytest.MonkeyPatch) -> None:
    found = environment.database("postgresql://me:p%40%3A%2F@db.example:6000/my%20name?sslmode=require")
    assert [found[name] for name in ("NAME", "USER", "PASSWORD", "HOST", "PORT")] == [
        "my name", "me", "p@:/", "db.example", "6000",
    ]  # fmt: skip
    options = found["OPTIONS"]
    assert isinstance(options, dict)
    assert options["sslmode"] == "require"
    for url in ("postgresql://me@%2FRun%2Fpg:6000/name", "postgresql:///name?host=/Run/pg&port=6000&user=me"):
        found = environment.database(url)
        assert [found[name] for name in ("NAME", "USER", "HOST", "PORT")] == ["name", "me", "/Run/pg", "6000"]
        assert str(Place.of("postgres", url)) == "/Run/pg/.s.PGSQL.6000"
    assert str(Place.of("postgres", "postgresql://me@[::1]/x")) == "::1:5432"
    assert str(Place.of("redis", "rediss://:x@cache.example")) == "cache.example:6379"
    assert str(Place.of("redis", "unix://:x@/run/redis.sock?db=1")) == "/run/redis.sock"
    assert (
        environment.broker("unix://:p%40@/run/redis.sock?db=2")
        == "redis+socket://:p%40@/run/redis.sock?virtual_host=2"
    )
    assert environment.broker("redis://:x@h/1") == "redis://:x@h/1"


async def test_what_comes_and_goes_is_told_once_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploy.local.outside.LOOK_SECONDS", 0.01)
    told: list[str] = []
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    outside = OutsideServers(told.append, lambda: None)
    outside.places["redis"] = Place("127.0.0.1", port)
    watch = asyncio.create_task(outside.watch())
    await asyncio.sleep(0.1)
    assert told == []
    server.close()
    await until(lambda: len(told) == 1)
    assert outside.describe() == {"redis": {"address": f"127.0.0.1:{port}", "state": "away"}}
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", port)
    await until(lambda: len(told) == 2)
    assert told[1] == f"redis at 127.0.0.1:{port} answers again"
    watch.cancel()
    server.close()
