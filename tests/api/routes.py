"""Every route of the REST API, found by walking the URL resolver, with objects to fill its arguments."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from django.urls import URLPattern, URLResolver, get_resolver
from django.urls.converters import IntConverter

from apps.core.api import ApiView, Operation

METHODS = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE")
# Converters that take any text; a name that no test makes.
UNKNOWN_TEXT = "no-such-thing"
UNKNOWN_ID = 2**62


@dataclass(frozen=True)
class Route:
    """One pattern: its path with `{name}` for each argument, and the view behind it."""

    path: str
    arguments: Mapping[str, Any]
    view: Any

    def fill(self, values: Mapping[str, Any]) -> str:
        """The path with values for names; an argument without a value gets one that is nowhere."""
        unknown = {
            name: UNKNOWN_ID if isinstance(converter, IntConverter) else UNKNOWN_TEXT
            for name, converter in self.arguments.items()
        }
        return self.path.format(**{**unknown, **{key: values[key] for key in self.arguments if key in values}})

    def operation(self, method: str) -> Operation | None:
        """What the view declares for the method."""
        handler = getattr(self.view, method.lower(), None)
        return getattr(handler, "operation", None)


def walk(prefix: str = "/", patterns: list[Any] | None = None) -> Iterator[Route]:
    """Every route of the project, pages included."""
    for pattern in get_resolver().url_patterns if patterns is None else patterns:
        text = str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            yield from walk(prefix + text, pattern.url_patterns)
        elif isinstance(pattern, URLPattern):
            path, arguments = prefix + text, dict(pattern.pattern.converters)
            for name, converter in arguments.items():
                kind = type(converter).__name__.removesuffix("Converter").lower()
                path = path.replace(f"<{ {'string': 'str'}.get(kind, kind) }:{name}>", "{" + name + "}")
                path = path.replace(f"<{name}>", "{" + name + "}")
            yield Route(path, arguments, getattr(pattern.callback, "cls", pattern.callback))


def api_routes() -> list[Route]:
    """The routes of the REST API whose views are ours."""
    found = [route for route in walk() if route.path.startswith("/api/v1/")]
    return [route for route in found if isinstance(route.view, type) and issubclass(route.view, ApiView)]
