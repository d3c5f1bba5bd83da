"""Starting, ending and reporting tasks, with a real agent and real processes."""

import io
import json
import os
import tarfile

import msgspec
import pytest

from rmctl.agent.logs import NOTICE
from rmctl.agent.protocol import MAX_RESULT_BYTES, GpuShare, Stop
from tests.agent.conftest import Agent


def bundle(*members: tuple[str, bytes | str]) -> bytes:
    """A tar.gz with files; text content is the target of a symbolic link."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def test_a_task_runs_and_reports_its_end(agent: Agent) -> None:
    placement = agent.run("echo hello; echo problem >&2; exit 7")
    started = agent.portal.started(placement)
    ended = agent.portal.ended(placement)
    assert started.pid and started.at <= ended.at
    assert started.enforced["time"] == "agent"
    assert (ended.reason, ended.exit_code, ended.signal) == ("exited", 7, None)
    assert agent.portal.log(placement) == b"hello\nproblem\n"
    assert (placement, 1) in agent.portal.finals
    assert ended.usage and ended.usage.wall_seconds > 0
    agent.wait_forgotten(placement)
    assert not agent.folder(placement).exists()


def test_an_empty_log_needs_no_frame(agent: Agent) -> None:
    placement = agent.run("true")
    assert agent.portal.ended(placement).log_size == 0
    agent.wait_forgotten(placement)
    assert (placement, 1) not in agent.portal.logs


def test_a_signal_is_reported(agent: Agent) -> None:
    ended = agent.portal.ended(agent.run("kill -SEGV $$"))
    assert (ended.reason, ended.exit_code, ended.signal) == ("exited", 139, 11)


def test_the_environment_is_clean_and_complete(agent: Agent) -> None:
    placement = agent.run(
        "env -0 | tr '\\0' '\\n'; echo IN=$(cat $RM_INPUTS); echo PWD=$(pwd)",
        env={"COLOUR": "blue", "RM_JOB_ID": "forged"}, secrets={"KEY": "two\nlines"},
        inputs={"n": [1, 2]}, rank=2, size=3, group="workers", gpus=[GpuShare(1, 500), GpuShare(3, 1000)],
    )  # fmt: skip
    lines = agent.portal.log(placement).decode().splitlines()
    for expected in (
        "COLOUR=blue",
        "KEY=two",
        "lines",
        "RM_JOB_ID=11",
        "RM_RANK=2",
        "RM_SIZE=3",
        "RM_GROUP=workers",
    ):
        assert expected in lines
    assert "RM_TENANT=vision" in lines and 'IN={"n":[1,2]}' in lines and "CUDA_VISIBLE_DEVICES=1,3" in lines
    home = next(line for line in lines if line.startswith("HOME="))
    assert f"PWD={home.removeprefix('HOME=')}" in lines
    assert not any(line.startswith("AGENT_ONLY") for line in lines)


def test_python_is_the_agents_and_finds_rmctl(agent: Agent) -> None:
    placement = agent.run("python -c 'import rmctl.agent.protocol, msgspec, sys; print(sys.prefix)'")
    assert agent.portal.ended(placement).exit_code == 0, agent.portal.log(placement)


def test_loader_variables_reach_the_task_only(agent: Agent) -> None:
    # A library that does not exist: every program that is started with the variable complains in the log.
    placement = agent.run("echo $LD_PRELOAD", env={"LD_PRELOAD": "/evil.so"})
    lines = agent.portal.log(placement).decode().splitlines()
    assert lines[-1] == "/evil.so"
    assert len([line for line in lines if "cannot be preloaded" in line]) <= 1


def test_an_impossible_variable_is_refused(agent: Agent) -> None:
    ended = agent.portal.ended(agent.run("true", env={"BASH_FUNC_x%%": "() { :; }"}))
    assert ended.reason == "refused"
    assert "BASH_FUNC_x%%" in ended.detail and "not a variable name" in ended.detail


def test_results(agent: Agent) -> None:
    value = {"rows": [1, 2.5, None, "ü"], "big": 2**60}
    good = agent.run(f"printf '%s' '{json.dumps(value)}' > $RM_RESULT")
    renamed = agent.run("echo 5 > $RM_RESULT.new && mv $RM_RESULT.new $RM_RESULT")
    assert agent.portal.ended(good).result == value
    assert agent.portal.ended(renamed).result == 5


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("echo '{broken' > $RM_RESULT", "not valid JSON"),
        ("echo 'NaN' > $RM_RESULT", "not valid JSON"),
        (
            "echo '1e999999999999' > $RM_RESULT; echo 123456789012345678901234567890 > $RM_RESULT",
            "not valid JSON",
        ),
        ('echo \'{"a": "\\u0000"}\' > $RM_RESULT', "U+0000"),
        (f"head -c {MAX_RESULT_BYTES + 1} /dev/zero > $RM_RESULT", "larger than"),
        ("mkfifo $RM_RESULT", "not a plain file"),
        ("mkdir $RM_RESULT", "not a plain file"),
        ("ln -s /etc/hostname $RM_RESULT", "not a plain file"),
    ],
)
def test_an_invalid_result_is_a_failure(agent: Agent, script: str, says: str) -> None:
    ended = agent.portal.ended(agent.run(script))
    assert (ended.reason, ended.exit_code, ended.result) == ("result_invalid", 0, None)
    assert says in ended.detail


def test_artifacts_are_stored_before_the_end_is_reported(agent: Agent) -> None:
    agent.portal.failing_uploads = 1
    placement = agent.run(
        "cd $RM_ARTIFACTS; mkdir 'a b'; printf one > 'a b/ü.txt'; "
        "head -c 300000 /dev/zero > zeros; ln -s /etc/passwd link"
    )
    ended = agent.portal.ended(placement)
    assert agent.portal.artifacts[placement, "a b/ü.txt"] == b"one"
    assert agent.portal.artifacts[placement, "zeros"] == bytes(300_000)
    assert (placement, "link") not in agent.portal.artifacts
    assert "'link' is not a plain file" in ended.detail and ended.reason == "exited"


def test_an_artifact_folder_that_leads_away_is_not_followed(agent: Agent) -> None:
    placement = agent.run("rmdir $RM_ARTIFACTS && ln -s /etc $RM_ARTIFACTS")
    ended = agent.portal.ended(placement)
    assert "not followed" in ended.detail
    assert not [name for owner, name in agent.portal.artifacts if owner == placement]
    assert os.stat("/etc").st_mode & 0o777 == 0o755


def test_nothing_of_a_task_reaches_the_next_one(agent: Agent) -> None:
    leave = "echo x > a; echo x > $TMPDIR/b; echo x > $RM_RESULT; echo noise; chmod 777 . $TMPDIR; exit 3"
    quiet = "chmod 777 . $TMPDIR $(dirname $RM_RESULT); echo noise; echo 1 > $RM_RESULT"
    for script in (leave, quiet, quiet):
        placement = agent.run(script)
        agent.portal.ended(placement)
        agent.wait_forgotten(placement)
    placements = [
        agent.run("ls -A . $TMPDIR $(dirname $RM_RESULT); stat -c %a . $TMPDIR $(dirname $RM_RESULT)")
        for _ in range(3)
    ]
    for placement in placements:
        lines = agent.portal.log(placement).decode().split()
        assert "a" not in lines and "b" not in lines and "777" not in lines and "result.json" not in lines
        assert agent.portal.ended(placement).result is None


def test_a_bundle_is_unpacked_and_cached(agent: Agent) -> None:
    digest = agent.portal.add_bundle(
        bundle(("src/main.py", b"print('from bundle')"), ("run.py", "src/main.py"))
    )
    for _ in range(2):
        placement = agent.run("python run.py && echo more >> src/main.py && touch src/new", bundle=digest)
        assert agent.portal.log(placement) == b"from bundle\n"
        assert agent.portal.ended(placement).exit_code == 0
    assert agent.portal.downloads.count(digest) == 1


@pytest.mark.parametrize(
    "members",
    [
        [("../escape", b"x")],
        [("/etc/escape", b"x")],
        [("a/../../escape", b"x")],
        [("link", "/etc"), ("link/escape", b"x")],
        [("link", "../../..")],
        [("a/link", "../b"), ("a/link/escape", b"x")],
        [("big", bytes(3_000_000))],
    ],
)
def test_a_hostile_bundle_is_refused(agent: Agent, members: list[tuple[str, bytes | str]]) -> None:
    digest = agent.portal.add_bundle(bundle(*members))
    placement = agent.run("true", bundle=digest, storage_bytes=1_000_000)
    ended = agent.portal.ended(placement)
    assert ended.reason == "refused" and ended.detail.startswith("bundle: ")
    agent.wait_folder_gone(placement)
    assert not any("escape" in files for _, _, files in os.walk(agent.data))


def test_a_bundle_that_is_missing_or_broken_is_refused(agent: Agent) -> None:
    missing = agent.portal.ended(agent.run("true", bundle="0" * 64))
    assert missing.reason == "refused" and "no such bundle" in missing.detail
    broken = agent.portal.ended(agent.run("true", bundle=agent.portal.add_bundle(b"not a tar")))
    assert broken.reason == "refused" and "not a sound tar.gz" in broken.detail
    agent.portal.bundles["1" * 64] = bundle(("a", b""))
    wrong = agent.portal.ended(agent.run("true", bundle="1" * 64))
    assert wrong.reason == "refused" and "digest" in wrong.detail


def test_bytes_that_are_not_text_arrive_untouched(agent: Agent) -> None:
    placement = agent.run(r"printf '\xff\x00\xfe\r\n\x80'")
    assert agent.portal.log(placement) == b"\xff\x00\xfe\r\n\x80"


def test_a_large_log_arrives_whole(agent: Agent) -> None:
    placement = agent.run("seq 1 400000")
    expected = "".join(f"{number}\n" for number in range(1, 400_001)).encode()
    assert agent.portal.log(placement) == expected
    agent.wait_forgotten(placement)


def test_a_task_that_empties_its_own_log_is_told_so_in_it(agent: Agent) -> None:
    placement = agent.run("echo lost; echo problem > /dev/stderr; echo done")
    assert agent.portal.ended(placement).exit_code == 0
    assert agent.portal.log(placement) in (NOTICE + b"problem\ndone\n", b"lost\n" + NOTICE + b"problem\ndone\n")
    # The folder is used again, and so is the file.
    placement = agent.run("echo kept; echo problem >> /dev/stderr; echo problem >&2")
    assert agent.portal.ended(placement).exit_code == 0
    assert agent.portal.log(placement) == b"kept\nproblem\nproblem\n"


def test_a_log_streams_while_the_task_runs(agent: Agent) -> None:
    placement = agent.run("echo first; sleep 30")
    agent.portal.wait_for(lambda: agent.portal.logs.get((placement, 1)) == b"first\n", "the first line", 2.0)
    assert agent.portal.report(placement, "ended") is None
    agent.portal.push(stop=[Stop(placement, 1, 0.0)])
    agent.portal.ended(placement)


def test_stop_asks_first_and_then_kills(agent: Agent) -> None:
    polite = agent.run("trap 'echo bye; exit 5' TERM; echo ready; while :; do sleep 0.05; done")
    deaf = agent.run("trap '' TERM; echo ready; while :; do sleep 0.05; done")
    for placement in (polite, deaf):
        agent.portal.wait_for(lambda key=(placement, 1): agent.portal.logs.get(key), "the task to be ready")
    agent.portal.push(stop=[Stop(polite, 1, 5.0, "cancelled"), Stop(deaf, 1, 0.3), Stop(999_999, 1)])
    ended = agent.portal.ended(polite, 3.0)
    assert (ended.reason, ended.exit_code, ended.detail) == ("stopped", 5, "cancelled")
    assert agent.portal.log(polite).endswith(b"bye\n")
    ended = agent.portal.ended(deaf)
    assert (ended.reason, ended.signal) == ("stopped", 9)


def test_the_time_limit_ends_the_whole_tree(agent: Agent) -> None:
    placement = agent.run("sleep 321 & sleep 321", time_limit_seconds=0.3, grace_seconds=0.3)
    ended = agent.portal.ended(placement)
    assert ended.reason == "time_limit" and "0.3 s" in ended.detail
    assert not commands_with("321")


def test_what_a_task_leaves_running_is_ended(agent: Agent) -> None:
    placement = agent.run("(setsid sleep 322 &) ; sleep 323 & exit 0")
    assert agent.portal.ended(placement).exit_code == 0
    agent.wait_forgotten(placement)
    assert not commands_with("322") and not commands_with("323")


def test_an_assignment_that_is_held_or_over_is_not_started_again(agent: Agent) -> None:
    assignment = agent.assignment("echo once; sleep 0.3")
    agent.portal.push(assignment, assignment)
    agent.portal.push(assignment)
    agent.portal.ended(assignment.placement)
    agent.wait_forgotten(assignment.placement)
    agent.portal.push(assignment)
    agent.portal.ended(agent.run("true"))
    assert agent.portal.log(assignment.placement) == b"once\n"
    assert [item.kind for item in agent.portal.reports if item.placement == assignment.placement] == [
        "started",
        "ended",
    ]


def test_a_hundred_at_once(agent: Agent) -> None:
    assignments = [agent.assignment("echo $RM_JOB_ID", cpu_millicores=10) for _ in range(100)]
    agent.portal.push(*assignments)
    for assignment in assignments:
        assert agent.portal.ended(assignment.placement).exit_code == 0
        assert agent.portal.log(assignment.placement) == b"11\n"


def test_an_image_without_a_runtime_is_refused(agent: Agent) -> None:
    if len(agent.portal.hellos[-1].inventory.runtimes) > 1:
        pytest.skip("this machine has a container runtime")
    ended = agent.portal.ended(agent.run("true", image="docker.io/library/alpine:3"))
    assert ended.reason == "refused" and "no container runtime" in ended.detail


def test_secrets_are_not_in_the_journal(agent: Agent) -> None:
    placement = agent.run("echo ready; sleep 30", secrets={"KEY": "s3cr3t-value"})
    agent.portal.wait_for(lambda: agent.portal.logs.get((placement, 1)), "the task to be ready")
    files = [path for path in agent.folder(placement).rglob("*") if path.is_file()]
    assert {"assignment.msgpack", "state", "log"} <= {path.name for path in files}
    assert not any(b"s3cr3t-value" in path.read_bytes() for path in files)
    command_lines = [line for line in all_command_lines() if b"rmportal-task" in line]
    assert command_lines and not any(b"s3cr3t-value" in line for line in command_lines)
    agent.portal.push(stop=[Stop(placement, 1, 0.0)])
    agent.portal.ended(placement)


def test_inventory_and_telemetry(agent: Agent) -> None:
    hello = agent.portal.hellos[-1]
    assert hello.inventory.cpu_millicores >= 1000 and hello.inventory.memory_bytes > 0
    assert "process" in hello.inventory.runtimes
    beat = agent.portal.wait_for(
        lambda: len(agent.portal.beats) > 1 and agent.portal.beats[-1], "a second beat"
    )
    assert beat.telemetry.memory_total >= beat.telemetry.memory_used > 0 and beat.telemetry.storage_total > 0
    joined = msgspec.convert(agent.portal.joins[-1]["inventory"], type(hello.inventory))
    assert joined.hostname == hello.inventory.hostname and joined.isolation == hello.inventory.isolation


def all_command_lines() -> list[bytes]:
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/cmdline", "rb") as file:
                found.append(file.read())
        except OSError:
            continue
    return found


def commands_with(argument: str) -> list[bytes]:
    return [line for line in all_command_lines() if line == f"sleep\0{argument}\0".encode()]
