"""Errors of the agent that are meant for people: each message names the thing, what is wrong and what to do."""


class AgentError(Exception):
    """The agent cannot go on; the message says why and what to do."""


class JoinRefused(AgentError):
    """The portal did not accept the join token."""


class Refused(Exception):
    """A placement cannot be started on this node; the message becomes the `detail` of its report."""


class PortalRefusal(Exception):
    """The portal answered a request with a status that trying again will not change."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class PortalAway(Exception):
    """The portal cannot be reached, or (`answered`) is in trouble (5xx, 429); try again later."""

    def __init__(self, message: str, answered: bool = False) -> None:
        super().__init__(message)
        self.answered = answered
