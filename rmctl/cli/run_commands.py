"""`rmctl runs …`: the verbs and their options."""

from typing import Annotated

import typer

from rmctl.cli.options import DryRun, Json, Reason, RunId

runs_app = typer.Typer(no_args_is_help=True, help="What can be done with the runs of workflows.")
Tasks = Annotated[
    list[str] | None, typer.Argument(help="Tasks (train) or instances of mapped ones (train[3]).", metavar="TASK")
]


@runs_app.command()
def show(
    run: RunId,
    task: Annotated[
        str | None, typer.Argument(help="Only this task; of a mapped one its instances.", metavar="TASK")
    ] = None,
    state: Annotated[str | None, typer.Option(help="Of the instances only those in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many instances.")] = 100,
    as_json: Json = False,
) -> None:
    """Show a run with its tasks and its longest path, or one task with its instances: rmctl runs show 7 train"""
    from rmctl.cli import runs

    if task is None:
        runs.show(run, as_json)
    else:
        runs.instances(run, task, state, limit, as_json)


@runs_app.command()
def clear(
    run: RunId,
    tasks: Tasks = None,
    upstream: Annotated[bool, typer.Option("--upstream", help="And what they depend on.")] = False,
    downstream: Annotated[bool, typer.Option(help="And what depends on them.")] = True,
    failed: Annotated[
        bool, typer.Option("--failed", help="Only those of them that failed or never ran because of such a one.")
    ] = False,
    newest: Annotated[
        bool, typer.Option("--newest", help="On the newest version instead of the version of the run.")
    ] = False,
    from_cache: Annotated[
        bool, typer.Option("--from-cache", help="Tasks with a cache may end with what they had made before.")
    ] = False,
    reason: Reason = "",
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Let tasks run again, without any named the whole run: rmctl runs clear 7 --failed

    What runs of them is stopped first. Earlier tries stay visible: rmctl runs tries 7.
    """
    from rmctl.cli import runs

    options = {"upstream": upstream, "downstream": downstream, "only_failed": failed, "newest": newest}
    if from_cache:
        options["from_cache"] = True
    runs.clear(run, {"tasks": tasks or [], **options, "reason": reason}, dry_run, as_json)


@runs_app.command()
def mark(
    run: RunId,
    state: Annotated[str, typer.Argument(help="succeeded, failed or skipped.")],
    tasks: Annotated[list[str], typer.Argument(help="Tasks, or instances of mapped ones.", metavar="TASK")],
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Count tasks as ended like this; what waits for them follows: rmctl runs mark 7 succeeded load"""
    from rmctl.cli import runs

    runs.mark(run, state, tasks, reason, as_json)


@runs_app.command()
def stop(run: RunId, reason: Reason = "", as_json: Json = False) -> None:
    """Cancel a run: what runs of it is stopped, what waits never starts."""
    from rmctl.cli import jobs

    jobs.cancel(run, True, reason, as_json)


@runs_app.command()
def note(
    run: RunId,
    text: Annotated[str, typer.Argument(help="Shown with the run, with your name; empty takes it away.")],
    as_json: Json = False,
) -> None:
    """Write the note of a run."""
    from rmctl.cli import runs

    runs.note(run, text, as_json)


@runs_app.command()
def tries(
    run: RunId,
    task: Annotated[str | None, typer.Argument(help="Only this task.", metavar="TASK")] = None,
    as_json: Json = False,
) -> None:
    """List the earlier tries of a run's tasks: how they were when somebody cleared or marked them."""
    from rmctl.cli import runs

    runs.tries(run, task, as_json)
