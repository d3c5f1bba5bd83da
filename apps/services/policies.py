"""Who may see and control services: members of the tenant; auditors only look."""

from apps.tenants.policies import OwnedPolicy, works_for

from .models import Service


class ServicePolicy(OwnedPolicy[Service]):
    """A new service is asked of the tenant (`submit`)."""

    model = Service
    noun = "service"
    rules = dict.fromkeys(("deploy", "scale", "rollback", "stop", "remove"), works_for)


services = ServicePolicy()
