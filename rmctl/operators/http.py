"""One HTTP request: `python -m rmctl.operators.http`, made by `http(…)` in a DAG file."""

from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx

from rmctl.sdk.runtime import artifact
from rmctl.stored import Connection, connection

from . import Refused, main

# Larger answers belong into an artifact; a result has at most 256 KiB.
BODY_BYTES = 200 * 1024
# Of the client's faults these may go away by themselves.
PASSING = (408, 425, 429)


def operate(inputs: dict[str, Any]) -> dict[str, Any]:
    """Send the request: `{"status", "headers", "json" or "text"}`, or with an artifact `{…, "artifact", "bytes"}`.

    Raises Refused when it cannot be sent or its status is not one of those expected.
    """
    found = connection(inputs["connection"]) if inputs.get("connection") else None
    url = _address(inputs["url"], found)
    extra = found.extra if found is not None else {}
    headers = {**(extra.get("headers") or {}), **(inputs.get("headers") or {})}
    if extra.get("token"):
        headers.setdefault("Authorization", f"Bearer {extra['token']}")
    login = (found.login, found.password) if found is not None and found.login else None
    given = {name: inputs[name] for name in ("params", "json", "content") if inputs.get(name) is not None}
    seconds = float(inputs.get("timeout") or 60)
    try:
        with (
            httpx.Client(follow_redirects=True, timeout=seconds) as client,
            client.stream(inputs.get("method", "GET"), url, headers=headers, auth=login, **given) as answer,
        ):
            return _taken(answer, inputs)
    except (httpx.TransportError, httpx.TooManyRedirects) as error:
        raise Refused(f"{urlsplit(url).netloc}: {error or type(error).__name__}") from None
    except httpx.InvalidURL as error:
        raise Refused(f"{url}: {error}", final=True) from None


def _address(url: str, found: Connection | None) -> str:
    """The address; what a connection gives is in front of one that is only a path."""
    if found is not None:
        scheme = found.conn_type if found.conn_type in ("http", "https") else "https"
        port = f":{found.port}" if found.port else ""
        url = urljoin(f"{scheme}://{found.host}{port}/{found.schema.strip('/')}{'/' if found.schema else ''}", url)
    if urlsplit(url).scheme not in ("http", "https"):
        raise Refused(f"{url!r} is no http address: give a whole one, or a connection with its host.", final=True)
    return url


def _taken(answer: httpx.Response, inputs: dict[str, Any]) -> dict[str, Any]:
    expected = inputs.get("expected")
    print(f"{answer.request.method} {answer.url.copy_with(userinfo=None)}: {answer.status_code} {answer.reason_phrase}")
    result: dict[str, Any] = {"status": answer.status_code, "headers": dict(answer.headers)}
    if not (answer.status_code in expected if expected else answer.is_success):
        wanted = ", ".join(map(str, expected)) if expected else "200 to 299"
        said = _body(answer)[:500].decode(errors="replace")
        final = answer.is_client_error and answer.status_code not in PASSING
        raise Refused(f"the answer has status {answer.status_code}, expected is {wanted}: {said}", final=final)
    if inputs.get("artifact"):
        size = 0
        with artifact(inputs["artifact"]).open("wb") as stream:
            for piece in answer.iter_bytes():
                size += stream.write(piece)
        return {**result, "artifact": inputs["artifact"], "bytes": size}
    body = _body(answer)
    if len(body) > BODY_BYTES:
        raise Refused(f"the answer has more than {BODY_BYTES // 1024} KiB: keep it with artifact='name'.", final=True)
    text = body.decode(answer.encoding or "utf-8", errors="replace")
    if "json" in answer.headers.get("content-type", ""):
        try:
            return {**result, "json": httpx.Response(200, content=body).json()}
        except ValueError:
            raise Refused(f"the answer says that it is JSON and is not: {text[:200]}") from None
    return {**result, "text": text}


def _body(answer: httpx.Response) -> bytes:
    """The body, not much more than fits into a result."""
    body = b""
    for piece in answer.iter_bytes():
        body += piece
        if len(body) > BODY_BYTES:
            break
    return body


if __name__ == "__main__":
    main(operate)
