"""RMPortal's command line, Python SDK and node agent.

    from rmctl import DAG, task, bash

Names are loaded on first use: every Python task imports this package, so importing it costs next to nothing.
"""

__version__ = "0.1.0"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rmctl.sdk.caching import Cache
    from rmctl.sdk.dag import DAG, bash, chain, empty, param
    from rmctl.sdk.datasets import Dataset
    from rmctl.sdk.functions import setup, task, teardown
    from rmctl.sdk.kinds import (
        TaskGroup,
        approval,
        deploy_service,
        python,
        task_group,
        trigger_run,
        wait_for,
        wait_for_dataset,
        wait_for_run,
        wait_until,
    )
    from rmctl.sdk.mapping import zipped
    from rmctl.sdk.operators import container, http, sql, wait_for_file
    from rmctl.sdk.options import SdkError
    from rmctl.sdk.runtime import Poked, TaskFailed, TaskSkipped, artifact, checkpoint, checkpoint_folder, context
    from rmctl.sdk.state import run_state, state
    from rmctl.stored import connection, variable

__all__ = [
    "DAG",
    "Cache",
    "Dataset",
    "Poked",
    "SdkError",
    "TaskFailed",
    "TaskGroup",
    "TaskSkipped",
    "approval",
    "artifact",
    "bash",
    "chain",
    "checkpoint",
    "checkpoint_folder",
    "connection",
    "container",
    "context",
    "deploy_service",
    "empty",
    "http",
    "param",
    "python",
    "run_state",
    "setup",
    "sql",
    "state",
    "task",
    "task_group",
    "teardown",
    "trigger_run",
    "variable",
    "wait_for",
    "wait_for_dataset",
    "wait_for_file",
    "wait_for_run",
    "wait_until",
    "zipped",
]

_RUNTIME = ("Poked", "TaskFailed", "TaskSkipped", "artifact", "checkpoint", "checkpoint_folder", "context")
_FUNCTIONS = ("setup", "task", "teardown")
_KINDS = (
    "TaskGroup", "approval", "deploy_service", "python", "task_group", "trigger_run", "wait_for", "wait_for_dataset",
    "wait_for_run",
    "wait_until",
)  # fmt: skip
_OPERATORS = ("container", "http", "sql", "wait_for_file")
_STORED = ("connection", "variable")
_STATE = ("run_state", "state")


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in _RUNTIME:
        from rmctl.sdk import runtime as source
    elif name in _FUNCTIONS:
        from rmctl.sdk import functions as source  # type: ignore[no-redef]
    elif name in _KINDS:
        from rmctl.sdk import kinds as source  # type: ignore[no-redef]
    elif name in _OPERATORS:
        from rmctl.sdk import operators as source  # type: ignore[no-redef]
    elif name in _STORED:
        from rmctl import stored as source  # type: ignore[no-redef]
    elif name == "zipped":
        from rmctl.sdk import mapping as source  # type: ignore[no-redef]
    elif name in _STATE:
        from rmctl.sdk import state as source  # type: ignore[no-redef]
    elif name == "Cache":
        from rmctl.sdk import caching as source  # type: ignore[no-redef]
    elif name == "SdkError":
        from rmctl.sdk import options as source  # type: ignore[no-redef]
    elif name == "Dataset":
        from rmctl.sdk import datasets as source  # type: ignore[no-redef]
    else:
        from rmctl.sdk import dag as source  # type: ignore[no-redef]
    value: object = getattr(source, name)
    globals()[name] = value
    return value
