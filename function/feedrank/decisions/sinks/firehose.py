"""Decision records straight to a Firehose stream."""

from feedrank.decisions.sinks import DecisionRecord, DecisionSink
from feedrank.errors import SettingsError

CONNECT_TIMEOUT_S = 0.3
READ_TIMEOUT_S = 0.7  # of one try: the request waits for it


def connected(name: str) -> "FirehoseStream":
    """Raises SettingsError where the AWS_* variables make no client."""
    try:
        return FirehoseStream(name)
    except Exception as error:  # botocore's, or Python's own
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
        import boto3
        from botocore.config import Config

        self._firehose = boto3.Session().client(
            "firehose",
            config=Config(
                connect_timeout=CONNECT_TIMEOUT_S,
                read_timeout=READ_TIMEOUT_S,
                max_pool_connections=self.max_writes,
                retries={"total_max_attempts": 1, "mode": "standard"},
            ),
        )

    def write(self, record: DecisionRecord) -> None:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            self._firehose.put_record(DeliveryStreamName=self._name, Record={"Data": record.line})
        except ClientError as error:  # throttled, too large, gone
            code = error.response["Error"]["Code"]
            raise OSError(f"{self._name} responds with {code}") from error
        except BotoCoreError as error:
            raise OSError(f"{self._name} can't be reached: {error}") from error
