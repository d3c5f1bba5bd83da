"""Which live topics exist and who may watch them. An app registers its kinds in `AppConfig.ready()`.

A topic is `kind` or `kind:id`. Unknown means no: a kind that nobody registered is refused.
"""

from collections.abc import Callable

from apps.core.actors import Actor

Check = Callable[[Actor, int | None], bool]

_checks: dict[str, Check] = {}


def register(kind: str, check: Check) -> None:
    """Let actors for whom `check(actor, id)` is true watch `kind:id`."""
    _checks[kind] = check


def kinds() -> list[str]:
    """Every registered kind, for the test that asks each with each persona."""
    return sorted(_checks)


def may_watch(actor: Actor, topic: str) -> bool:
    """Whether the actor may watch the topic."""
    kind, _, number = topic.partition(":")
    check = _checks.get(kind)
    if check is None or len(number) > 18 or (number and not number.isascii()) or (number and not number.isdigit()):
        return False
    return actor.has_scope("read") and check(actor, int(number) if number else None)


def signed_in(actor: Actor, number: int | None) -> bool:
    """For topics without content of their own, where the pages behind are limited by their policies."""
    return number is None and actor.user_id is not None
