"""Whether a file is there: `python -m rmctl.operators.file`, a poke of `wait_for_file(…)` in a DAG file."""

import glob
import os
from typing import Any

import httpx

from . import Refused, main


def operate(inputs: dict[str, Any]) -> dict[str, Any]:
    """A poke: done with the paths that match, or for a URL with its address. Raises Refused for what is no answer."""
    wanted = inputs["path"]
    if wanted.startswith(("http://", "https://")):
        return _asked(wanted)
    found = sorted(path for path in glob.glob(wanted, recursive=True) if os.path.exists(path))
    print(f"{wanted}: {len(found)} found")
    return {"done": bool(found), "value": found[:1000] or None}


def _asked(url: str) -> dict[str, Any]:
    try:
        answer = httpx.head(url, follow_redirects=True, timeout=30)
    except httpx.TransportError as error:
        # Who is away may come back before the time is over.
        print(f"{url}: {error or type(error).__name__}")
        return {"done": False, "value": None}
    print(f"{url}: {answer.status_code}")
    if answer.is_success:
        return {"done": True, "value": url}
    if answer.status_code in (404, 408, 410, 425, 429) or answer.is_server_error:
        return {"done": False, "value": None}
    raise Refused(f"{url} answers with status {answer.status_code}.")


if __name__ == "__main__":
    main(operate)
