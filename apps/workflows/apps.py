from functools import partial

from django.apps import AppConfig


class WorkflowsConfig(AppConfig):
    name = "apps.workflows"

    def ready(self) -> None:
        from apps.events import topics
        from apps.jobs import subscribers

        from . import moved, policies

        subscribers.JOB_MOVED["run"] = moved.tell
        topics.register("workflow", partial(policies.visible, policies.workflows))
        topics.register("backfill", partial(policies.visible, policies.backfills))
        topics.register("run", partial(policies.visible, policies.runs))
