"""Apply: each grant is checked again with the engine's own check under row locks, then written."""

import time
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from django.db import transaction
from django.utils import timezone

from apps.core import loops
from apps.core.bulk import append
from apps.core.pipeline import pipelined
from apps.core.rows import Answer, Part
from apps.events.live import publish
from apps.execution import backends
from apps.fleet.snapshot import Lent, load_fleet
from apps.jobs.commands import ALIKE_SLICE, Evicted, Given, Member, give_grants, pend, pend_alike, preempt
from apps.jobs.configuration import configuration
from apps.jobs.models import Job, Placement
from apps.jobs.states import JobState
from apps.quotas import ledger
from apps.quotas.queries import load_tree
from engine.fleet import Fleet
from engine.placement import NodeFree, allowed_by_terms, fits_node
from engine.queues import Holder
from engine.quota import QuotaTree
from engine.reasons import Reason
from engine.snapshot import Candidate, Verdict, charge_of, shares

from .company import Suitable
from .holders import LIVE
from .kept import store_kept
from .lending import locked_terms
from .models import Cycle, Decision
from .observe import Observed, charged
from .reservations import reserve

FREE = Decimal(0)
JOB = Part(Job, "j", "id", "tenant_id", "state", "token")
STILL_PENDING = (
    f"SELECT {JOB.columns} FROM jobs_job j WHERE j.id = ANY(%s) AND j.state = 'pending' AND NOT j.held "
    "ORDER BY j.id FOR UPDATE OF j"
)
# Live topics named one by one; with more, the pages of single jobs follow with their next refresh.
TOPICS_MAX = 200


# Whether the figures alone of a detail have changed is looked at no more often; a new reason is always stored.
DETAIL_SECONDS = 5.0
# A cycle tells the jobs that others stand for no longer than this; the next one goes on.
ALIKE_SECONDS = 0.5
_compared: dict[int, float] = {}


def apply(observed: Observed, verdicts: Sequence[Verdict], now: datetime, cycle: Cycle) -> int:
    """Write the verdicts: grants that still hold, and reasons that are new; returns how many were granted.

    `cycle` comes with the times of the steps before; it is stored with the grants.
    """
    grants = [verdict for verdict in verdicts if verdict.outcome == "grant"]
    began = time.perf_counter()
    if observed.snapshot.plan is not None:
        # Before the grants, which may be of jobs that were let ahead as these places are kept.
        store_kept(verdicts, observed.snapshot.plan.kept, observed.snapshot.fleet)
    if grants:
        with transaction.atomic():
            given, decisions = _check(observed, grants, now)
            cycle.granted, cycle.refused = len(given), len(grants) - len(given)
            with pipelined():
                give_grants(given, now)
                append(decisions)
                cycle.apply_ms = (time.perf_counter() - began) * 1000
                append([cycle])
            lent = observed.configuration.lent
            backends.submit({member.node_id: lent[member.node_id].kind for item in given for member in item.members})
    _preempt(observed, [verdict for verdict in verdicts if verdict.outcome == "preempt"], now)
    waiting = [verdict for verdict in verdicts if verdict.outcome != "grant"]
    moved: Collection[int] = ()
    if observed.snapshot.plan is not None and observed.snapshot.plan.told:
        moved = reserve({item.job: item.reserved for item in waiting if item.reserved is not None}, now)
    _pend(observed, waiting, now, moved)
    return cycle.granted


