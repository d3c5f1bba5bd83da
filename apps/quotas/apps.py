from django.apps import AppConfig


class QuotasConfig(AppConfig):
    name = "apps.quotas"

    def ready(self) -> None:
        from apps.events import topics

        topics.register("quota", topics.signed_in)
