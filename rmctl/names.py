"""Rules for names that the portal, the agent and the specs share; nothing but the standard library."""

import re

LABEL_KEY = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_./-]{0,61}[A-Za-z0-9])?")
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?")
DATASET = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
# A country or union, or a part of one: EU, DE, US-CA.
JURISDICTION = re.compile(r"[A-Z]{2,3}(-[A-Z0-9]{1,3})?")


def canonical_image(name: str) -> str:
    """The full name of an image as registries know it: `python:3.12` is `docker.io/library/python:3.12`.

    The rules are those of Docker's references: without a registry docker.io, without a tag or digest `latest`.
    """
    first, slash, rest = name.partition("/")
    if not slash or not ("." in first or ":" in first or first == "localhost"):
        first, rest = "docker.io", name
    if first == "docker.io" and "/" not in rest:
        rest = f"library/{rest}"
    tagged = "@" in rest or ":" in rest.rpartition("/")[2]
    return f"{first}/{rest}" if tagged else f"{first}/{rest}:latest"


def package_name(name: str) -> str:
    """The name of a Python distribution in the one spelling that counts (PEP 503): `Scikit_Learn` is `scikit-learn`."""
    return re.sub(r"[-_.]+", "-", name).lower()


# Set where a task has asked for state; the agent puts the path of the task's door in it, a socket of this name.
STATE_VARIABLE = "RM_STATE"
STATE_SOCKET = "state.sock"
# Keys of state, how many of them a workflow or a run has at most, and how large a value is as JSON.
STATE_KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,199}")
STATE_KEYS_MAX = 1000
STATE_VALUE_BYTES = 64 * 1024
