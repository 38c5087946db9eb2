"""Decision records straight to a Firehose stream."""

from base64 import b64encode
from math import inf

from feedrank.aws.client import Limits
from feedrank.aws.errors import AwsError, ServiceError
from feedrank.aws.services import FIREHOSE, JsonClient
from feedrank.decisions.sinks import DecisionRecord, DecisionSink
from feedrank.errors import SettingsError

CONNECT_TIMEOUT_S = 0.3
READ_TIMEOUT_S = 0.7  # the request waits for it


def connected(name: str) -> "FirehoseStream":
    """Raises SettingsError where the AWS_* variables make no client."""
    try:
        return FirehoseStream(name)
    except AwsError as error:
        reason = f"DECISION_STREAM: the AWS_* variables make no client: {error}"
        raise SettingsError(reason) from error


class FirehoseStream(DecisionSink):
    """One call per record: a container is frozen as soon as it has responded, so no record waits
    for others. A record whose call ends too late is delivered and spilled.
    """

    replaces_output = True
    max_writes = 16  # some 1,600 records a second, of the 2,000 that a stream takes by default
    min_write_s = 0.02  # a call takes about 0.01

    def __init__(self, name: str) -> None:
        self._name = name
        self.connect()

    def connect(self) -> None:
        self._firehose = JsonClient(FIREHOSE, Limits(CONNECT_TIMEOUT_S, READ_TIMEOUT_S, tries=1))

    def write(self, record: DecisionRecord) -> None:
        data = b64encode(record.line).decode()
        content = {"DeliveryStreamName": self._name, "Record": {"Data": data}}
        try:
            self._firehose.call("PutRecord", content, inf)  # who waits knows for how long
        except ServiceError as error:  # throttled, too large, gone
            raise OSError(f"{self._name} responds with {error.code}{error.hint}") from error
        except AwsError as error:
            raise OSError(f"{self._name} can't be reached: {error}") from error
