from django.apps import AppConfig


class TenantsConfig(AppConfig):
    name = "apps.tenants"

    def ready(self) -> None:
        from apps.core.api import register_actor_resolver

        from . import schema  # noqa: F401 - registers how the credentials are documented
        from .actors import request_actor

        register_actor_resolver(request_actor)
