"""The commands and their options. What a command needs is imported when it runs, so that help is quick."""

from pathlib import Path
from typing import Annotated, Any

import typer

from rmctl.cli import authoring_commands, failures, service_commands, tenant_app
from rmctl.cli.backfill_commands import backfill_app
from rmctl.cli.import_app import import_app
from rmctl.cli.notify_app import notify_app
from rmctl.cli.options import JobId, Json, TenantOption
from rmctl.cli.region_commands import regions_app
from rmctl.cli.rule_commands import pool_app, quota_app
from rmctl.cli.run_commands import runs_app
from rmctl.cli.slot_commands import slots_app
from rmctl.cli.state_commands import state_app

app = typer.Typer(
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="RMPortal: submit jobs, push and trigger workflows, watch them run.\n\n"
    "Exit status: 0 done, 1 failed, 2 wrong usage or refused spec, 3 not found or not allowed, 4 portal not "
    "reachable. The portal is configured by `rmctl login`, or by RMCTL_URL, RMCTL_TOKEN and RMCTL_TENANT.",
)
agent_app = typer.Typer(no_args_is_help=True, help="This machine as a node of the portal.")
app.add_typer(agent_app, name="agent")
budget_app = typer.Typer(no_args_is_help=True, help="Budgets of domains, tenants, workflows and people.")
app.add_typer(budget_app, name="budget")
app.add_typer(runs_app, name="runs")
app.add_typer(regions_app, name="regions")
app.add_typer(backfill_app, name="backfill")
app.add_typer(pool_app, name="pool")
app.add_typer(quota_app, name="quota")
app.add_typer(import_app, name="import")
app.add_typer(slots_app, name="slots")
app.add_typer(state_app, name="state")
app.add_typer(notify_app, name="notify")
tenant_app.register(app)
authoring_commands.register(app)
service_commands.register(app)


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    """RMPortal: submit jobs, push and trigger workflows, watch them run."""
    failures.as_json = False
    if version:
        import rmctl

        typer.echo(f"rmctl {rmctl.__version__}")
        raise typer.Exit


@app.command()
def login(
    url: Annotated[str, typer.Argument(help="Address of the portal.", metavar="URL")],
    user: Annotated[
        str | None, typer.Option("--user", "-u", help="User name; asked for when left out.")
    ] = None,
    token: Annotated[
        str | None, typer.Option("--token", help="An API token; - reads it from standard input.")
    ] = None,
    tenant: TenantOption = None,
    as_json: Json = False,
) -> None:
    """Sign in, and keep the address and a token for the commands that follow."""
    from rmctl.cli import account

    account.login(url, user, token, tenant, as_json)


@app.command()
def whoami(as_json: Json = False) -> None:
    """Show who the token belongs to, and the roles."""
    from rmctl.cli import account

    account.whoami(as_json)


