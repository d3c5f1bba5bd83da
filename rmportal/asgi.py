"""The ASGI application: pages and API through Django, sockets through Channels, and the agents' listener."""

import asyncio
import os
import warnings
from collections.abc import Awaitable, Callable
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "rmportal.settings")

import django

# WhiteNoise answers static files synchronously; they are small, and browsers keep them by their hashed names.
warnings.filterwarnings("ignore", message="StreamingHttpResponse must consume synchronous iterators")
django.setup(set_prefix=False)

from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import OriginValidator
from django.conf import settings
from django.urls import path

from apps.core.memory import settle
from apps.core.progress import tell_progress
from apps.events.consumers import LiveConsumer
from apps.execution.consumers import AgentConsumer
from apps.execution.listener import listener
from rmportal.handler import Handler

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

people = OriginValidator(AuthMiddlewareStack(LiveConsumer.as_asgi()), [*settings.ALLOWED_HOSTS, settings.PORTAL_URL])


async def lifespan(scope: Scope, receive: Receive, send: Send) -> None:
    """Start the agents' listener and the sign of life with the process and end them with the process."""
    tasks: list[asyncio.Task[None]] = []
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            settle()
            tasks = [asyncio.create_task(listener.run()), asyncio.create_task(tell_progress())]
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            for task in tasks:
                task.cancel()
            await send({"type": "lifespan.shutdown.complete"})
            return


application = ProtocolTypeRouter(
    {
        "http": Handler(),
        "websocket": URLRouter([path("ws/live/", people), path("ws/agent/", AgentConsumer.as_asgi())]),
        "lifespan": lifespan,
    }
)
