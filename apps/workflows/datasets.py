"""Reads of datasets: lists, what makes and waits for one, its events, and the lineage around it."""

from dataclasses import dataclass
from typing import Any

from django.db.models import Count, OuterRef, Q, QuerySet, Subquery

from apps.core.actors import Actor
from apps.core.errors import NotFound
from rmctl.spec.datasets import holds, uris

from . import policies
from .dataset_models import Dataset, DatasetEvent, DatasetTrigger, DatasetUse
from .models import Run, Workflow

EVENTS_MAX = 1000
LINEAGE_MAX = 200


def list_datasets(actor: Actor) -> QuerySet[Dataset]:
    """Datasets with their tenant, the time of their latest event, and how many tasks make and workflows wait for
    them."""
    latest = DatasetEvent.objects.filter(dataset=OuterRef("pk")).order_by("-id")
    return (
        policies.datasets.visible(actor)
        .select_related("tenant")
        .annotate(
            updated_at=Subquery(latest.values("at")[:1]),
            producers=Count("uses", filter=~Q(uses__task="") & Q(uses__waits=False)),
            consumers=Count("uses", filter=Q(uses__task="") | Q(uses__waits=True)),
        )
    )


def dataset_of(actor: Actor, dataset_id: int) -> Dataset:
    """One dataset as lists show it. Raises NotFound."""
    found = list_datasets(actor).filter(pk=dataset_id).first()
    if found is None:
        raise NotFound(f"There is no dataset {dataset_id} that you can see.")
    return found


def list_events(actor: Actor, dataset_id: int) -> QuerySet[DatasetEvent]:
    """The events of a dataset with their runs, newest first."""
    policies.datasets.get(actor, pk=dataset_id)
    return DatasetEvent.objects.filter(dataset=dataset_id).select_related("dataset", "run__workflow").order_by("-id")


def uses_of(dataset: Dataset) -> list[DatasetUse]:
    """Who makes a dataset and who waits for it, with their workflows."""
    return list(dataset.uses.select_related("workflow").order_by("workflow__name", "task"))


def triggering(run: Run) -> list[DatasetEvent]:
    """The events that triggered a run."""
    rows = DatasetEvent.objects.filter(triggers__run=run).select_related("dataset", "run__workflow")
    return list(rows.order_by("id")[:EVENTS_MAX])


def triggering_events(run: Run) -> dict[str, list[dict[str, Any]]]:
    """The same for templates: by URI, with `uri`, `timestamp`, `extra` and where each came from."""
    found: dict[str, list[dict[str, Any]]] = {}
    for event in triggering(run) if run.trigger == Run.Trigger.DATASET else []:
        source = {"source_run_id": event.run_id, "source_task_id": event.task, "source": event.source}
        shown = {"uri": event.dataset.uri, "timestamp": event.at.isoformat(), "extra": event.extra, **source}
        found.setdefault(event.dataset.uri, []).append(shown)
    return found


@dataclass(frozen=True, slots=True)
class Waiting:
    """What a workflow waits for: each dataset with whether it was updated since the last run."""

    met: bool
    datasets: list[tuple[str, int, bool]]


def waiting_of(workflow: Workflow) -> Waiting | None:
    """How far a workflow's condition is met; None for one that waits for no dataset."""
    condition = workflow.current.definition.get("datasets") if workflow.current is not None else None
    if not condition:
        return None
    pending = DatasetTrigger.objects.filter(workflow=workflow, run=None)
    updated = set(pending.values_list("event__dataset__uri", flat=True).distinct())
    rows = Dataset.objects.filter(tenant_id=workflow.tenant_id, uri__in=set(uris(condition))).order_by("uri")
    return Waiting(holds(condition, updated), [(row.uri, row.pk, row.uri in updated) for row in rows])


def lineage(dataset: Dataset) -> dict[str, Any]:
    """The graph around a dataset, two steps up and down: datasets and the workflows between them."""
    nodes: dict[str, dict[str, Any]] = {}
    edges: set[tuple[str, str]] = set()
    known, frontier = {dataset.pk}, {dataset.pk}
    for _ in range(2):
        near = DatasetUse.objects.filter(workflow__dataset_uses__dataset__in=frontier).select_related(
            "dataset", "workflow"
        )
        for use in near.distinct()[:LINEAGE_MAX]:
            made, flow = f"dataset:{use.dataset_id}", f"workflow:{use.workflow_id}"
            nodes[made] = {"id": made, "label": use.dataset.uri, "kind": "dataset", "pk": use.dataset_id}
            nodes[flow] = {"id": flow, "label": use.workflow.name, "kind": "workflow", "pk": use.workflow_id}
            edges.add((flow, made) if use.makes else (made, flow))
        frontier = {node["pk"] for node in nodes.values() if node["kind"] == "dataset"} - known
        known |= frontier
    own = f"dataset:{dataset.pk}"
    nodes.setdefault(own, {"id": own, "label": dataset.uri, "kind": "dataset", "pk": dataset.pk})
    return {
        "nodes": list(nodes.values()),
        "edges": [{"source": source, "target": target} for source, target in sorted(edges)],
    }