def _check(
    observed: Observed, grants: Sequence[Verdict], now: datetime
) -> tuple[list[Given], list[Decision]]:
    """Lock what the grants take and look at each again: those that still hold, and their decisions."""
    candidates = {candidate.job: candidate for candidate in observed.snapshot.candidates}
    node_ids = observed.snapshot.fleet.ids
    wanted = sorted({int(node_ids[member[2]]) for verdict in grants for member in verdict.members})
    with pipelined():
        ledger.lock_trees()
        pending = Answer(STILL_PENDING, [[verdict.job for verdict in grants]])
        configured = configuration(now)
        fleet = load_fleet(configured.lent, ids=wanted, lock=True)
        fleet.terms = locked_terms(configured, fleet.terms, wanted, now)
        tree = load_tree(configured.quota_nodes)
    jobs = {row[0]: JOB.make(row) for row in pending}
    rows = {int(node_id): row for row, node_id in enumerate(fleet.ids)}
    suitable = Suitable(configured, [candidates[verdict.job] for verdict in grants])
    given: list[Given] = []
    decisions: list[Decision] = []
    for verdict in grants:
        job, candidate = jobs.get(verdict.job), candidates[verdict.job]
        if job is None or verdict.flavor is None:
            continue
        placed = [(group, rank, int(node_ids[node]), cards) for group, rank, node, cards in verdict.members]
        held = candidate.granted(verdict.members)
        amounts = charged(tree, candidate.queue, dict(held.amounts))
        if amounts != held.amounts:
            held = replace(held, amounts=amounts)
        keyed = charge_of(held, verdict.flavor, verdict.flavors)
        nodes = [node for _, _, node, _ in placed]
        if not suitable.allows(candidate, nodes) or not _take(fleet, rows, candidate, placed):
            continue
        if tree.fits(candidate.queue, keyed) is not None:
            continue
        suitable.add(candidate, nodes)
        tree.add(candidate.queue, keyed)
        names = [fleet.names[rows[node]] for _, _, node, _ in placed]
        price = _price(configured.lent, candidate, placed)
        given.append(_given(job, held, verdict, placed, names, price))
        decisions.append(
            Decision(
                job=job,
                at=now,
                outcome="grant",
                flavor=verdict.flavor,
                tried=list(verdict.tried),
                scores=dict(verdict.scores),
                nodes=names,
            )
        )
    return given, decisions


def _preempt(observed: Observed, verdicts: Sequence[Verdict], now: datetime) -> None:
    """Ask the victims of jobs that still wait to stop; each victim's own state is looked at under its lock."""
    candidates = {candidate.job: candidate for candidate in observed.snapshot.candidates}
    holders = {holder.uid: holder for holder in observed.snapshot.holders}
    stopping = {uid for uid, holder in holders.items() if holder.evicting}
    fresh = [verdict for verdict in verdicts if any(job not in stopping for job, _ in verdict.victims)]
    if not fresh:
        return
    with transaction.atomic():
        # The waiting jobs are locked with their victims, by id.
        named = [verdict.job for verdict in fresh] + [job for verdict in fresh for job, _ in verdict.victims]
        waiting = {
            job.pk
            for job in Job.objects.select_for_update().filter(pk__in=named).order_by("pk")
            if job.state == JobState.PENDING and not job.held
        }
        tree = load_tree(configuration(now).quota_nodes)
        evicted = []
        for verdict in fresh:
            candidate = candidates[verdict.job]
            if verdict.job not in waiting or not _holds(tree, candidate, verdict, holders):
                continue
            evicted += [
                Evicted(job, verdict.job, cause.value) for job, cause in verdict.victims if job not in stopping
            ]
        preempt(evicted, now)
        nodes = Placement.objects.filter(attempt__job__in=[item.job_id for item in evicted], attempt__state__in=LIVE)
        lent = observed.configuration.lent
        backends.submit({pk: lent[pk].kind for pk in nodes.values_list("node_id", flat=True) if pk in lent})


def _holds(
    tree: QuotaTree, candidate: Candidate, verdict: Verdict, holders: Mapping[Hashable, Holder]
) -> bool:
    """Whether the job fits the present tree once its victims have gone; if so, the tree is left like that."""
    gone: list[Holder] = []
    charge = charge_of(candidate, str(verdict.flavor), verdict.flavors)
    usage = {fr: amount for fr, amount in charge.items() if amount}
    fits = candidate.queue in tree
    for job, _ in verdict.victims if fits else ():
        holder = holders[job]
        try:
            tree.remove(holder.queue, holder.usage)
        except ValueError:  # It has stopped meanwhile and holds nothing any more.
            fits = False
            break
        gone.append(holder)
    if fits and tree.fits(candidate.queue, usage) is None:
        tree.add(candidate.queue, usage)
        return True
    for holder in gone:
        tree.add(holder.queue, holder.usage)
    return False


def _take(
    fleet: Fleet, rows: dict[int, int], candidate: Candidate, placed: Sequence[tuple[int, int, int, tuple[int, ...]]]
) -> bool:
    """Check all members against the locked rows and take them; all or nothing."""
    taken: list[tuple[Any, int, tuple[int, ...]]] = []
    for group, _, node_id, cards in placed:
        request, row = candidate.groups[group][0], rows.get(node_id)
        if row is None or not fleet.ready[row]:
            break
        # One that was decided before there were terms with bounds is decided again.
        if fleet.terms is not None and (request.consumer is None or not allowed_by_terms(fleet, request, row)):
            break
        free = NodeFree(
            cpu=int(fleet.cpu[row]),
            memory=int(fleet.memory[row]),
            storage=int(fleet.storage[row]),
            gpu={card: int(free) for card, free in enumerate(fleet.gpu_free[row]) if free >= 0},
        )
        if fits_node(free, request, cards) is not None:
            break
        fleet.take(request, row, cards)
        taken.append((request, row, cards))
    if len(taken) == len(placed):
        return True
    for request, row, cards in taken:
        fleet.give(request, row, cards)
    return False


