"""Waking the loop when jobs of replicas have moved. It finds them by their rows, so nothing has to be remembered."""

from collections.abc import Collection

from apps.core import loops


def tell(_jobs: Collection[int]) -> None:
    """Wake the loop of services once the present transaction has committed."""
    loops.wake("services")
