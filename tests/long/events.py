"""A grammar of Lambda's events: both API Gateway payloads, Function URL, load balancer.

Each field is drawn as AWS documents it; in loose events some are missing or have another value.
https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html
https://docs.aws.amazon.com/elasticloadbalancing/latest/application/lambda-functions.html
"""

import base64
import json
from typing import Any

from hypothesis import strategies as st

from long.predictions import Kind, bodies, damaged
from long.wire import METHODS, SECRET, headers, paths, queries, secret

MISSING, ODD = range(2)
REQUEST_ID = "requestId"
VALID = 40  # of 41 draws one leaves a field out, and one gives it another value
finite = st.floats(allow_nan=False, allow_infinity=False)  # an event is JSON
odd: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | finite | secret(st.text(max_size=10)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(secret(st.text()), inner),
    max_leaves=4,
)


def texts(kind: Kind) -> st.SearchStrategy[str]:
    """Of a body: a request to this bundle, or no request at all."""
    return st.one_of(
        bodies(kind).map(json.dumps),
        bodies(kind).map(lambda body: json.dumps(body)[:-1] + "\ud800"),
        damaged(kind).map(bytes.decode),
        secret(st.text(st.characters(codec=None), max_size=40)),
        st.just(""),
    )


def encoded(kind: Kind) -> st.SearchStrategy[str]:
    return st.one_of(
        texts(kind).map(lambda text: base64.b64encode(text.encode(errors="replace")).decode()),
        st.binary(max_size=40).map(lambda data: base64.b64encode(SECRET.encode() + data).decode()),
        st.sampled_from([SECRET, "=", "====", "QQ", "QUJD\n", "Q\u00e9==", "_-_-", "\ud800"]),
    )


# The gateway creates them, so they are logged.
gateways_ids = st.text(max_size=200) | st.sampled_from([None, 5, True, [], {}, ["a"]])
multi_value_headers = headers.map(
    lambda single: {name: [value, value] for name, value in single.items()}
)


@st.composite
def loosely(draw: st.DrawFn, fields: dict[str, Any], *, loose: bool) -> dict[str, Any]:
    event = {}
    for name, field in fields.items():
        inner = loosely(field, loose=loose) if isinstance(field, dict) else field
        side = draw(st.integers(0, VALID)) if loose else VALID
        if side != MISSING:
            event[name] = draw(odd if side == ODD and name != REQUEST_ID else inner)
    return event


def body(kind: Kind, *, encodes: bool) -> dict[str, Any]:
    text = encoded(kind) if encodes else texts(kind)
    return {"body": text, "isBase64Encoded": st.just(encodes)}


def http(method: str, path: str) -> dict[str, Any]:
    """The fields of an HTTP API's event, and a Function URL's, which are the same."""
    return {
        "version": st.just("2.0"),
        "routeKey": st.just("$default"),
        "rawPath": st.just(path),
        "rawQueryString": secret(st.text(max_size=10)) | st.just(""),
        "headers": headers,
        "queryStringParameters": queries,
        "cookies": st.lists(secret(st.text(max_size=9)), max_size=2),
        "requestContext": {
            "accountId": st.just("123456789012"),
            "domainName": st.sampled_from(["a.execute-api.eu-west-1.amazonaws.com",
                                           "abc.lambda-url.eu-west-1.on.aws"]),
            REQUEST_ID: gateways_ids,
            "stage": st.just("$default"),
            "http": {
                "method": st.just(method),
                "path": st.just(path),
                "protocol": st.just("HTTP/1.1"),
                "sourceIp": st.just("192.0.2.1"),
            },
        },
    }  # fmt: skip


def rest(method: str, path: str) -> dict[str, Any]:
    return {
        "resource": st.just("/{proxy+}"),
        "path": st.just(path),
        "httpMethod": st.just(method),
        "headers": headers,
        "multiValueHeaders": multi_value_headers,
        "queryStringParameters": queries | st.none(),
        "multiValueQueryStringParameters": st.none(),
        "requestContext": {
            REQUEST_ID: gateways_ids,
            "stage": st.just("prod"),
            "identity": {"sourceIp": st.just("192.0.2.1")},
        },
    }


def balancer(method: str, path: str) -> dict[str, Any]:
    return {
        "requestContext": {"elb": {"targetGroupArn": st.just("arn:aws:elasticloadbalancing:x")}},
        "httpMethod": st.just(method),
        "path": st.just(path),
        "headers": headers,
        "queryStringParameters": queries,
    }


def balancer_multi_value(method: str, path: str) -> dict[str, Any]:
    fields = balancer(method, path)
    del fields["headers"]
    return fields | {
        "multiValueHeaders": multi_value_headers,
        "multiValueQueryStringParameters": queries.map(
            lambda single: {k: [v] for k, v in single.items()}
        ),
    }


GATEWAYS = {"http": http, "rest": rest, "alb": balancer, "alb, several": balancer_multi_value}


@st.composite
def events(draw: st.DrawFn, kind: Kind, *, loose: bool) -> tuple[str, Any]:
    """The name of a gateway, and an event of it for this bundle."""
    gateway = draw(st.sampled_from(list(GATEWAYS)))
    method, path = draw(st.just(("POST", "/predict")) | st.tuples(st.sampled_from(METHODS), paths))
    fields = GATEWAYS[gateway](method, path) | body(kind, encodes=draw(st.booleans()))
    return gateway, draw(loosely(fields, loose=loose))
