from django.apps import AppConfig


class TenantsConfig(AppConfig):
    name = "apps.tenants"

    def ready(self) -> None:
        from apps.core import api
        from apps.events import identity, topics

        from . import policies
        from .actors import actor_for, request_actor

        identity.register(actor_for)
        api.actor_resolver = request_actor
        for kind in ("events", "queue", "quota"):
            topics.register(kind, topics.signed_in)
        topics.register(
            "tenant", lambda actor, pk: pk is not None and policies.tenants.visible(actor).filter(pk=pk).exists()
        )
