from django.apps import AppConfig


class FleetConfig(AppConfig):
    name = "apps.fleet"

    def ready(self) -> None:
        from apps.core.actors import Actor
        from apps.events import topics

        from . import policies

        def node_visible(actor: Actor, number: int | None) -> bool:
            return number is not None and policies.nodes.visible(actor).filter(pk=number).exists()

        topics.register("fleet", topics.signed_in)
        topics.register("telemetry", topics.signed_in)
        topics.register("node", node_visible)
