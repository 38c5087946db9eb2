"""`feedrank rank`: a request of /predict from the command line, to a bundle on the local Lambda
runtime or to a URL."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from feedops.errors import OperationError
from feedops.local import gateway
from feedops.local.invoke import invoke_bundle
from feedops.models.bundles import manifest_of, newest_bundle

if TYPE_CHECKING:
    from botocore.awsrequest import AWSRequest

TIMEOUT_S = 30  # API Gateway's, for a connection and for a response
JSON_TYPE = {"content-type": "application/json"}

Headers = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class RankRequest:
    """As written on the command line: `items` with commas, `context` as NAME=VALUE, `features` as
    NAME=VALUE,VALUE..."""

    user: str
    items: str
    context: Sequence[str] = ()
    features: Sequence[str] = ()
    explain: bool = False

    def body(self, spec: Mapping[str, Any]) -> bytes:
        """JSON for a model with this feature spec. Raises OperationError."""
        id_of = str.strip if spec.get("ids") == "text" else _whole_number
        body: dict[str, Any] = {
            "user_id": id_of(self.user),
            "item_ids": [id_of(item) for item in self.items.split(",")],
        }
        if self.context:
            body["context"] = dict(_assignment(each, "--context") for each in self.context)
        if self.features:
            lists = dict(_assignment(each, "--feature") for each in self.features)
            body["features"] = {
                name: [_value(each) for each in values.split(",")] for name, values in lists.items()
            }
        return json.dumps(body | ({"explain": True} if self.explain else {})).encode()


def rank_with_bundle(
    request: RankRequest, bundle: Path | None, variables: Mapping[str, str]
) -> dict[str, Any]:
    """The response of /predict after a cold start with this bundle, or with the newest one. Raises
    OperationError where it is no ranking."""
    directory = bundle or newest_bundle()
    event = gateway.example_event(
        "POST", "/predict", request.body(manifest_of(directory).feature_spec)
    )
    result = invoke_bundle(event, directory, variables, memory_mb=1_769, timeout_s=10)
    if result.error:
        raise result.error
    response = gateway.to_response(json.dumps(result.response).encode())
    return _body(response.status, response.body, "/predict")


def rank_at(url: str, request: RankRequest, headers: Headers, *, sign: bool) -> dict[str, Any]:
    """The response of /predict at a server's URL. With `sign`, requests are signed for AWS IAM with
    the credentials of the environment. Raises OperationError."""
    base = url.rstrip("/")
    model = _fetch("GET", f"{base}/model", b"", headers, sign=sign)
    body = request.body(model.get("feature_spec", {}))
    return _fetch("POST", f"{base}/predict", body, {**JSON_TYPE, **headers}, sign=sign)


def _fetch(method: str, url: str, body: bytes, headers: Headers, *, sign: bool) -> dict[str, Any]:
    from botocore.awsrequest import AWSRequest
    from botocore.exceptions import BotoCoreError
    from botocore.httpsession import URLLib3Session

    if urlsplit(url).scheme not in {"http", "https"}:
        raise OperationError(f"--url {url}: must begin with http:// or https://")
    request = AWSRequest(method, url, dict(headers), body)
    if sign:
        _sign(request, urlsplit(url).hostname or "")
    try:
        response = URLLib3Session(timeout=TIMEOUT_S).send(request.prepare())
    except BotoCoreError as error:  # no connection, or no response
        raise OperationError(f"{url}: {error}") from error
    return _body(response.status_code, response.content, url)


def _sign(request: "AWSRequest", host: str) -> None:
    """Signature version 4, for API Gateway or for a function URL."""
    import boto3
    from botocore.auth import SigV4Auth
    from botocore.exceptions import BotoCoreError

    service, region = signing_scope(host)
    try:
        session = boto3.Session()
        credentials = session.get_credentials()
    except BotoCoreError as error:
        raise OperationError(f"--sign: {error}") from error
    if credentials is None:
        raise OperationError("--sign: no AWS credentials; `aws configure` or `aws sso login`")
    region = region or session.region_name or ""
    if not region:
        raise OperationError("--sign: the URL names no region: set AWS_REGION")
    SigV4Auth(credentials.get_frozen_credentials(), service, region).add_auth(request)


def signing_scope(host: str) -> tuple[str, str]:
    """Service and region of a host: ID.execute-api.REGION.amazonaws.com, or
    ID.lambda-url.REGION.on.aws. A team's own domain is API Gateway's, and names no region."""
    _, service, region = [*host.split(".")[:3], "", "", ""][:3]
    if service == "lambda-url":
        return "lambda", region
    return "execute-api", region if service == "execute-api" else ""


def _body(status: int, body: bytes, what: str) -> dict[str, Any]:
    if status == HTTPStatus.OK:
        ranking: dict[str, Any] = json.loads(body)
        return ranking
    text = body.decode(errors="replace").strip()
    raise OperationError(f"{what} responds with status {status}\n{text}".rstrip())


def _whole_number(text: str) -> int:
    text = text.strip()
    if not (text.isascii() and text.isdigit()):
        raise OperationError(f"{text!r}: this model's ids are whole numbers")
    return int(text)


def _assignment(text: str, option: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise OperationError(f"{option} {text!r}: must be NAME=VALUE")
    return name, value


def _value(text: str) -> object:
    """A number, true, false or null as JSON has them; anything else is a text."""
    try:
        return json.loads(text)
    except ValueError:
        return text
