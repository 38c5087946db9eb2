"""What can go wrong with a call of AWS. No text has a secret, a payload or an address of a proxy.

AwsError
├── AwsConfigError     variables that make no client
├── CredentialsError   there are none, or they can't be renewed
├── UnreachableError   no connection, no response, or a damaged one
├── TooLargeError      an object has more bytes than are allowed
└── ServiceError       the service refuses
"""

from feedrank.errors import FeedrankError


class AwsError(FeedrankError):
    """The root. Where `is_temporary`, the same call may succeed a moment later."""

    is_temporary = False


class AwsConfigError(AwsError):
    """The text names the variable."""


class CredentialsError(AwsError):
    """The text names the source that was tried."""


class UnreachableError(AwsError):
    is_temporary = True


class TooLargeError(AwsError):
    """Nothing of the object is kept."""


class ServiceError(AwsError):
    """A response that is an error: AWS's code for it, and what to do where that is known."""

    def __init__(self, status: int, code: str, hint: str = "") -> None:
        super().__init__(f"{code}: {hint}" if hint else code)
        self.status = status
        self.code = code
        self.hint = f": {hint}" if hint else ""  # for the end of a sentence
        self.region = ""  # where the bucket is, if S3 says so
        self.date = ""  # the Date header

    @property
    def is_temporary(self) -> bool:  # type: ignore[override]
        return self.status >= SERVER_ERRORS or self.code in THROTTLED


SERVER_ERRORS = 500
# The codes that botocore retries, beside the status 5xx.
THROTTLED = frozenset(
    {
        "BandwidthLimitExceeded",
        "EC2ThrottledException",
        "LimitExceededException",
        "PriorRequestNotComplete",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "RequestTimeout",
        "RequestTimeoutException",
        "SlowDown",
        "ThrottledException",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
        "TransactionInProgressException",
    }
)
