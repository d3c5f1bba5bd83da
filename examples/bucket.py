"""A bucket of files over HTTP, standing in for object storage in examples that need something outside the portal.

    python examples/bucket.py 8099

PUT, GET and DELETE of /any/name, and GET of /, which lists the names as JSON. It keeps all of it in memory and
listens on this machine only; the address is http://127.0.0.1:8099.
"""

import contextlib
import json
import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MOST_BYTES = 2**20


class Bucket(ThreadingHTTPServer):
    """The server; `files` has what was put, by path."""

    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.files: dict[str, bytes] = {}

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Bucket

    def do_GET(self) -> None:
        if self.path == "/":
            self.answer(HTTPStatus.OK, json.dumps(sorted(self.server.files)).encode())
        elif (content := self.server.files.get(self.path)) is not None:
            self.answer(HTTPStatus.OK, content)
        else:
            self.answer(HTTPStatus.NOT_FOUND)

    def do_PUT(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        if length > MOST_BYTES:
            self.answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            return
        self.server.files[self.path] = self.rfile.read(length)
        self.answer(HTTPStatus.NO_CONTENT)

    def do_DELETE(self) -> None:
        gone = self.server.files.pop(self.path, None)
        self.answer(HTTPStatus.NOT_FOUND if gone is None else HTTPStatus.NO_CONTENT)

    def answer(self, status: HTTPStatus, content: bytes = b"") -> None:
        self.send_response(status)
        if status != HTTPStatus.NO_CONTENT:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None:
        """One line for each request, for whoever watches the terminal."""
        if sys.stderr.isatty():
            super().log_message(format, *arguments)


if __name__ == "__main__":
    if len(sys.argv) != 2 or not sys.argv[1].isdigit():
        sys.exit("usage: python examples/bucket.py PORT")
    with Bucket(int(sys.argv[1])) as bucket:
        print(f"{bucket.url}; Ctrl-C ends it and forgets its files", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            bucket.serve_forever()
