"""Which host serves a service, a bucket or an access point, by the rules that botocore has as data.

https://docs.aws.amazon.com/general/latest/gr/rande.html
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import urlsplit

from feedrank.aws.errors import AwsConfigError


class Partition(NamedTuple):
    regions: str  # how the names of its regions begin
    suffix: str  # of its hosts
    dual_stack_suffix: str


PARTITIONS = (
    Partition("cn-", "amazonaws.com.cn", "api.amazonwebservices.com.cn"),
    Partition("us-gov-", "amazonaws.com", "api.aws"),
    Partition("eusc-", "amazonaws.eu", "api.amazonwebservices.eu"),
    Partition("us-iso-", "c2s.ic.gov", "api.aws.ic.gov"),
    Partition("us-isob-", "sc2s.sgov.gov", "api.aws.scloud"),
    Partition("eu-isoe-", "cloud.adc-e.uk", "api.cloud-aws.adc-e.uk"),
    Partition("us-isof-", "csp.hci.ic.gov", "api.aws.hci.ic.gov"),
    Partition("", "amazonaws.com", "api.aws"),
)
# By service, the partitions whose hosts have the usual suffix for dual stack as well.
DUAL_STACK_AS_USUAL = {
    "s3": tuple(partition.regions for partition in PARTITIONS),
    "secretsmanager": ("", "us-gov-", "cn-"),
}
URL_VARIABLES = {
    "s3": "AWS_ENDPOINT_URL_S3",
    "firehose": "AWS_ENDPOINT_URL_FIREHOSE",
    "dynamodb": "AWS_ENDPOINT_URL_DYNAMODB",
    "secretsmanager": "AWS_ENDPOINT_URL_SECRETS_MANAGER",
}
PORTS = {"http": 80, "https": 443}
_HOST_LABEL = re.compile(r"(?=.{3,63}$)[a-z0-9][a-z0-9-]*[a-z0-9]")
_ACCESS_POINT = re.compile(r"arn:[a-z-]+:s3:([a-z0-9-]+):(\d{12}):accesspoint:([a-z0-9-]+)")
# Buckets that want other calls than GetObject with a plain signature.
_OTHER_BUCKETS = ("--x-s3", "--xa-s3", "--op-s3", "--ol-s3")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where requests go. `path` begins each path and has no slash at its end."""

    scheme: str
    host: str
    port: int
    path: str
    region: str  # of the signature

    @property
    def authority(self) -> str:
        """The Host header: the port only where it is not the usual one."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path}"


def service_endpoint(service: str, region: str, variables: Mapping[str, str]) -> Endpoint:
    """Raises AwsConfigError."""
    if url := endpoint_url(service, variables):
        return _at_url(url, region)
    return _regional(service, service, region, variables)


def bucket_endpoint(bucket: str, region: str, variables: Mapping[str, str]) -> Endpoint:
    """Of a bucket, or of an access point by its ARN. Raises AwsConfigError."""
    if bucket.endswith(_OTHER_BUCKETS):
        raise AwsConfigError(f"{bucket}: directory buckets, Outposts and Object Lambda can't be "
                             "read here; use a general purpose bucket")  # fmt: skip
    url = endpoint_url("s3", variables)
    if access_point := _ACCESS_POINT.fullmatch(bucket):
        region, account, name = access_point.groups()
        base = _at_url(url, region) if url else _regional("s3", "s3-accesspoint", region, variables)
        return _below(base, f"{name}-{account}")
    if url:
        return _with_path(_at_url(url, region), bucket)
    base = _regional("s3", "s3", region, variables)
    # The certificates of S3 don't cover a name with dots.
    return _below(base, bucket) if _HOST_LABEL.fullmatch(bucket) else _with_path(base, bucket)


def endpoint_url(service: str, variables: Mapping[str, str]) -> str:
    """The URL that the environment gives for this service, or for all; empty without one."""
    if is_on("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", variables):
        return ""
    return variables.get(URL_VARIABLES[service]) or variables.get("AWS_ENDPOINT_URL", "")


def is_on(name: str, variables: Mapping[str, str]) -> bool:
    return variables.get(name, "").lower() == "true"


def region_in(variables: Mapping[str, str]) -> str:
    """Empty where the environment has none. Lambda sets both variables; boto3 reads the first."""
    return variables.get("AWS_DEFAULT_REGION") or variables.get("AWS_REGION", "")


def partition_of(region: str) -> Partition:
    return next(each for each in PARTITIONS if region.startswith(each.regions))


def _regional(service: str, name: str, region: str, variables: Mapping[str, str]) -> Endpoint:
    """`name` is the first part of the host."""
    partition = partition_of(region)
    is_dual_stack = is_on("AWS_USE_DUALSTACK_ENDPOINT", variables)
    is_fips = is_on("AWS_USE_FIPS_ENDPOINT", variables)
    suffix = partition.suffix
    if is_dual_stack and partition.regions not in DUAL_STACK_AS_USUAL.get(service, ()):
        suffix = partition.dual_stack_suffix
    if is_fips:
        name = _fips_name(service, name, partition, is_dual_stack=is_dual_stack)
    if is_dual_stack and service == "s3":
        name = f"{name}.dualstack"
    return Endpoint("https", f"{name}.{region}.{suffix}", PORTS["https"], "", region)


def _fips_name(service: str, name: str, partition: Partition, *, is_dual_stack: bool) -> str:
    if partition.regions == "cn-":
        raise AwsConfigError("AWS_USE_FIPS_ENDPOINT: AWS has no FIPS endpoints in China")
    if service == "dynamodb" and partition.regions == "us-gov-" and not is_dual_stack:
        return name  # they all are
    return f"{name}-fips"


def _at_url(url: str, region: str) -> Endpoint:
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    try:
        port = parts.port
    except ValueError as error:
        raise AwsConfigError("AWS_ENDPOINT_URL: its port must be at most 65535") from error
    if scheme not in PORTS or not parts.hostname:
        raise AwsConfigError("AWS_ENDPOINT_URL: must be a URL, such as https://host:443")
    path = "".join(f"/{part}" for part in parts.path.split("/") if part)
    return Endpoint(scheme, parts.hostname, port or PORTS[scheme], path, region)


def _below(base: Endpoint, name: str) -> Endpoint:
    return Endpoint(base.scheme, f"{name}.{base.host}", base.port, base.path, base.region)


def _with_path(base: Endpoint, bucket: str) -> Endpoint:
    return Endpoint(base.scheme, base.host, base.port, f"{base.path}/{bucket}", base.region)
