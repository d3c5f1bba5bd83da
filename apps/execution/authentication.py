"""How agents prove themselves to the REST API: `Authorization: Agent rma_…`, good for one node's work."""

from dataclasses import dataclass
from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework import authentication, exceptions

from apps.core.actors import Actor
from apps.fleet.models import Node
from apps.fleet.queries import node_of_credential


@dataclass(frozen=True, slots=True)
class Agent:
    """The signed-in party of an agent's request."""

    node: Node
    is_authenticated: bool = True
    is_active: bool = True

    @property
    def pk(self) -> str:
        """What its rate is counted under."""
        return f"node-{self.node.pk}"

    @property
    def actor(self) -> Actor:
        """Who commands are told acts."""
        return Actor(label=f"agent:{self.node.name}", node_id=self.node.pk)


class AgentAuthentication(authentication.BaseAuthentication):
    """Looks the node up by its credential; refuses unknown and revoked ones."""

    def authenticate(self, request: Any) -> tuple[Agent, None]:
        header = authentication.get_authorization_header(request).decode("latin-1")
        kind, _, credential = header.partition(" ")
        node = node_of_credential(credential.strip()) if kind.lower() == "agent" else None
        if node is None:
            raise exceptions.AuthenticationFailed("This node credential is unknown or revoked: join again.")
        return Agent(node), None

    def authenticate_header(self, request: Any) -> str:
        return 'Agent realm="rmportal"'


class AgentScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = AgentAuthentication
    name = "agent"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {
            "type": "apiKey",
            "in": "header",
            "name": "Authorization",
            "description": "`Agent rma_…`: the credential of a node.",
        }
