"""How a decision record names its user: by id, or by a keyed hash of it.

Without the key nobody can find a record's user, not even by hashing every id. Ids of items,
requests and traces name no person, so they are never hashed.
"""

from typing import TYPE_CHECKING

from feedrank.errors import SettingsError
from feedrank.settings import MIN_KEY_LENGTH, Settings

if TYPE_CHECKING:
    from hmac import HMAC

DIGITS = 32  # 128 bits: two of a billion users share a hash with a probability of 1 in 10^21


class UserHash:
    """The first 128 bits of HMAC-SHA256 over the id as text, in hex."""

    def __init__(self, key: str) -> None:
        import hmac

        self._keyed: HMAC = hmac.new(key.strip().encode(), digestmod="sha256")

    def __call__(self, user_id: int | str) -> str:
        keyed = self._keyed.copy()  # the key is hashed once
        keyed.update(str(user_id).encode())
        return keyed.hexdigest()[:DIGITS]


def user_hash(settings: Settings) -> UserHash | None:
    """None where records have plain ids. Raises SettingsError where the key can't be read: then no
    record may be written."""
    if settings.record_ids == "plain":
        return None
    if settings.record_id_key is None:
        return UserHash(_read_key(settings.record_id_key_secret))
    return UserHash(settings.record_id_key.get_secret_value())


def _read_key(secret: str) -> str:
    from feedrank.aws.secrets import read_secret

    key = read_secret(secret, "RECORD_ID_KEY_SECRET")
    if len(key.strip()) < MIN_KEY_LENGTH:
        raise SettingsError(
            f"RECORD_ID_KEY_SECRET: its text must have at least {MIN_KEY_LENGTH} characters"
        )
    return key
