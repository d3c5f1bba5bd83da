"""How lower apps learn who a signed-in user is: `tenants` registers the resolver, since it knows the roles."""

from collections.abc import Callable
from typing import Any

from apps.core.actors import ANONYMOUS, Actor

_resolver: Callable[[Any], Actor] | None = None


def register(resolver: Callable[[Any], Actor]) -> None:
    """Set the function from a user to their actor."""
    global _resolver
    _resolver = resolver


def resolve(user: Any) -> Actor:
    """The actor of a user; nobody has any right before a resolver is registered."""
    return _resolver(user) if _resolver is not None else ANONYMOUS
