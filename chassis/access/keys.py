"""API keys: what they look like, and what is kept of them.

A key is `ion_<id>_<secret>`. The id is public: it finds the key in the database and names it in lists. Of the secret
only the SHA-256 is kept. A slow hash as for passwords would protect nothing: those are slow because people choose words
that can be tried one by one, and this is 256 random bits. It would cost each call tens of milliseconds instead.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import string
from dataclasses import dataclass
from datetime import datetime
from typing import Final

ID_LENGTH: Final = 12
SECRET_BYTES: Final = 32
SECRET_LENGTH: Final = 43  # of 62 letters each: just enough for all values of SECRET_BYTES
_LETTERS: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase
_FORM: Final = re.compile(rf"ion_([0-9A-Za-z]{{{ID_LENGTH}}})_([0-9A-Za-z]{{{SECRET_LENGTH}}})")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as its owner has it; `repr` keeps the secret to itself."""

    id: str
    secret: str

    def __repr__(self) -> str:
        return f"ApiKey({self.id!r})"

    @property
    def text(self) -> str:
        return f"ion_{self.id}_{self.secret}"

    @property
    def secret_hash(self) -> bytes:
        return hashlib.sha256(self.secret.encode()).digest()

    @classmethod
    def new(cls) -> ApiKey:
        return cls(
            "".join(secrets.choice(_LETTERS) for _ in range(ID_LENGTH)), _base62(secrets.token_bytes(SECRET_BYTES))
        )

    @classmethod
    def parse(cls, text: str) -> ApiKey | None:
        """None where the text is no key."""
        match = _FORM.fullmatch(text)
        return cls(match[1], match[2]) if match else None


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """What may be told of a key. Times are aware, in UTC; `expires_at` None: never."""

    id: str
    name: str
    tier: str
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None

    def is_valid(self, now: datetime) -> bool:
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key as the database has it."""

    info: KeyInfo
    secret_hash: bytes


_NO_HASH: Final = bytes(hashlib.sha256().digest_size)  # the SHA-256 of nothing that is known


def opens(key: ApiKey, stored: StoredKey | None, now: datetime) -> bool:
    """Whether the key is the stored one and valid. An id that is not known, None, takes as long as one that is."""
    is_same = hmac.compare_digest(key.secret_hash, stored.secret_hash if stored else _NO_HASH)
    return is_same and stored is not None and stored.info.is_valid(now)


def _base62(data: bytes) -> str:
    number, letters = int.from_bytes(data), []
    for _ in range(SECRET_LENGTH):
        number, rest = divmod(number, len(_LETTERS))
        letters.append(_LETTERS[rest])
    return "".join(reversed(letters))
