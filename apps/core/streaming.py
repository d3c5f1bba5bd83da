"""Answers that are files: sent in pieces, whatever their size, by either kind of server."""

import asyncio
from collections.abc import AsyncIterator
from typing import IO
from urllib.parse import quote

from django.core.handlers.asgi import ASGIRequest
from django.http import FileResponse, HttpRequest, StreamingHttpResponse

PIECE_BYTES = 256 * 1024


async def _pieces(file: IO[bytes]) -> AsyncIterator[bytes]:
    """The file in pieces, read in threads so that the event loop goes on."""
    try:
        while piece := await asyncio.to_thread(file.read, PIECE_BYTES):
            yield piece
    finally:
        await asyncio.to_thread(file.close)


def file_response(
    request: HttpRequest, file: IO[bytes], *, content_type: str, size: int, filename: str = ""
) -> StreamingHttpResponse:
    """The open file as an answer, which closes it; with `filename` it is offered for saving.

    What a tenant stored must not act in the portal's name: it is sandboxed and never sniffed.
    """
    if isinstance(request, ASGIRequest):
        response = StreamingHttpResponse(_pieces(file))
    else:
        response = FileResponse(file)
    response["Content-Type"] = content_type
    response["Content-Length"] = str(size)
    response["Content-Security-Policy"] = (
        "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    )
    response["X-Content-Type-Options"] = "nosniff"
    if filename:
        response["Content-Disposition"] = f"attachment; filename*=UTF-8''{quote(filename, safe='')}"
    return response
