"""Tasks of workflows that deploy services. Workflows and services do not know each other; here the two are joined."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from apps.core.actors import SYSTEM
from apps.core.errors import FieldError, Invalid
from apps.services import commands, subscribers
from apps.services.models import Rollout
from apps.services.states import RolloutState
from apps.tenants.models import Tenant
from apps.workflows import externals
from apps.workflows.commands import definitions
from apps.workflows.externals import Begun, Seen
from apps.workflows.models import Run
from rmctl.spec import WorkflowSpec
from rmctl.spec.service import DeployService

KIND = "service"


class Deployments:
    """A task deploys a service, and waits for the end of the rollout."""

    def begin(self, run: Run, options: DeployService, inputs: Mapping[str, Any]) -> Begun:
        """Deploy in the name of the run's owner."""
        made = commands.deploy(
            actor=replace(SYSTEM, label=f"run:{run.pk}", user_id=run.owner_id),
            tenant=Tenant.objects.get(pk=run.tenant_id),
            data=options.deployment(inputs),
        )
        number = made.rollout.revision.number
        news = f"is rolled out as revision {number}" if made.changed else f"is at revision {number} already"
        return Begun(made.rollout.pk, f"Service {made.service.name} {news}.")

    def look(self, reference: int) -> Seen:
        """How the rollout is."""
        rollout = Rollout.objects.select_related("service", "revision").filter(pk=reference).first()
        if rollout is None:
            return Seen(False, "The service that it deployed was removed.", None)
        name, number = rollout.service.name, rollout.revision.number
        result = {"service": name, "revision": number, "state": str(rollout.state)}
        match rollout.state:
            case RolloutState.ROLLING:
                return Seen(None, f"revision {number} of service {name} is still rolled out", result)
            case RolloutState.COMPLETE:
                return Seen(True, f"Revision {number} of service {name} is rolled out.", result)
            case RolloutState.FAILED:
                return Seen(False, rollout.detail, result)
        return Seen(False, f"The rollout of revision {number} of service {name} was {rollout.state}.", result)


def faults(tenant: Tenant, spec: WorkflowSpec) -> list[FieldError]:
    """What is wrong with the services that a definition deploys, also what could never start."""
    found: list[FieldError] = []
    for position, task in enumerate(spec.tasks):
        if task.service is None:
            continue
        try:
            commands.checked_spec(tenant=tenant, data=task.service.deployment({}))
        except Invalid as error:
            where = f"tasks[{position}].service.spec"
            found += [FieldError(**{**one, "field": f"{where}.{one['field']}"}) for one in error.errors]
    return found


def join() -> None:
    """Let each know of the other."""
    externals.EXTERNALS[KIND] = Deployments()
    subscribers.ROLLOUT_ENDED.append(externals.happened)
    definitions.FURTHER_CHECKS.append(faults)
