"""A secret of AWS Secrets Manager that a setting names, read at init."""

from time import perf_counter

from feedrank.aws.client import Limits
from feedrank.aws.errors import AwsError, ServiceError
from feedrank.aws.services import SECRETS_MANAGER, JsonClient
from feedrank.errors import SettingsError

CONNECT_TIMEOUT_S = 1.0
READ_TIMEOUT_S = 2.0
MAX_TRIES = 2
MAX_TIME_S = 6.0  # of both: Lambda gives init 10 s


def read_secret(secret: str, variable: str) -> str:
    """Its text, from the ARN's region, or by name from the container's. Raises SettingsError that
    names the variable."""
    region = secret.split(":")[3] if secret.startswith("arn:") else ""
    limits = Limits(CONNECT_TIMEOUT_S, READ_TIMEOUT_S, MAX_TRIES)
    try:
        client = JsonClient(SECRETS_MANAGER, limits, region)
        response = client.call("GetSecretValue", {"SecretId": secret}, perf_counter() + MAX_TIME_S)
    except ServiceError as error:
        raise SettingsError(
            f"{variable}: Secrets Manager responds with {error.code}{error.hint}"
        ) from error
    except AwsError as error:
        raise SettingsError(f"{variable}: {error}") from error
    text: str = response.get("SecretString", "")
    return text
