"""RMPortal's command line, Python SDK and node agent.

    from rmctl import DAG, task, bash

Names are loaded on first use: every Python task imports this package, so importing it costs next to nothing.
"""

__version__ = "0.1.0"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rmctl.sdk.dag import DAG, SdkError, bash, chain, empty, param, task
    from rmctl.sdk.datasets import Dataset
    from rmctl.sdk.runtime import artifact, checkpoint, context
    from rmctl.stored import connection, variable

__all__ = [
    "DAG", "Dataset", "SdkError", "artifact", "bash", "chain", "checkpoint", "connection", "context", "empty", "param",
    "task", "variable",
]  # fmt: skip

_RUNTIME = ("artifact", "checkpoint", "context")
_STORED = ("connection", "variable")


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in _RUNTIME:
        from rmctl.sdk import runtime as source
    elif name in _STORED:
        from rmctl import stored as source  # type: ignore[no-redef]
    elif name == "Dataset":
        from rmctl.sdk import datasets as source  # type: ignore[no-redef]
    else:
        from rmctl.sdk import dag as source  # type: ignore[no-redef]
    value: object = getattr(source, name)
    globals()[name] = value
    return value
