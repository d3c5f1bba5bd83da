"""Facts about services for the log; `service:<id>` is the live topic of its page."""

from typing import Any

from apps.events.record import Fact

from .models import Rollout, Service


def service_fact(verb: str, service: Service, *, reason: str = "", **facts: Any) -> Fact:
    """A fact about a service."""
    named = {"name": service.name, **facts}
    return Fact(verb, "service", service.pk, tenant_id=service.tenant_id, facts=named, reason=reason)


def rollout_fact(service: Service, rollout: Rollout, *, reason: str = "") -> Fact:
    """A fact about a rollout; the verb is its transition's."""
    facts = {"service": service.pk, "name": service.name, "revision": rollout.revision.number}
    topics = (f"service:{service.pk}",)
    return Fact("", "rollout", rollout.pk, tenant_id=service.tenant_id, facts=facts, reason=reason, topics=topics)
