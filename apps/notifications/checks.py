"""What a push asks of a definition that names destinations."""

from apps.core.errors import FieldError
from apps.tenants.models import Tenant
from rmctl.spec import WorkflowSpec

from .models import Destination


def unknown_destinations(tenant: Tenant, spec: WorkflowSpec) -> list[FieldError]:
    """An error for each rule that names a destination which the tenant does not have."""
    parts = [("notify", spec.notify)]
    parts += [(f"tasks[{place}].notify", task.notify) for place, task in enumerate(spec.tasks)]
    rules = [(f"{where}[{place}].to", rule.to) for where, some in parts for place, rule in enumerate(some)]
    if not rules:
        return []
    known = set(Destination.objects.filter(tenant=tenant).values_list("name", flat=True))
    return [
        FieldError(
            field=where,
            message=f"Tenant {tenant.slug} has no destination {', '.join(sorted(set(names) - known))}.",
            code="unknown_destination",
        )
        for where, names in rules
        if set(names) - known
    ]
