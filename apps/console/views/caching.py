"""What the panel of a task says of its cache."""

from typing import Any

from apps.core.actors import Actor
from apps.execution.queries import job_artifacts
from apps.workflows import cache_queries
from apps.workflows.models import CacheUse, Run, Task


def cache_context(actor: Actor, run: Run, task: Task) -> dict[str, Any]:
    """What the panel of a task says of its cache; nothing for tasks without one."""
    use = cache_queries.latest_use(run, task.name, task.index)
    if use is None:
        return {}
    source = use.source if use.outcome == CacheUse.Outcome.HIT else None
    before = cache_queries.previous_use(use) if use.outcome == CacheUse.Outcome.MISS else None
    return {
        "cache_use": use,
        "cache_why": cache_queries.explained(use),
        "cache_source": source,
        "cache_parts": [
            (name, digest, before is not None and before.parts.get(name) != digest)
            for name, digest in sorted(use.parts.items())
        ],
        "cache_artifacts": list(job_artifacts(actor, source.job_id)) if source is not None and source.job_id else [],
    }
