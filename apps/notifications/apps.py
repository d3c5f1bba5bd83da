from functools import partial

from django.apps import AppConfig


class NotificationsConfig(AppConfig):
    name = "apps.notifications"

    def ready(self) -> None:
        from apps.events import topics
        from apps.workflows.commands import definitions
        from apps.workflows.policies import visible

        from . import checks, policies

        definitions.FURTHER_CHECKS.append(checks.unknown_destinations)
        topics.register("destination", partial(visible, policies.destinations))
