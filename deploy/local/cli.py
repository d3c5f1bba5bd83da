"""The commands of `./portal`."""

import argparse
import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from . import checks, views
from .console import Console, Refusal
from .environment import Environment
from .folder import DataFolder
from .stack import Address, Interrupted, Stack, child_environment

ROOT = Path(__file__).resolve().parent.parent.parent
DEFAULT_PORT = 8080
Command = Callable[[argparse.Namespace], int]
# Commands whose arguments belong to the program behind them.
PASSING = ("test", "shell", "manage", "rmctl")


def main(arguments: Sequence[str]) -> int:
    """Run one command; returns the exit status: 2 for a refusal, 130 and 143 after signals."""
    own, rest = split(list(arguments))
    options, unknown = parser().parse_known_args(own)
    if unknown and options.command != "bench":
        parser().error(f"{options.command}: unknown arguments: {' '.join(unknown)}")
    options.rest = rest or unknown
    # A shell starts background commands with SIGINT ignored; whoever sends it to us means it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        run: Command = options.run
        return run(options)
    except Refusal as refusal:
        print(f"portal: {refusal}", file=sys.stderr)
        return refusal.status
    except Interrupted as interrupted:
        return 128 + interrupted.number
    except OSError as error:
        print(f"portal: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Our own arguments, and those that a command hands on untouched: all after a leading --help or --data DIR.

    For manage.py, which has no --data of its own, that may stand anywhere.
    """
    if not arguments or arguments[0] not in PASSING:
        return arguments, []
    if arguments[0] == "manage" and "--data" in arguments[2:]:
        place = arguments.index("--data")
        arguments[1:1] = [arguments.pop(place) for _ in range(min(2, len(arguments) - place))]
    end = 1
    if arguments[1:2] == ["--data"]:
        end = 3
    elif arguments[1:2] and (arguments[1] in ("-h", "--help") or arguments[1].startswith("--data=")):
        end = 2
    rest = arguments[end:]
    return arguments[:end], rest[1:] if rest[:1] == ["--"] else rest


def parser() -> argparse.ArgumentParser:
    """All commands with their help."""
    top = argparse.ArgumentParser(
        prog="./portal", description="RMPortal on this machine, all of it in one data folder."
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, run: Command, text: str, description: str = "", data: bool = True) -> argparse.ArgumentParser:
        usage = f"./portal {name} [-h] [--data DIR] [ARGUMENT ...]" if name in PASSING else None
        about = description or f"{text[0].upper()}{text[1:]}."
        command = commands.add_parser(name, help=text, description=about, usage=usage, allow_abbrev=False)
        command.set_defaults(run=run)
        if data:
            default = os.environ.get("RMPORTAL_DATA") or ROOT / "data"
            command.add_argument("--data", type=Path, default=default, help="data folder (default: %(default)s)")
        return command

    for name, run, text in (
        ("up", up, "start the portal and keep it running until Ctrl-C"),
        ("demo", demo, "the same with a demo world, in which a real workflow is run"),
    ):
        command = add(
            name,
            run,
            text,
            f"{text[0].upper()}{text[1:]}. DATABASE_URL and REDIS_URL name servers to use instead of embedded ones.",
        )
        command.add_argument("--port", type=port, default=DEFAULT_PORT, help="port of the web server (default: 8080)")
        command.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
        if name == "demo":
            command.add_argument(
                "--exit", action="store_true", help="stop after the run; status 0 only if it succeeded"
            )
    status = add("status", views.status, "show the processes of the running portal")
    status.add_argument("--json", action="store_true", help="print JSON")
    stop_command = add("stop", stop, "stop the portal that runs in another terminal and wait for its end")
    stop_command.add_argument("--timeout", type=float, default=60.0, help="seconds to wait (default: 60)")
    logs = add("logs", views.logs, "show the logs of the processes")
    logs.add_argument(
        "name", nargs="?", help="process: portal, web, worker, beat, agent, postgres or redis (default: all)"
    )
    logs.add_argument("-f", "--follow", action="store_true", help="go on as lines come")
    logs.add_argument("-n", "--lines", type=int, default=20, help="lines of each log to start with (default: 20)")
    add(
        "test",
        test,
        "run all checks and tests on servers of their own",
        description="Run ruff, mypy, the check for missing migrations and pytest on servers of their own. "
        "Arguments go to pytest; when they name files, only pytest is run.",
        data=False,
    )
    bench = add(
        "bench",
        run_bench,
        "run a benchmark against a fresh portal",
        description="Run tests/benchmarks/NAME.py against a fresh portal in a temporary data folder. Prints one JSON; "
        "further arguments go to the benchmark.",
        data=False,
    )
    bench.add_argument("name", choices=checks.benchmarks(ROOT), metavar="NAME", help=", ".join(checks.benchmarks(ROOT)))
    bench.add_argument("--json", type=Path, metavar="FILE", help="keep the JSON in this file, too")
    add(
        "shell",
        shell,
        "open Django's shell inside the portal",
        description="Open Django's shell with all models imported; -c CODE runs code instead. Starts the embedded "
        "servers for as long as it is open when the portal is not up.",
    )
    reset_command = add("reset", reset, "delete the data folder and everything in it")
    reset_command.add_argument("--yes", action="store_true", help="do not ask")
    text = "Starts the embedded servers for as long as it runs when the portal is not up."
    add("manage", manage, "run a management command of Django", description=f"manage.py. {text}")
    add(
        "rmctl",
        rmctl,
        "run rmctl against the running portal",
        description="Run rmctl in the portal's environment; RMCTL_URL is that of the running portal unless it is set. "
        "rmctl's own help: ./portal rmctl -- --help.",
    )
    return top


def port(text: str) -> int:
    """A TCP port number."""
    if not text.isdigit() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: expected a number from 1 to 65535")
    return int(text)


def up(options: argparse.Namespace) -> int:
    """Serve until a signal comes."""
    return _serve(options, with_demo=False)


def demo(options: argparse.Namespace) -> int:
    """Serve with the demo world; run its workflow once."""
    return _serve(options, with_demo=True)


def _serve(options: argparse.Namespace, with_demo: bool) -> int:
    """What can be refused is checked first; nothing is started before."""
    began = time.monotonic()
    console = Console()
    address = Address(options.host, options.port)
    data = DataFolder(options.data)
    data.open()
    data.acquire()
    try:
        _clean_up(data, console)
        address.check_free()
        data.secret_key()
        environment = Environment(ROOT)
        environment.ensure(console)
        return asyncio.run(_serve_until_signalled(environment, data, console, address, options, with_demo, began))
    finally:
        data.release()


async def _serve_until_signalled(
    environment: Environment,
    data: DataFolder,
    console: Console,
    address: Address,
    options: argparse.Namespace,
    with_demo: bool,
    began: float,
) -> int:
    stack = Stack(environment, data, console, address)
    async with stack.running():
        url = stack.variables["RMPORTAL_URL"]
        console.line(f"\n  {console.paint('RMPortal', '1')}  {url}   up in {time.monotonic() - began:.1f} s\n")
        if with_demo:
            code = await _demo(stack, url)
            if options.exit:
                return code
        console.line(f"  data folder {data.path}; Ctrl-C stops everything")
        await stack.interrupted.wait()
    return 0


async def _demo(stack: Stack, url: str) -> int:
    """The demo world, then its workflow; returns the status of the run."""
    code = await stack.command([str(stack.environment.python), "manage.py", "demo", "--url", url])
    if code:
        stack.console.failure(
            f"The demo run failed (status {code}); ./portal logs worker and ./portal logs agent tell more."
        )
    return 1 if code else 0


def _clean_up(data: DataFolder, console: Console) -> None:
    leftovers = data.end_leftovers()
    if leftovers:
        console.warning(f"ended what a killed portal had left running: {', '.join(leftovers)}")


def stop(options: argparse.Namespace) -> int:
    """Ask the running launcher to stop and wait for its end; 0 also when none runs."""
    console = Console()
    data = DataFolder(options.data)
    launcher = data.running()
    if launcher is None:
        console.line(f"No portal runs on {data.path}.")
        return 0
    with console.step(f"Portal stopped (pid {launcher.pid})"):
        launcher.signal(signal.SIGTERM)
        if not launcher.wait(options.timeout):
            raise Refusal(f"the portal (pid {launcher.pid}) did not stop within {options.timeout:g} s.", 1)
    return 0


def test(options: argparse.Namespace) -> int:
    """All checks and tests."""
    environment = Environment(ROOT)
    console = Console()
    environment.ensure(console, development=True)
    return asyncio.run(checks.run_tests(environment, console, options.rest))


def run_bench(options: argparse.Namespace) -> int:
    """One benchmark. The steps go to standard error, so that standard output is the JSON alone."""
    environment = Environment(ROOT)
    console = Console(sys.stderr)
    environment.ensure(console)
    return asyncio.run(checks.run_benchmark(environment, console, options.name, options.rest, options.json))


def shell(options: argparse.Namespace) -> int:
    """Django's shell, with the models imported; it needs a portal that was up at least once."""
    data = DataFolder(options.data)
    if not data.exists() or not (data.agent / "credential.json").is_file():
        raise Refusal(
            f"There is no portal in {data.path} yet: make one with ./portal up, or name another folder with --data."
        )
    return _managed(options.data, ["shell", *options.rest])


def manage(options: argparse.Namespace) -> int:
    """Any management command."""
    return _managed(options.data, options.rest or ["help"])


def _managed(path: Path, arguments: list[str]) -> int:
    console = Console(sys.stderr)
    environment = Environment(ROOT)
    environment.ensure(console)
    data = DataFolder(path)
    if data.running() is None:
        return asyncio.run(_managed_with_servers(environment, data, console, arguments))
    state = data.state()
    if not all(state.get("variables", {}).get(name) for name in ("DATABASE_URL", "REDIS_URL")):
        raise Refusal(f"The portal in {data.path} is still starting: try again in a moment.", 1)
    variables = child_environment(data, None)
    variables.update({"RMPORTAL_URL": state.get("url") or "", **state.get("variables", {})})
    variables = {name: value for name, value in variables.items() if value}
    os.chdir(ROOT)
    os.execve(environment.python, [str(environment.python), "manage.py", *arguments], variables)


async def _managed_with_servers(
    environment: Environment, data: DataFolder, console: Console, arguments: list[str]
) -> int:
    data.open()
    data.acquire()
    try:
        _clean_up(data, console)
        data.secret_key()
        stack = Stack(environment, data, console)
        async with stack.running():
            return await stack.foreground([str(environment.python), "manage.py", *arguments])
    finally:
        data.release()


def rmctl(options: argparse.Namespace) -> int:
    """rmctl, where the user stands."""
    environment = Environment(ROOT)
    environment.ensure(Console(sys.stderr))
    variables = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    url = DataFolder(options.data).state().get("local_url")
    if url:
        variables.setdefault("RMCTL_URL", url)
    os.execve(environment.python, [str(environment.python), "-m", "rmctl", *options.rest], variables)


def reset(options: argparse.Namespace) -> int:
    """Delete the data folder."""
    console = Console()
    data = DataFolder(options.data)
    if not data.path.exists():
        console.line(f"{data.path} does not exist.")
        return 0
    if not data.exists():
        raise Refusal(f"{data.path} is not a data folder of RMPortal: nothing was deleted.")
    if not options.yes:
        if not sys.stdin.isatty():
            raise Refusal("reset deletes every job, log and account: confirm with --yes.")
        if input(f"Delete {data.path} with every job, log and account in it? Type yes: ").strip() != "yes":
            raise Refusal("nothing was deleted.", 1)
    outside = data.database_is_outside()
    data.open()
    data.acquire()
    _clean_up(data, console)
    tasks = data.end_tasks()
    data.delete()
    data.release()
    ended = f" ({tasks} processes of tasks ended)" if tasks else ""
    console.success(f"Deleted {data.path}{ended}")
    if outside:
        console.line("  Its database is on an outside server and was left as it is.")
    return 0
