"""What a service says about itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from engine.services import Condition
from rmctl.spec.quantities import format_duration


@dataclass(frozen=True, slots=True)
class Ended:
    """How the latest replica ended that was not stopped."""

    job: int
    reason: str
    exit_code: int | None
    detail: str

    def __str__(self) -> str:
        how = f"with exit status {self.exit_code}" if self.reason == "exited" else f"by {self.reason or 'its end'}"
        more = f": {self.detail}" if self.detail else "."
        return f"The latest, job {self.job}, ended {how}{more}"


def count(number: int, noun: str) -> str:
    """`1 replica`, `2 replicas`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def describe(
    condition: Condition,
    *,
    wanted: int,
    ready: int,
    revision: int,
    others: int,
    failures: int,
    retry_at: datetime | None,
    waiting: Sequence[str],
    latest: str,
) -> str:
    """One or two sentences on how the service is; `revision` is the number of the one that is wanted now, `waiting` why
    its replicas wait for their place, `latest` how the last one ended."""
    match condition:
        case Condition.STOPPED:
            return "Nothing runs."
        case Condition.STOPPING:
            return f"{count(others, 'replica')} still to end."
        case Condition.READY:
            return f"{ready} of {count(wanted, 'replica')} of revision {revision} ready."
    parts = [f"{ready} of {count(wanted, 'replica')} of revision {revision} ready"]
    if others:
        parts.append(f"{others} of other revisions still there")
    text = ", ".join(parts) + "."
    if failures:
        text += f" Replicas ended soon after their start {count(failures, 'time')} in a row"
        text += f"; the next start is at {retry_at.astimezone(UTC):%H:%M:%S} UTC." if retry_at else "."
        return f"{text} {latest}".strip()
    if waiting:
        return f"{text} {count(len(waiting), 'replica')} waiting: {waiting[0]}"
    return text


def failed(revision: int, seconds: float, *, peak: int, wanted: int, back_to: int | None, why: str) -> str:
    """Why a rollout has failed, and what goes on."""
    text = f"Revision {revision} made no progress for {format_duration(seconds)}; at most {peak} of "
    text += f"{count(wanted, 'replica')} ready at once."
    text += f" Revision {back_to} goes on." if back_to is not None else " There is no revision before to go back to."
    return f"{text} {why}".strip()
