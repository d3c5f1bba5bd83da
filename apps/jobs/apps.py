from django.apps import AppConfig


class JobsConfig(AppConfig):
    name = "apps.jobs"

    def ready(self) -> None:
        from apps.events import topics

        from . import policies

        def visible(actor: "object", pk: int | None) -> bool:
            return pk is not None and policies.jobs.visible(actor).filter(pk=pk).exists()  # type: ignore[arg-type]

        topics.register("job", visible)
        topics.register("log", visible)
        topics.register("queue", topics.signed_in)
