from django.apps import AppConfig


class PortalConfig(AppConfig):
    name = "rmportal"

    def ready(self) -> None:
        from . import deployments

        deployments.join()