def submit(
    context: typer.Context,
    command: Annotated[
        list[str] | None, typer.Argument(help="The program and its arguments, after --.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="A job as YAML or JSON; options here override it.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the job.")] = None,
    script: Annotated[str | None, typer.Option(help="A bash script instead of a command.")] = None,
    cpu: Annotated[str | None, typer.Option(help="Cores, such as 2, 0.5 or 500m.")] = None,
    memory: Annotated[str | None, typer.Option(help="Memory, such as 512Mi or 2Gi.")] = None,
    storage: Annotated[str | None, typer.Option(help="Disk, such as 1Gi.")] = None,
    gpu: Annotated[int | None, typer.Option(min=1, help="Number of GPUs.")] = None,
    gpu_milli: Annotated[int | None, typer.Option(min=1, max=1000, help="Thousandths of one GPU.")] = None,
    gpu_model: Annotated[list[str] | None, typer.Option(help="Accepted GPU model; repeat for more.")] = None,
    count: Annotated[int | None, typer.Option(min=1, help="Members that start together.")] = None,
    image: Annotated[str | None, typer.Option(help="Container image.")] = None,
    env: Annotated[list[str] | None, typer.Option("--env", "-e", help="NAME=VALUE; repeat for more.")] = None,
    secret: Annotated[
        list[str] | None, typer.Option(help="VARIABLE=SECRET of the tenant; repeat for more.")
    ] = None,
    ship: Annotated[
        list[str] | None,
        typer.Option("--ship", help="Files to take along: a glob in this folder; repeat for more."),
    ] = None,
    pool: Annotated[str | None, typer.Option(help="Pool to run in.")] = None,
    label: Annotated[list[str] | None, typer.Option(help="KEY=VALUE that the node must have.")] = None,
    priority: Annotated[int | None, typer.Option(help="Higher runs first, -1000 to 1000.")] = None,
    time_limit: Annotated[str | None, typer.Option(help="Such as 90s, 10m or 2h.")] = None,
    retries: Annotated[int | None, typer.Option(min=0, help="How often to try again.")] = None,
    tenant: TenantOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, keep nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Submit a job and print its number, for example: rmctl submit --cpu 1 --memory 1Gi -- python x.py"""
    from rmctl.cli import jobs

    given = {
        key: value for key, value in locals().items() if key not in ("context", "jobs", "as_json", "dry_run")
    }
    body = jobs.Request(**given)
    if context.info_name == "run":
        jobs.run(body, as_json)
    else:
        jobs.submit(body, dry_run, as_json)


_PASS_ON: dict[str, Any] = {"allow_interspersed_args": False}
app.command("submit", context_settings=_PASS_ON)(submit)
app.command(
    "run",
    context_settings=_PASS_ON,
    help="Submit a job, follow its log, and end with its exit status. Ctrl-C cancels the job.",
)(submit)


@app.command()
def logs(
    job: JobId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job ends.")] = False,
    rank: Annotated[int, typer.Option(min=0, help="Member of the job.")] = 0,
    attempt: Annotated[int | None, typer.Option(min=1, help="Attempt; the newest by default.")] = None,
) -> None:
    """Print the log of a job, byte for byte."""
    from rmctl.cli import jobs

    jobs.logs(job, follow, rank, attempt)


@app.command()
def why(job: JobId, as_json: Json = False) -> None:
    """Say why a job waits, and what the scheduler tried."""
    from rmctl.cli import jobs

    jobs.why(job, as_json)


@app.command()
def simulate(
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="Changes as YAML or JSON, as POST /api/v1/simulate takes them.")
    ] = None,
    job: Annotated[list[Path] | None, typer.Option(help="A job spec that would be submitted now.")] = None,
    cancel: Annotated[list[int] | None, typer.Option(min=1, help="A job that would be cancelled.")] = None,
    add_nodes: Annotated[list[str] | None, typer.Option(help="NODE[=COUNT]: more nodes like this one.")] = None,
    remove_node: Annotated[list[str] | None, typer.Option(help="A node that would be lost.")] = None,
    cordon_node: Annotated[list[str] | None, typer.Option(help="A node that would take no new work.")] = None,
    lose_cluster: Annotated[list[str] | None, typer.Option(help="A cluster that would be lost.")] = None,
    quota: Annotated[
        list[str] | None, typer.Option(help="QUOTA[.FLAVOR].RESOURCE=[+-]AMOUNT, such as vision.gpu=+2.")
    ] = None,
    budget: Annotated[list[str] | None, typer.Option(help="BUDGET=AMOUNT by its number, or BUDGET=none.")] = None,
    policy: Annotated[
        str | None, typer.Option(help="easy, conservative, none, fcfs, within_tenants or across_tenants, in all pools.")
    ] = None,
    horizon: Annotated[str | None, typer.Option(help="How far to look ahead, such as 12h; a day by default.")] = None,
    run_times: Annotated[
        str | None, typer.Option(help="How long jobs run: p50 (default), p90 or limit of what such jobs took.")
    ] = None,
    tenant: TenantOption = None,
    as_json: Json = False,
) -> None:
    """What if: show when jobs would start after changes. Nothing is changed by asking."""
    from rmctl.cli import whatif

    question = whatif.Question(
        file, job, cancel, add_nodes, remove_node, cordon_node, lose_cluster, quota, budget, policy, horizon, run_times,
        tenant,
    )  # fmt: skip
    whatif.simulate(question, as_json)


@app.command()
def replay(
    since: Annotated[str, typer.Option("--from", help="Jobs that ended since: a time, or how long ago (24h).")],
    until: Annotated[str | None, typer.Option("--to", help="And before: a time, or how long ago. Now.")] = None,
    policy: Annotated[
        list[str] | None, typer.Option(help="As simulate takes it, or present; repeat to compare.")
    ] = None,
    budgets: Annotated[str | None, typer.Option(help="Of that time (then, by default), present or none.")] = None,
    lending: Annotated[
        str | None, typer.Option(help="Terms of lending of that time (then, by default), present or none.")
    ] = None,
    as_json: Json = False,
) -> None:
    """What would have been: run a recorded period again under other policies, and compare."""
    from rmctl.cli import whatif

    whatif.replay(since, until, policy, budgets, lending, as_json)


@app.command()
def cancel(
    number: Annotated[int, typer.Argument(min=1, help="Number of the job, or of the run with --run.")],
    run: Annotated[bool, typer.Option("--run", help="Cancel a workflow run.")] = False,
    reason: Annotated[str, typer.Option(help="Kept in the event log.")] = "",
    as_json: Json = False,
) -> None:
    """Stop a job, or a workflow run."""
    from rmctl.cli import jobs

    jobs.cancel(number, run, reason, as_json)


@app.command()
def checkpoints(
    job: JobId,
    save: Annotated[
        Path | None, typer.Option(help="Download the newest of each member into this folder, as tar.gz.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List what a job's members have saved to go on from."""
    from rmctl.cli import checkpoints

    checkpoints.show(job, save, as_json)


@app.command()
def checkpoint() -> None:
    """Inside a task: say that it has saved what it needs to go on from here. An eviction then loses less."""
    import os

    if not os.environ.get("RM_CHECKPOINT"):
        raise failures.UsageError(
            "RM_CHECKPOINT is not set: this is said by a task, so call it in the command or script of a job."
        )
    from rmctl.sdk import runtime

    try:
        runtime.checkpoint()
    except OSError as error:
        raise failures.UsageError(f"RM_CHECKPOINT: {error.strerror}; leave that path to this command.") from error


@app.command()
def trigger(
    workflow: Annotated[str, typer.Argument(help="Name or number of the workflow.")],
    param: Annotated[
        list[str] | None, typer.Option("--param", "-p", help="NAME=VALUE; the value is JSON, or else text.")
    ] = None,
    note: Annotated[str, typer.Option(help="Shown with the run.")] = "",
    wait: Annotated[
        bool, typer.Option("--wait", "-w", help="Watch until the run ends; status 1 if it failed.")
    ] = False,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Tasks take no earlier results; what they make is kept for later.")
    ] = False,
    tenant: TenantOption = None,
    as_json: Json = False,
) -> None:
    """Start a run of a workflow."""
    from rmctl.cli import workflows

    workflows.trigger(workflow, param, note, wait, tenant, as_json, no_cache=no_cache)


@app.command()
def approve(
    approval: Annotated[
        int | None, typer.Argument(min=1, help="Number of the question; without one, all that wait for you.")
    ] = None,
    option: Annotated[str | None, typer.Argument(help="The answer: one of its options.")] = None,
    value: Annotated[
        list[str] | None, typer.Option("--value", "-v", help="NAME=VALUE of its form; repeat for more.")
    ] = None,
    comment: Annotated[str, typer.Option(help="A note that is kept with the answer.")] = "",
    as_json: Json = False,
) -> None:
    """Answer a question that a workflow asks, show it, or list those that wait for you."""
    from rmctl.cli import approvals

    if approval is None:
        approvals.waiting(as_json)
    else:
        approvals.answer(approval, option, value, comment, as_json)


@app.command("next")
def upcoming(
    workflow: Annotated[str, typer.Argument(help="Name or number of the workflow.")],
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=100, help="At most so many runs.")] = 5,
    tenant: TenantOption = None,
    as_json: Json = False,
) -> None:
    """Show when the next runs of a workflow's timetable come."""
    from rmctl.cli import workflows

    workflows.upcoming(workflow, count, tenant, as_json)


