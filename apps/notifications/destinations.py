"""What a destination is made of: checked, encrypted, and how much of it may be seen."""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from django.core.exceptions import ValidationError
from django.core.validators import validate_email

from apps.core.crypto import seal, unseal
from apps.core.errors import Invalid

from .models import Destination
from .outgoing import Refused, checked_url

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
RECEIVERS_MAX = 20
SECRET_BYTES = (16, 200)
RATE_MAX = 600


@dataclass(frozen=True, slots=True)
class Credentials:
    """Where to and how: the URL and the secret that signs (webhooks), or the addresses of an e-mail."""

    url: str = ""
    secret: str = ""
    to: tuple[str, ...] = ()


def sealed(credentials: Credentials) -> str:
    """Encrypted for the database."""
    return seal(json.dumps(asdict(credentials)))


def credentials_of(destination: Destination) -> Credentials:
    """Decrypted, to be sent with. Raises Conflict when the portal's secret key has changed."""
    data = json.loads(unseal(destination.ciphertext))
    return Credentials(data["url"], data["secret"], tuple(data["to"]))


def shown(channel: str, credentials: Credentials) -> dict[str, object]:
    """What of it members may see: the host, never the path, in which chat services have their tokens."""
    if channel == Destination.Channel.EMAIL:
        return {"to": list(credentials.to)}
    parts = checked_url(credentials.url)
    return {"host": f"{parts.scheme}://{parts.netloc}"}


def checked(channel: str, credentials: Credentials) -> Credentials:
    """The same if the channel can use it. Raises Invalid naming the field."""
    if channel == Destination.Channel.EMAIL:
        if credentials.url or credentials.secret:
            raise Invalid.field("url", "an e-mail has receivers, `to`, and neither URL nor secret.", "wrong_kind")
        return Credentials(to=_addresses(credentials.to))
    if credentials.to:
        raise Invalid.field("to", "only e-mails have receivers; give the URL of the webhook.", "wrong_kind")
    if credentials.secret and channel != Destination.Channel.WEBHOOK:
        raise Invalid.field("secret", "chat services are not signed; their secret is in the URL.", "wrong_kind")
    if credentials.secret and not SECRET_BYTES[0] <= len(credentials.secret.encode()) <= SECRET_BYTES[1]:
        raise Invalid.field("secret", f"from {SECRET_BYTES[0]} to {SECRET_BYTES[1]} bytes.", "out_of_range")
    try:
        checked_url(credentials.url)
    except Refused as error:
        raise Invalid.field("url", str(error), "bad_url") from None
    return credentials


def _addresses(given: Sequence[str]) -> tuple[str, ...]:
    addresses = tuple(dict.fromkeys(text.strip() for text in given if text.strip()))
    if not 0 < len(addresses) <= RECEIVERS_MAX:
        code = "too_many" if addresses else "required"
        raise Invalid.field("to", f"give from 1 to {RECEIVERS_MAX} addresses.", code)
    for address in addresses:
        try:
            validate_email(address)
        except ValidationError:
            raise Invalid.field("to", f"{address[:100]} is not an e-mail address.", "bad_address") from None
    return addresses


def checked_rate(per_minute: int) -> int:
    """The same if it is one. Raises Invalid."""
    if not 1 <= per_minute <= RATE_MAX:
        raise Invalid.field("per_minute", f"from 1 to {RATE_MAX}.", "out_of_range")
    return per_minute
