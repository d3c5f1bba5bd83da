"""Supervision of real processes."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.local.console import Refusal
from deploy.local.folder import DataFolder
from deploy.local.processes import Identified, family
from deploy.local.supervisor import LOG_ROTATE_BYTES, Supervisor, rotate

from .conftest import ROOT, python_service, until

FOREVER = "import signal; signal.pause()"


async def test_a_killed_process_comes_back_as_another(
    supervisor: Supervisor, told: list[str], data: DataFolder
) -> None:
    await supervisor.start(python_service("web", FOREVER))
    member = supervisor.members["web"]
    first = member.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await until(lambda: member.restarts == 1 and member.state == "ready")
    assert member.pid != first
    assert told == ["web ended (killed by SIGKILL); restarting it"]
    recorded = Identified.read(data.run / "web.pid")
    assert recorded is not None
    assert recorded.pid == member.pid


async def test_one_that_keeps_dying_waits_longer_each_time(supervisor: Supervisor, told: list[str]) -> None:
    await supervisor.start(python_service("worker", "raise SystemExit(7)"))
    await until(lambda: len(told) >= 3)
    assert told[0] == "worker ended (exit status 7); restarting it"
    assert told[1].endswith("restarting it in 0.2 s")
    assert told[2].endswith("restarting it in 0.5 s")


async def test_one_that_lives_but_gets_nothing_done_is_restarted(
    supervisor: Supervisor, told: list[str], tmp_path: Path
) -> None:
    busy = tmp_path / "busy"
    code = f"import pathlib, time\nwhile True: pathlib.Path({str(busy)!r}).touch(); time.sleep(0.05)"
    await supervisor.start(python_service("working", code, progress=busy))
    await supervisor.start(python_service("hanging", FOREVER, progress=tmp_path / "never"))
    guard = asyncio.create_task(supervisor.guard(patience=0.6))
    await until(lambda: supervisor.members["hanging"].restarts == 1)
    guard.cancel()
    assert "hanging has done nothing for 0.6 s" in told
    assert supervisor.members["working"].restarts == 0


async def test_what_cannot_get_on_is_left_alone(supervisor: Supervisor, told: list[str], tmp_path: Path) -> None:
    await supervisor.start(python_service("waiting", FOREVER, progress=tmp_path / "never"))
    asked: list[bool] = []
    away = [True]

    def excused() -> bool:
        asked.append(away[0])
        return away[0]

    guard = asyncio.create_task(supervisor.guard(patience=0.3, excused=excused))
    await until(lambda: len(asked) > 12)
    assert told == []
    away[0] = False
    await until(lambda: supervisor.members["waiting"].restarts == 1)
    guard.cancel()


async def test_a_final_status_is_not_restarted(supervisor: Supervisor, told: list[str]) -> None:
    await supervisor.start(python_service("agent", "raise SystemExit(3)", final={3: "its credential was revoked"}))
    member = supervisor.members["agent"]
    await until(member.ended.is_set)
    assert member.state == "refused"
    assert member.restarts == 0
    assert told == ["agent stopped for good: its credential was revoked"]


async def test_ready_is_asked_for(supervisor: Supervisor, tmp_path: Path) -> None:
    sign = tmp_path / "sign"

    async def ready() -> bool:
        return sign.exists()

    code = f"import pathlib, signal; pathlib.Path({str(sign)!r}).touch(); signal.pause()"
    await supervisor.start(python_service("web", code, ready=ready))
    assert sign.exists()
    assert supervisor.members["web"].state == "ready"


async def test_ending_before_ready_refuses_with_the_log(supervisor: Supervisor) -> None:
    async def never() -> bool:
        return False

    service = python_service("web", "print('no such module'); raise SystemExit(1)", ready=never)
    with pytest.raises(Refusal, match=r"web ended while starting[\s\S]*no such module"):
        await supervisor.start(service)
    assert supervisor.members["web"].restarts == 0


async def test_being_too_slow_refuses_and_leaves_nothing(supervisor: Supervisor) -> None:
    async def never() -> bool:
        return False

    with pytest.raises(Refusal, match="was not ready after"):
        await supervisor.start(python_service("web", FOREVER, ready=never), patience=0.2)
    pid = supervisor.members["web"].pid
    assert pid is not None
    assert Identified.of(pid) is None


async def test_stop_asks_first_and_then_insists(supervisor: Supervisor, tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    ready = tmp_path / "ready"
    code = (
        "import pathlib, signal\n"
        f"signal.signal(signal.SIGTERM, lambda *_: pathlib.Path({str(asked)!r}).touch())\n"
        f"pathlib.Path({str(ready)!r}).touch()\n"
        "while True: signal.pause()"
    )
    await supervisor.start(python_service("stubborn", code, stop_steps=((signal.SIGTERM, 0.3),)))
    await until(ready.exists)
    await supervisor.stop("stubborn")
    process = supervisor.members["stubborn"].process
    assert asked.exists()
    assert process is not None
    assert process.returncode == -signal.SIGKILL


async def test_a_second_signal_hurries(supervisor: Supervisor, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    code = (
        "import pathlib, signal\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"pathlib.Path({str(ready)!r}).touch()\n"
        "while True: signal.pause()"
    )
    await supervisor.start(python_service("stubborn", code, stop_steps=((signal.SIGTERM, 3600.0),)))
    await until(ready.exists)
    hurry = asyncio.Event()
    hurry.set()
    async with asyncio.timeout(30):
        await supervisor.stop("stubborn", hurry)
    assert supervisor.members["stubborn"].ended.is_set()


async def test_processes_are_out_of_reach_of_the_terminals_signals(supervisor: Supervisor) -> None:
    await supervisor.start(python_service("web", FOREVER))
    pid = supervisor.members["web"].pid
    assert pid is not None
    assert os.getpgid(pid) == pid
    assert os.getsid(pid) == pid


async def test_a_command_hands_on_its_lines_and_its_status(supervisor: Supervisor, tmp_path: Path) -> None:
    given = tmp_path / "given"
    given.write_text("token\n")
    lines: list[str] = []
    code = "import sys; print(input()); print('b', file=sys.stderr); sys.exit(4)"
    status = await supervisor.run([sys.executable, "-c", code], {}, "/", lines.append, stdin=given)
    assert status == 4
    assert sorted(lines) == ["b", "token"]


async def test_a_cancelled_command_is_ended(supervisor: Supervisor) -> None:
    lines: list[str] = []
    code = "import os, signal; print(os.getpid(), flush=True); signal.pause()"
    task = asyncio.create_task(supervisor.run([sys.executable, "-c", code], {}, "/", lines.append))
    await until(lambda: len(lines) == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert Identified.of(int(lines[0])) is None


LAUNCHER = """
import asyncio, sys
from pathlib import Path
from deploy.local.supervisor import Service, Supervisor

async def main():
    supervisor = Supervisor(Path(sys.argv[1]), Path(sys.argv[2]), print)
    code = "import signal; signal.pause()"
    await supervisor.start(Service(name="web", argv=[sys.executable, "-c", code], environment={}, folder="/"))
    print(supervisor.members["web"].pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def test_children_end_with_a_killed_launcher(data: DataFolder) -> None:
    command = [sys.executable, "-c", LAUNCHER, str(data.run), str(data.log)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as launcher:
        assert launcher.stdout is not None
        child = Identified.of(int(launcher.stdout.readline()))
        assert child is not None
        assert child.pid in family(launcher.pid)
        launcher.kill()
    assert child.wait(30.0)


def test_long_logs_are_put_aside(tmp_path: Path) -> None:
    log = tmp_path / "web.log"
    for number in range(5):
        log.write_bytes(b"%d" % number + b"x" * LOG_ROTATE_BYTES)
        rotate(log)
    assert not log.exists()
    kept = [(path.name, path.read_bytes()[:1]) for path in sorted(tmp_path.iterdir())]
    assert kept == [("web.log.1", b"4"), ("web.log.2", b"3"), ("web.log.3", b"2")]
