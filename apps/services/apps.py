from django.apps import AppConfig


class ServicesConfig(AppConfig):
    name = "apps.services"

    def ready(self) -> None:
        from apps.events import topics
        from apps.jobs import subscribers

        from . import moved, policies

        def visible(actor: "object", pk: int | None) -> bool:
            return pk is not None and policies.services.visible(actor).filter(pk=pk).exists()  # type: ignore[arg-type]

        subscribers.JOB_MOVED["service"] = moved.tell
        topics.register("service", visible)
