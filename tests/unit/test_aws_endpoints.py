"""Hosts are those of botocore's rules, for every region, service and kind of bucket."""

import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

import botocore
import pytest
from botocore.awsrequest import AWSResponse
from botocore.client import Config
from botocore.endpoint_provider import EndpointProvider
from botocore.exceptions import EndpointProviderError
from botocore.loaders import Loader
from botocore.session import Session

from feedrank.aws.endpoints import (
    URL_VARIABLES,
    bucket_endpoint,
    endpoint_url,
    service_endpoint,
)
from feedrank.aws.errors import AwsConfigError
from feedrank.aws.profile import region_of
from feedrank.aws.proxies import proxy_for

PARTITIONS = json.loads((Path(botocore.__file__).parent / "data/partitions.json").read_bytes())
REGIONS = [
    region
    for partition in PARTITIONS["partitions"]
    for region in partition["regions"]
    if not region.endswith("-global")
]
FLAGS = [
    {"AWS_USE_FIPS_ENDPOINT": fips, "AWS_USE_DUALSTACK_ENDPOINT": dual_stack}
    for fips in ("true", "false")
    for dual_stack in ("true", "false")
]
LOADER = Loader()  # keeps what it has read
KEY = "serving/a b+ü~(1).json"


@pytest.fixture(scope="module")
def rules() -> dict[str, EndpointProvider]:
    return {
        service: EndpointProvider(
            LOADER.load_service_model(service, "endpoint-rule-set-1"), PARTITIONS
        )
        for service in URL_VARIABLES
    }


def _by_botocore(
    rules: dict[str, EndpointProvider], service: str, region: str, flags: dict[str, str]
) -> str:
    try:
        found = rules[service].resolve_endpoint(
            Region=region,
            UseFIPS=flags["AWS_USE_FIPS_ENDPOINT"] == "true",
            UseDualStack=flags["AWS_USE_DUALSTACK_ENDPOINT"] == "true",
        )
    except EndpointProviderError:
        return "none"
    return str(found.url)


def test_a_service_is_where_botocore_finds_it(rules: dict[str, EndpointProvider]) -> None:
    assert len(REGIONS) > 40
    found, expected = {}, {}
    for service in URL_VARIABLES:
        for region in REGIONS:
            for flags in FLAGS:
                case = (service, region, *flags.values())
                if region.startswith("cn-") and flags["AWS_USE_FIPS_ENDPOINT"] == "true":
                    with pytest.raises(AwsConfigError, match="no FIPS endpoints in China"):
                        service_endpoint(service, region, flags)
                    continue  # botocore makes up names that nobody serves
                found[case] = service_endpoint(service, region, flags).url
                expected[case] = _by_botocore(rules, service, region, flags)
    assert found == expected


# ---- Buckets: the URL that boto3's client sends its request to -----------------------------------


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    return monkeypatch


def _url_of_boto3(bucket: str) -> tuple[str, str]:
    """The URL of a GetObject, and the region of its signature."""
    sent: list[Any] = []

    def answer(request: Any, **_: object) -> AWSResponse:
        sent.append(request)
        raw: Any = type(
            "Raw", (), {"stream": lambda *_args, **_kw: iter(()), "close": lambda *_: None}
        )
        return AWSResponse(request.url, 404, {}, raw())

    # Without this it takes the global endpoint for us-east-1.
    config = Config(s3={"us_east_1_regional_endpoint": "regional"})
    session = Session()
    session.register_component("data_loader", LOADER)
    client = session.create_client("s3", config=config)
    client.meta.events.register("before-send.s3", answer)
    with pytest.raises(client.exceptions.ClientError):
        client.get_object(Bucket=bucket, Key=KEY)
    client.close()
    (request,) = sent
    authorization = request.headers["Authorization"].decode()
    return request.url, authorization.split("/")[2]


ACCESS_POINT = "arn:aws:s3:eu-north-1:123456789012:accesspoint:feed"


