"""Who acts: a person, an agent or the system itself. Commands take an actor first and authorise with it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Actor:
    """An identity with what it may be asked about.

    `label` is what events record (`user:alice`, `agent:node-3`, `system`). `scopes` of None means all
    (a signed-in session); an API token carries its own, and ends at `until`.
    """

    label: str
    user_id: int | None = None
    node_id: int | None = None
    operator: bool = False
    auditor: bool = False
    system: bool = False
    tenant_roles: Mapping[int, str] = field(default_factory=dict)
    domain_roles: Mapping[int, str] = field(default_factory=dict)
    scopes: frozenset[str] | None = None
    until: datetime | None = None

    def has_scope(self, scope: str) -> bool:
        """Whether the credential carries `scope`; `admin` includes `write`, and `write` includes `read`."""
        if self.scopes is None:
            return True
        implied = {"read": {"read", "write", "admin"}, "write": {"write", "admin"}, "admin": {"admin"}}
        return bool(self.scopes & implied[scope])


SYSTEM = Actor(label="system", system=True, operator=True)
ANONYMOUS = Actor(label="anonymous", scopes=frozenset())
