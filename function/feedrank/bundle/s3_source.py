"""Reads a bundle's files from an S3 prefix, into unnamed files."""

from time import perf_counter

from feedrank.aws.client import Limits
from feedrank.aws.errors import AwsError, ServiceError, TooLargeError
from feedrank.aws.s3 import Bucket
from feedrank.bundle.sources import Content, Copies, mapped
from feedrank.errors import BundleError

LIMITS = Limits(connect_s=1.0, read_s=3.0, tries=2)  # Lambda gives init ten seconds


class S3Source:
    def __init__(self, uri: str, copies: Copies) -> None:
        bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        self._prefix, self._uri = prefix.rstrip("/"), uri
        self._copies = copies
        try:
            self._bucket = Bucket(bucket, LIMITS)
        except AwsError as error:
            raise BundleError(f"{uri}: the AWS_* variables make no client: {error}") from error

    def fetch(self, name: str, max_bytes: int) -> Content:
        key = f"{self._prefix}/{name}" if self._prefix else name
        deadline_s = self._copies.deadline_s
        with self._copies.open(name) as file:
            try:
                sha256 = self._bucket.download(key, file.fileno(), max_bytes, deadline_s)
            except TooLargeError as error:
                raise BundleError(f"{name}: {error}") from error
            except ServiceError as error:
                reason = f"S3 responds with {error.code} for {self._uri}{error.hint}"
                raise BundleError(f"{name}: {reason}") from error
            except AwsError as error:
                if perf_counter() > deadline_s:
                    raise BundleError(f"{name}: takes too long to fetch") from error
                reason = f"S3 can't be reached for {self._uri}: {error}"
                raise BundleError(f"{name}: {reason}") from error
            except OSError as error:
                raise self._copies.unwritable(name, error) from error
            return Content(mapped(file, name), sha256)
