from django.apps import AppConfig


class TenantsConfig(AppConfig):
    name = "apps.tenants"

    def ready(self) -> None:
        from apps.core.actors import Actor
        from apps.core.api import register_actor_resolver
        from apps.events import identity, topics

        from . import policies, schema  # noqa: F401 - the schema registers how credentials are documented
        from .actors import actor_for, request_actor

        def tenant_visible(actor: Actor, number: int | None) -> bool:
            return number is not None and policies.tenants.visible(actor).filter(pk=number).exists()

        register_actor_resolver(request_actor)
        identity.register(actor_for)
        topics.register("tenant", tenant_visible)
