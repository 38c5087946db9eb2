"""How a decision record names its user: by id, or by a keyed hash of it.

Without the key nobody can find a record's user, not even by hashing every id. Ids of items,
requests and traces name no person, so they are never hashed.
"""

from time import perf_counter
from typing import TYPE_CHECKING

from feedrank.errors import SettingsError
from feedrank.settings import MIN_KEY_LENGTH, Settings

if TYPE_CHECKING:
    from hmac import HMAC

DIGITS = 32  # 128 bits: two of a billion users share a hash with a probability of 1 in 10^21
CONNECT_TIMEOUT_S = 1.0
READ_TIMEOUT_S = 2.0
MAX_TRIES = 2
MAX_TIME_S = 6.0  # of both: Lambda gives init 10 s


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
    """From Secrets Manager in the ARN's region, or by name in the container's."""
    from feedrank.aws.client import Limits
    from feedrank.aws.errors import AwsError, ServiceError
    from feedrank.aws.services import SECRETS_MANAGER, JsonClient

    region = secret.split(":")[3] if secret.startswith("arn:") else ""
    limits = Limits(CONNECT_TIMEOUT_S, READ_TIMEOUT_S, MAX_TRIES)
    try:
        client = JsonClient(SECRETS_MANAGER, limits, region)
        response = client.call("GetSecretValue", {"SecretId": secret}, perf_counter() + MAX_TIME_S)
    except ServiceError as error:
        raise SettingsError(
            f"RECORD_ID_KEY_SECRET: Secrets Manager responds with {error.code}{error.hint}"
        ) from error
    except AwsError as error:
        raise SettingsError(f"RECORD_ID_KEY_SECRET: {error}") from error
    key: str = response.get("SecretString", "")
    if len(key.strip()) < MIN_KEY_LENGTH:
        raise SettingsError(
            f"RECORD_ID_KEY_SECRET: its text must have at least {MIN_KEY_LENGTH} characters"
        )
    return key
