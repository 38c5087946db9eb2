"""The AWS services that a release calls, and what an operator reads when one refuses."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from feedops.errors import OperationError

ATTEMPTS = 8  # of each call: CloudFormation throttles whoever follows an update
DENIED = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation"}
EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired"}
INVALID = {"InvalidClientTokenId", "UnrecognizedClientException", "SignatureDoesNotMatch"}


@dataclass(frozen=True, slots=True)
class Account:
    """Clients for one account and region."""

    region: str
    cloudformation: Any
    functions: Any  # Lambda
    deployments: Any  # CodeDeploy
    alarms: Any  # CloudWatch
    logs: Any
    s3: Any

    def client(self, service: str, region: str = "") -> Any:  # noqa: ANN401 boto3 makes its types
        """Of any other service, in this region or another."""
        import boto3

        make: Any = boto3.client
        return make(service, region_name=region or self.region)


def connect() -> Account:
    """With the credentials and the region of the shell."""
    import boto3
    from botocore.config import Config

    client: Any = boto3.client
    config = Config(retries={"mode": "standard", "total_max_attempts": ATTEMPTS})
    names = ("cloudformation", "lambda", "codedeploy", "cloudwatch", "logs", "s3")
    clients: list[Any] = [client(name, config=config) for name in names]
    return Account(clients[0].meta.region_name, *clients)


@contextmanager
def explained(subject: str) -> Iterator[None]:
    """Turns errors of the SDK into OperationError: one line, and below it what helps."""
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError

    try:
        yield
    except ClientError as error:
        raise OperationError(f"{subject}: {_refusal(error)}") from error
    except BotoCoreError as error:
        raise OperationError(f"{subject}: {_local(error)}") from error
    except ResponseParserError as error:
        raise OperationError(f"{subject}: what responds is no AWS; is there a proxy?") from error


def code_of(error: Exception) -> str:
    """The code of a ClientError, such as ValidationError."""
    response: Any = getattr(error, "response", {})
    code: str = response.get("Error", {}).get("Code", "")
    return code


def message_of(error: Exception) -> str:
    response: Any = getattr(error, "response", {})
    message: str = response.get("Error", {}).get("Message", str(error))
    return message


def _refusal(error: Any) -> str:  # noqa: ANN401 a ClientError, which is imported late
    code, message = code_of(error), message_of(error)
    if code in DENIED:
        return (
            f"these credentials may not call {error.operation_name}: {message}\n"
            "infra/pipeline/role.yaml lists the rights that a release needs"
        )
    if code in EXPIRED:
        return "the credentials have expired\nsign in again, such as: aws sso login"
    if code in INVALID:
        return f"AWS doesn't know these credentials: {message}\nlook: aws sts get-caller-identity"
    return f"{error.operation_name}: {message}"


def _local(error: Exception) -> str:
    match type(error).__name__:
        case "NoRegionError":
            return "no region: set AWS_REGION to that of the stack"
        case "NoCredentialsError" | "PartialCredentialsError":
            return "no AWS credentials: set AWS_PROFILE, or sign in (aws sso login)"
        case "EndpointConnectionError" | "ConnectTimeoutError":
            return f"AWS can't be reached: {error}\ncheck AWS_REGION and the network"
        case _:
            return str(error)