@pytest.mark.parametrize(
    "bucket", ["models", "mod-els", "my.models", "My_Models", "10.0.0.1", "a1b", ACCESS_POINT]
)
@pytest.mark.parametrize(
    "variables",
    [
        *FLAGS,
        {"AWS_ENDPOINT_URL": "http://127.0.0.1:9000"},
        {"AWS_ENDPOINT_URL": "https://minio.example:443/below/"},
        {"AWS_ENDPOINT_URL": "http://a.example", "AWS_ENDPOINT_URL_S3": "HTTPS://S3.example"},
        {"AWS_ENDPOINT_URL": "http://a.example", "AWS_ENDPOINT_URL_FIREHOSE": "http://b.example"},
        {"AWS_ENDPOINT_URL": "http://a.example", "AWS_USE_FIPS_ENDPOINT": "true"},
        {"AWS_ENDPOINT_URL": "http://a", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"},
    ],
)
def test_an_object_is_where_boto3_asks_for_it(
    environment: pytest.MonkeyPatch, bucket: str, variables: dict[str, str]
) -> None:
    for region in ("eu-west-1", "us-east-1"):
        for name, value in {**variables, "AWS_DEFAULT_REGION": region}.items():
            environment.setenv(name, value)
        endpoint = bucket_endpoint(bucket, region_of(os.environ), os.environ)
        url, signed_region = _url_of_boto3(bucket)
        scheme, host, path = url.partition("://")[0], *url.partition("://")[2].split("/", 1)
        host = host.lower().removesuffix(":443")  # of HTTPS anyway
        assert f"{endpoint.url}/{quote(KEY, safe='/~')}" == f"{scheme.lower()}://{host}/{path}"
        assert endpoint.region == signed_region


def test_the_user_of_a_url_is_not_part_of_the_host() -> None:
    variables = {"AWS_ENDPOINT_URL": "http://user:secret@localhost:4566"}
    endpoint = bucket_endpoint("models", "eu-west-1", variables)
    assert endpoint.url == "http://localhost:4566/models"


@pytest.mark.parametrize("bucket", ["a--usw2-az1--x-s3", "ap-123456789012abcdefgh--op-s3"])
def test_a_bucket_that_needs_other_calls_is_refused(bucket: str) -> None:
    with pytest.raises(AwsConfigError, match="use a general purpose bucket"):
        bucket_endpoint(bucket, "eu-west-1", {})


@pytest.mark.parametrize("url", ["http://host:99999", "ftp://host", "localhost:4566"])
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(AwsConfigError, match=r"^AWS_ENDPOINT_URL: "):
        service_endpoint("firehose", "eu-west-1", {"AWS_ENDPOINT_URL": url})


def test_the_url_of_a_service_is_preferred() -> None:
    variables = {"AWS_ENDPOINT_URL": "http://all"}
    for service, name in URL_VARIABLES.items():
        assert endpoint_url(service, variables) == "http://all"
        assert endpoint_url(service, variables | {name: "http://one"}) == "http://one"
        assert endpoint_url(service, {name: "http://one"}) == "http://one"


# ---- Proxies -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, None),
        ({"HTTPS_PROXY": "http://proxy:3128"}, ("proxy", 3128, {})),
        ({"https_proxy": "proxy"}, ("proxy", 80, {})),
        ({"HTTPS_PROXY": "http://a:1", "https_proxy": "http://b:2"}, ("b", 2, {})),
        ({"HTTP_PROXY": "http://proxy:3128"}, None),
        ({"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": ".amazonaws.com"}, None),
        ({"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": "*"}, None),
        ({"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": "aws.example"}, ("proxy", 3128, {})),
        (
            {"HTTPS_PROXY": "http://me:p%40ss@proxy:3128"},
            ("proxy", 3128, {"proxy-authorization": "Basic bWU6cEBzcw=="}),
        ),
    ],
)
def test_a_proxy_is_the_one_that_the_environment_names(
    environment: pytest.MonkeyPatch, variables: dict[str, str], expected: object
) -> None:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        environment.delenv(name)
    for name, value in variables.items():
        environment.setenv(name, value)
    endpoint = service_endpoint("firehose", "eu-west-1", {})
    assert proxy_for(endpoint, os.environ) == expected


@pytest.mark.parametrize(
    "url", ["socks5://proxy:1080", "https://secret@proxy", "http://proxy:99999"]
)
def test_a_proxy_that_can_not_be_used_is_refused(environment: pytest.MonkeyPatch, url: str) -> None:
    environment.setenv("HTTPS_PROXY", url)
    with pytest.raises(AwsConfigError, match=r"^HTTPS_PROXY: ") as error:
        proxy_for(service_endpoint("firehose", "eu-west-1", {}), os.environ)
    assert "secret" not in str(error.value)