@app.command("list")
def list_(
    kind: Annotated[
        str,
        typer.Argument(help="jobs, workflows, runs, nodes, pools, quotas, budgets, tenants or events."),
    ] = "jobs",
    tenant: TenantOption = None,
    state: Annotated[str | None, typer.Option(help="Only this state, or several: pending,running.")] = None,
    where: Annotated[
        list[str] | None,
        typer.Option("--filter", help="FIELD=VALUE, any filter of the API; repeat for more."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many rows.")] = 50,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Events as they happen, each once.")] = False,
    as_json: Json = False,
) -> None:
    """List what you can see, newest first."""
    from rmctl.cli import listing

    if follow:
        listing.follow(kind, where, as_json)
        return
    listing.show(kind, tenant, state, where, limit, as_json)


@app.command("jobs")
def jobs_(
    tenant: TenantOption = None,
    state: Annotated[str | None, typer.Option(help="Only this state, or several: pending,running.")] = None,
    label: Annotated[
        list[str] | None,
        typer.Option("--label", "-l", help="KEY=VALUE that the job has, such as app=trainer; repeat for several."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many rows.")] = 50,
    as_json: Json = False,
) -> None:
    """List jobs that you can see, newest first."""
    from rmctl.cli import listing

    listing.show("jobs", tenant, state, None, limit, as_json, label=label)


@app.command()
def nodes(
    state: Annotated[str | None, typer.Option(help="Only this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many rows.")] = 200,
    as_json: Json = False,
) -> None:
    """List the nodes with what they have and what is taken."""
    from rmctl.cli import listing

    listing.show("nodes", None, state, None, limit, as_json)


@app.command()
def top(
    interval: Annotated[float, typer.Option(min=0.5, max=60, help="Seconds between two looks.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Look once and stop.")] = False,
    as_json: Json = False,
) -> None:
    """Watch what the nodes use, until Ctrl-C."""
    from rmctl.cli import listing

    listing.top(interval, once, as_json)


BudgetId = Annotated[int, typer.Argument(min=1, help="Number of the budget.", metavar="BUDGET")]


@budget_app.command("set")
def budget_set(
    measure: Annotated[
        str, typer.Argument(help="cpu_hours, gpu_hours, cost, running, pending or submissions.", metavar="MEASURE")
    ],
    amount: Annotated[float, typer.Argument(min=0, help="How much there may be.", metavar="AMOUNT")],
    per: Annotated[
        str | None, typer.Option(help="day, week, month, or a window such as 24h or 7d; for hours and cost.")
    ] = None,
    tenant: TenantOption = None,
    workflow: Annotated[str | None, typer.Option(help="Only this workflow of the tenant.")] = None,
    user: Annotated[str | None, typer.Option(help="Only this member of the tenant; without one, a person.")] = None,
    domain: Annotated[str | None, typer.Option(help="All tenants of this domain.")] = None,
    warn: Annotated[bool, typer.Option("--warn", help="Only warn; hold nothing back.")] = False,
    as_json: Json = False,
) -> None:
    """Set a budget, for example: rmctl budget set cost 100 --per month --tenant vision --user max"""
    from rmctl.cli import budgets

    given = {"measure": measure, "amount": amount, "period": per, "tenant": tenant, "workflow": workflow, "user": user}
    budgets.make({**given, "domain": domain, "hard": False if warn else None}, as_json)


@budget_app.command("change")
def budget_change(
    budget: BudgetId,
    amount: Annotated[float | None, typer.Option(min=0, help="How much there may be.")] = None,
    hard: Annotated[bool | None, typer.Option("--hard/--warn", help="A limit, or only a warning.")] = None,
    as_json: Json = False,
) -> None:
    """Raise or lower a budget, or make it a limit or a warning."""
    from rmctl.cli import budgets

    budgets.change(budget, amount, hard, as_json)


@budget_app.command("remove")
def budget_remove(budget: BudgetId) -> None:
    """Take a budget away; what it held back starts."""
    from rmctl.cli import budgets

    budgets.remove(budget)


DataFolder = Annotated[
    str, typer.Option("--data", help="Folder of the agent's journal, credential and tasks.")
]


@agent_app.command("join")
def agent_join(
    url: Annotated[str, typer.Argument(help="Address of the portal.", metavar="URL")],
    token: Annotated[
        str, typer.Option(help="One-time token of the cluster; - reads it from standard input.")
    ],
    name: Annotated[str | None, typer.Option(help="Name of the node; the host name by default.")] = None,
    data: DataFolder = "./agent",
    as_json: Json = False,
) -> None:
    """Make this machine a node: trade a one-time token for its own credential."""
    from rmctl.cli import node

    node.join(url, token, name, data, as_json)


@agent_app.command("run")
def agent_run(
    url: Annotated[
        str | None, typer.Option(help="Address of the portal, if it is not the one joined at.")
    ] = None,
    data: DataFolder = "./agent",
    dataset: Annotated[
        list[str] | None,
        typer.Option(help="A dataset that this node holds, as NAME=PATH; may be repeated.", metavar="NAME=PATH"),
    ] = None,
) -> None:
    """Run the agent until it is stopped; its tasks run on. Status 3: the portal revoked the node."""
    from rmctl.cli import node

    raise typer.Exit(node.run(url, data, dataset or []))
