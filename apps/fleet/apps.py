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
        # Samples of every node in one frame: for those who see every node.
        topics.register("telemetry", lambda actor, number: number is None and (actor.operator or actor.auditor))
        topics.register("node", node_visible)
