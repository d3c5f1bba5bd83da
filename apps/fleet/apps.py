from django.apps import AppConfig


class FleetConfig(AppConfig):
    name = "apps.fleet"

    def ready(self) -> None:
        from apps.core.actors import Actor
        from apps.events import topics

        from . import policies

        def node_visible(actor: Actor, number: int | None) -> bool:
            return number is not None and policies.nodes.visible(actor).filter(pk=number).exists()

        def cluster_observed(actor: Actor, number: int | None) -> bool:
            cluster = policies.clusters.visible(actor).filter(pk=number).first() if number is not None else None
            return cluster is not None and policies.clusters.allows(actor, "observe", cluster)

        topics.register("fleet", topics.signed_in)
        # The samples of a cluster's nodes, all in one frame.
        topics.register("telemetry", cluster_observed)
        topics.register("node", node_visible)
