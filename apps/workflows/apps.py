from functools import partial

from django.apps import AppConfig


class WorkflowsConfig(AppConfig):
    name = "apps.workflows"

    def ready(self) -> None:
        from apps.core import loops
        from apps.events import topics
        from apps.jobs import subscribers

        from . import policies

        subscribers.JOB_MOVED.append(lambda: loops.wake("advance"))
        topics.register("workflow", partial(policies.visible, policies.workflows))
        topics.register("run", partial(policies.visible, policies.runs))
