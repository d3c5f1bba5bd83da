"""RMPortal's command line, Python SDK and node agent.

    from rmctl import DAG, task, bash

Names are loaded on first use: every Python task imports this package, so importing it costs next to nothing.
"""

__version__ = "0.1.0"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rmctl.sdk.dag import DAG, SdkError, bash, chain, empty, param, task
    from rmctl.sdk.runtime import artifact, checkpoint, checkpoint_folder, context

__all__ = [
    "DAG", "SdkError", "artifact", "bash", "chain", "checkpoint", "checkpoint_folder", "context", "empty", "param",
    "task",
]  # fmt: skip

_RUNTIME = ("artifact", "checkpoint", "checkpoint_folder", "context")


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in _RUNTIME:
        from rmctl.sdk import runtime as source
    else:
        from rmctl.sdk import dag as source  # type: ignore[no-redef]
    value: object = getattr(source, name)
    globals()[name] = value
    return value