def _given(
    job: Job,
    candidate: Candidate,
    verdict: Verdict,
    placed: Sequence[tuple[int, int, int, tuple[int, ...]]],
    names: list[str],
    price: Decimal,
) -> Given:
    members = []
    for group, rank, node_id, cards in placed:
        request = candidate.groups[group][0]
        members.append(
            Member(
                group=group,
                rank=rank,
                node_id=node_id,
                cpu_millicores=request.cpu,
                memory_bytes=request.memory,
                storage_bytes=request.storage,
                gpus=tuple((card, request.gpu_milli) for card in cards),
            )
        )
    return Given(
        job=job,
        quota_node=candidate.queue,
        flavor=str(verdict.flavor),
        amounts=candidate.amounts,
        members=members,
        node_names=sorted(set(names)),
        price=price,
        shares=list(zip(verdict.flavors, shares(candidate), strict=True)) if verdict.flavors else None,
    )


def _price(
    lent: Mapping[int, Lent], candidate: Candidate, placed: Sequence[tuple[int, int, int, tuple[int, ...]]]
) -> Decimal:
    """What an hour of these members costs under the terms of now: that of their cores and cards on their nodes."""
    price = 0.0
    for group, _, node_id, cards in placed:
        row, request = lent[node_id].row, candidate.groups[group][0]
        price += row.price_cpu * request.cpu / 1000 + row.price_gpu * request.gpu_milli * len(cards) / 1000
    return round(Decimal(price), 9) if price else FREE


def _pend(observed: Observed, verdicts: Sequence[Verdict], now: datetime, moved: Collection[int]) -> None:
    """Store reasons that differ from what is stored, in slices so that no lock is held long.

    A decision is recorded for each new reason, and for those whose reserved start has `moved`.
    """
    clock = time.monotonic()
    fresh, decisions = [], []
    for verdict in verdicts:
        stored_reason, stored_detail = observed.pending[verdict.job]
        reason = str(verdict.reason)
        known = reason == stored_reason and verdict.job not in moved
        if known and clock - _compared.get(verdict.job, 0.0) < DETAIL_SECONDS:
            continue  # The words are not even made.
        _compared[verdict.job] = clock
        detail = verdict.detail[:1].upper() + verdict.detail[1:]
        if known and detail == stored_detail:
            continue
        tried = list(verdict.tried)
        fresh.append((verdict.job, reason, detail, tried))
        if reason != stored_reason or verdict.job in moved:
            decisions.append(
                Decision(
                    job_id=verdict.job,
                    at=now,
                    outcome=verdict.outcome,
                    reason=reason,
                    detail=detail,
                    tried=tried,
                    reserved_at=verdict.reserved and datetime.fromtimestamp(verdict.reserved, UTC),
                )
            )
    for start in range(0, len(fresh), 1000):
        with transaction.atomic():
            pend(fresh[start : start + 1000])
    if fresh:
        with transaction.atomic():
            append(decisions)
            publish({"queue", *(f"job:{row[0]}" for row in fresh[:TOPICS_MAX])})
    if observed.partial:
        # A person's budget says nothing about jobs of others that ask for the same.
        standing = [verdict.job for verdict in verdicts if verdict.reason is not Reason.BUDGET_EXHAUSTED]
        _pend_alike(standing, now)
    if len(_compared) > 4 * len(observed.pending) + 1000:
        for job in _compared.keys() - observed.pending.keys():
            del _compared[job]


def _pend_alike(jobs: Sequence[int], now: datetime) -> None:
    """Tell jobs that these stand for the same, and record it; what does not fit in one slice follows in the next."""
    until = time.monotonic() + ALIKE_SECONDS
    while True:
        with transaction.atomic():
            told = pend_alike(jobs, now)
            append(
                Decision(job_id=job, at=now, outcome="pend", reason=reason, detail=detail, tried=tried)
                for job, reason, detail, tried in told
            )
            if told:
                publish({"queue", *(f"job:{row[0]}" for row in told[:TOPICS_MAX])})
        if len(told) < ALIKE_SLICE:
            return
        if time.monotonic() > until:
            loops.wake_at("schedule", timezone.now())
            return
