"""Notes that people leave on a run."""

from django.db import transaction
from django.utils import timezone

from apps.core.actors import Actor
from apps.core.errors import Invalid
from apps.events.record import record

from .. import policies
from ..facts import run_fact
from ..models import Run

NOTE_MAX = 500


@transaction.atomic
def note_run(*, actor: Actor, run_id: int, note: str) -> Run:
    """Write the note of a run, or take it away with an empty one; who did it and when is kept with it."""
    run = policies.runs.get(actor, "note", lock=True, pk=run_id)
    if len(note) > NOTE_MAX:
        raise Invalid.field("note", f"at most {NOTE_MAX} characters.", "too_long")
    if run.note != note:
        run.note, run.note_by_id, run.note_at = note, actor.user_id, timezone.now()
        run.save(update_fields=["note", "note_by", "note_at"])
        record(actor, run_fact("run.noted", run, {"note": note}))
    return run
