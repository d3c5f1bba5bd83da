"""Facts about runs and backfills, as the commands and the advance loop record them."""

from collections.abc import Mapping
from typing import Any

from apps.events.record import Fact

from .models import Backfill, Run


def run_fact(verb: str, run: Run, facts: Mapping[str, Any], *, reason: str = "") -> Fact:
    """A fact about a run; the pages of the run and of its workflow show it."""
    return Fact(
        verb,
        "run",
        run.pk,
        tenant_id=run.tenant_id,
        facts=facts,
        reason=reason,
        topics=(f"workflow:{run.workflow_id}",),
    )


def backfill_fact(verb: str, backfill: Backfill, *, reason: str = "", **facts: Any) -> Fact:
    """A fact about a backfill; the pages of it and of its workflow show it."""
    return Fact(
        verb,
        "backfill",
        backfill.pk,
        tenant_id=backfill.tenant_id,
        facts=facts,
        reason=reason,
        topics=(f"workflow:{backfill.workflow_id}",),
    )
