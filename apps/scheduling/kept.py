"""The places that are kept for waiting jobs of several groups, from one cycle to the next (engine.kept)."""

from collections.abc import Iterable, Mapping

from django.db import transaction

from apps.jobs.states import JobState
from engine.fleet import Fleet
from engine.kept import Kept
from engine.snapshot import Candidate, Verdict

from .models import KeptPlaces


def load_kept(fleet: Fleet, candidates: Iterable[Candidate]) -> dict[int, Kept]:
    """Those of candidates with several groups. Where there is none, nothing is asked; of a node that has gone nobody
    keeps a place."""
    jobs = [item.job for item in candidates if len(item.groups) > 1]
    if not jobs:
        return {}
    index = {int(node): row for row, node in enumerate(fleet.ids)}
    return {
        job: Kept(choice, tuple((group, rank, index[node], tuple(cards)) for group, rank, node, cards in members))
        for job, choice, members in KeptPlaces.objects.filter(job__in=jobs).values_list("job_id", "choice", "members")
        if all(member[2] in index for member in members)
    }


def store_kept(verdicts: Iterable[Verdict], before: Mapping[int, Kept], fleet: Fleet) -> None:
    """Store what these verdicts want kept, where it is not what was kept `before`."""
    fresh = [item for item in verdicts if item.kept is not None and item.kept != before.get(item.job)]
    if not fresh:
        return
    rows = [
        KeptPlaces(
            job_id=item.job,
            choice=item.kept.choice,
            members=[[group, rank, int(fleet.ids[node]), cards] for group, rank, node, cards in item.kept.members],
        )
        for item in sorted(fresh, key=lambda item: item.job)
        if item.kept is not None
    ]
    with transaction.atomic():
        KeptPlaces.objects.bulk_create(
            rows, update_conflicts=True, unique_fields=["job"], update_fields=["choice", "members"]
        )


def forget_kept() -> None:
    """Delete those of jobs that wait no more."""
    KeptPlaces.objects.exclude(job__state=JobState.PENDING).delete()
