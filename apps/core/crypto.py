"""Tokens and secrets: how they are made, stored and compared."""

import base64
import hashlib
import hmac
import secrets
from functools import cache

from cryptography.fernet import Fernet, InvalidToken
from django.conf import settings

from .errors import Conflict


def new_token(prefix: str) -> str:
    """A bearer token with 256 bits of randomness; shown once, stored as `digest()`."""
    return f"{prefix}_{secrets.token_urlsafe(32)}"


def digest(token: str) -> str:
    """SHA-256 of a random token; slow hashes guard guessable passwords, which these are not."""
    return hashlib.sha256(token.encode()).hexdigest()


@cache
def _fernet() -> Fernet:
    key = hmac.new(settings.SECRET_KEY.encode(), b"rmportal secrets at rest", hashlib.sha256).digest()
    return Fernet(base64.urlsafe_b64encode(key))


def seal(value: str) -> str:
    """Encrypt a secret for the database (Fernet: AES-128-CBC with HMAC-SHA-256)."""
    return _fernet().encrypt(value.encode()).decode()


def unseal(ciphertext: str) -> str:
    """Decrypt; raises Conflict when the secret key has changed since."""
    try:
        return _fernet().decrypt(ciphertext.encode()).decode()
    except InvalidToken:
        raise Conflict("A stored secret cannot be read with the present secret key: set it again.") from None
