from django.apps import AppConfig


class ExecutionConfig(AppConfig):
    name = "apps.execution"

    def ready(self) -> None:
        from apps.jobs import admission

        from .queries import unknown_bundle

        admission.CHECKS.append(unknown_bundle)
