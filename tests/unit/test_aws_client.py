"""One call of AWS against a server that misbehaves."""

import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from math import inf
from pathlib import Path
from threading import Barrier
from time import perf_counter
from typing import Any
from zlib import crc32

import pytest

from feedrank.aws import client as module
from feedrank.aws import connections
from feedrank.aws.client import Limits
from feedrank.aws.errors import (
    AwsConfigError,
    AwsError,
    CredentialsError,
    ServiceError,
    UnreachableError,
)
from feedrank.aws.services import FIREHOSE, JsonClient, Service
from scripted import Answer, Fault, Scripted, Sent, scripted

PATIENT = Limits(connect_s=30.0, read_s=30.0, tries=2)
SECRETS = ("a-secret-key", "a-session-token", "the-payload", "p4ssword")
PAYLOAD = {"Record": "the-payload"}


@pytest.fixture
def server() -> Iterator[Scripted]:
    with scripted() as server:
        yield server


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Those before another try; nobody waits for them."""
    pauses: list[float] = []
    monkeypatch.setattr(module, "sleep", pauses.append)
    return pauses


def _variables(url: str, **more: str) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_REGION": "eu-west-1",
        "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "a-secret-key",
        "AWS_SESSION_TOKEN": "a-session-token",
        **more,
    }


def _client(url: str, limits: Limits = PATIENT, **more: str) -> JsonClient:
    return JsonClient(FIREHOSE, limits, variables=_variables(url, **more))


def _refused(client: JsonClient, error: type[AwsError] = AwsError, deadline_s: float = inf) -> str:
    with pytest.raises(error) as caught:
        client.call("PutRecord", PAYLOAD, deadline_s)
    text = str(caught.value)
    assert not any(secret in text for secret in SECRETS)
    return text


# ---- Tries ---------------------------------------------------------------------------------------


def test_a_call_is_what_the_service_documents(server: Scripted) -> None:
    """https://docs.aws.amazon.com/firehose/latest/APIReference/API_PutRecord.html"""
    server.respond = lambda _: Answer(body=b'{"RecordId": "1"}')
    assert _client(server.url).call("PutRecord", PAYLOAD, inf) == {"RecordId": "1"}
    (sent,) = server.requests
    assert (sent.method, sent.path, sent.body) == ("POST", "/", b'{"Record":"the-payload"}')
    assert sent.headers["x-amz-target"] == "Firehose_20150804.PutRecord"
    assert sent.headers["content-type"] == "application/x-amz-json-1.1"
    assert sent.headers["x-amz-security-token"] == "a-session-token"


@pytest.mark.parametrize(
    "answer",
    [
        Answer(500),
        Answer(503, b"<html>"),
        Answer(400, b'{"__type": "ThrottlingException"}'),
        Answer(400, b'{"__type": "com.amazonaws#ProvisionedThroughputExceededException"}'),
        Answer(200, b'{"a": 1', {"x-amz-crc32": str(crc32(b'{"a": 1}'))}),
        Answer(200, b"<html>"),
        Answer(200, b'{"a": 1}', fault="truncated"),
        Answer(fault="closed"),
        Answer(fault="reset"),
    ],
)
def test_what_may_pass_is_tried_again(
    server: Scripted, answer: Answer, pauses: list[float]
) -> None:
    server.answers = [answer]
    assert _client(server.url).call("PutRecord", PAYLOAD, inf) == {}
    assert (len(server.requests), len(pauses)) == (2, 1)
    assert 0 <= pauses[0] <= module.PAUSE_S


def test_tries_pauses_and_their_jitter_are_bounded(server: Scripted, pauses: list[float]) -> None:
    server.respond = lambda _: Answer(503)
    for _ in range(20):
        _refused(_client(server.url, Limits(30, 30, tries=9)), ServiceError)
    assert len(server.requests) == 20 * 9
    assert max(pauses) <= module.MAX_PAUSE_S
    assert len(set(pauses)) == len(pauses), "all clients would come back at once"


@pytest.mark.parametrize("answer", [Answer(400), Answer(403), Answer(404), Answer(413)])
def test_what_stays_as_it_is_is_tried_once(server: Scripted, answer: Answer) -> None:
    server.respond = lambda _: answer
    _refused(_client(server.url), ServiceError)
    assert len(server.requests) == 1


def test_past_its_deadline_nothing_is_sent(server: Scripted) -> None:
    assert _refused(_client(server.url), deadline_s=perf_counter()) == "no time is left"
    assert server.requests == []


def test_a_try_that_would_begin_too_late_is_not_made(
    server: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "random", lambda: 1.0)
    for each in (module, connections):
        monkeypatch.setattr(each, "perf_counter", lambda: 100.0)
    server.respond = lambda _: Answer(503)
    for left_s, requests in ((module.PAUSE_S / 2, 1), (module.PAUSE_S * 2, 2)):
        server.requests.clear()
        _refused(_client(server.url), ServiceError, deadline_s=100.0 + left_s)
        assert len(server.requests) == requests


def test_a_service_that_hangs_is_waited_for_as_long_as_the_limit_says(server: Scripted) -> None:
    server.respond = lambda _: Answer(fault="hanging")
    limits = Limits(connect_s=30.0, read_s=0.05, tries=1)
    assert _refused(_client(server.url, limits), UnreachableError) == "no response: timed out"
    patient = Limits(connect_s=30.0, read_s=30.0, tries=1)
    late = _refused(_client(server.url, patient), deadline_s=perf_counter() + 0.05)
    assert late == "no response: timed out"


def test_nobody_at_the_address_is_said_to_be_so() -> None:
    client = _client("http://127.0.0.1:9")
    expected = "Could not connect to http://127.0.0.1:9: Connection refused"
    assert _refused(client, UnreachableError) == expected
    unknown = _refused(_client("http://nowhere.invalid"), UnreachableError)
    assert unknown.startswith("Could not connect to http://nowhere.invalid: ")
    assert _refused(_client("http://a..b")) == "Could not connect to http://a..b: UnicodeError"


# ---- Connections ---------------------------------------------------------------------------------


def test_one_connection_serves_call_after_call(server: Scripted) -> None:
    client = _client(server.url)
    server.answers = [Answer(), Answer(404, b"{}"), Answer(503)]  # errors keep it, too
    client.call("PutRecord", PAYLOAD, inf)
    _refused(client)
    client.call("PutRecord", PAYLOAD, inf)
    assert (len(server.requests), len(set(server.ports))) == (4, 1)


@pytest.mark.parametrize("fault", ["closed afterwards", "reset afterwards"])
def test_a_connection_that_was_closed_meanwhile_is_opened_anew(
    server: Scripted, fault: Fault
) -> None:
    """As after a freeze: nothing is sent into the closed one, and no try is used up."""
    client = _client(server.url, Limits(30, 30, tries=1))
    server.answers = [Answer(fault=fault)]
    client.call("PutRecord", PAYLOAD, inf)
    assert server.closed.wait(30)
    client.call("PutRecord", PAYLOAD, inf)
    assert (len(server.requests), len(set(server.ports))) == (2, 2)


def test_a_connection_of_which_nothing_is_left_is_opened_anew(
    server: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the other side has forgotten it, the request is answered by a reset."""
    client = _client(server.url, Limits(30, 30, tries=1))
    client.call("PutRecord", PAYLOAD, inf)
    monkeypatch.setattr("feedrank.aws.connections._is_readable", lambda _: False)
    server.answers = [Answer(fault="reset")]
    client.call("PutRecord", PAYLOAD, inf)
    assert len(set(server.ports)) == 2


def test_a_request_that_may_have_been_executed_is_not_sent_again(server: Scripted) -> None:
    client = _client(server.url, Limits(30, 30, tries=1))
    client.call("PutRecord", PAYLOAD, inf)
    server.answers = [Answer(fault="closed")]
    assert _refused(client) == "no response: the connection was closed"
    assert len(server.requests) == 2


def test_threads_have_connections_of_their_own_and_leave_none_open(server: Scripted) -> None:
    client = _client(server.url)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: client.call("PutRecord", PAYLOAD, inf), range(200)))
    assert answers == [{}] * 200
    assert len(set(server.ports)) <= 8


def test_nothing_stays_open_after_the_client(server: Scripted) -> None:
    client = _client(server.url)
    client.call("PutRecord", PAYLOAD, inf)
    del client
    assert server.closed.wait(30)


# ---- The clock -----------------------------------------------------------------------------------


def _with_a_clock(server: Scripted, offset: timedelta, *, is_strict: bool = True) -> None:
    """The service's clock is right, and accepts five minutes; this machine's is off."""

    def respond(sent: Sent) -> Answer:
        now = datetime.now(UTC) + offset
        signed = datetime.strptime(sent.headers["x-amz-date"], "%Y%m%dT%H%M%S%z")
        if abs(signed - now) < timedelta(minutes=5) and is_strict:
            return Answer()
        body = b'{"__type": "InvalidSignatureException", "message": "Signature expired"}'
        return Answer(400, body, {"Date": format_datetime(now, usegmt=True)})

    server.respond = respond


@pytest.mark.parametrize("minutes", [-20, 20, 60 * 24 * 400])
def test_a_clock_that_is_off_is_corrected_once(server: Scripted, minutes: int) -> None:
    _with_a_clock(server, timedelta(minutes=minutes))
    client = _client(server.url, Limits(30, 30, tries=1))
    for _ in range(3):
        assert client.call("PutRecord", PAYLOAD, inf) == {}
    assert len(server.requests) == 4


def test_calls_at_once_all_follow_the_clock_that_one_has_corrected(server: Scripted) -> None:
    _with_a_clock(server, timedelta(minutes=20))
    respond, all_refused = server.respond, Barrier(8, timeout=60)

    def together(sent: Sent) -> Answer:
        answer = respond(sent)
        if answer.status != 200:
            all_refused.wait()
        return answer

    server.respond = together
    client = _client(server.url, Limits(30, 30, tries=1))
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: client.call("PutRecord", PAYLOAD, inf), range(8)))
    assert (answers, len(server.requests)) == ([{}] * 8, 16)


def test_a_wrong_key_is_no_matter_of_the_clock(server: Scripted) -> None:
    for offset, requests in ((timedelta(0), 1), (timedelta(hours=1), 2)):
        server.requests.clear()
        _with_a_clock(server, offset, is_strict=False)
        reason = _refused(_client(server.url), ServiceError)
        assert (
            "InvalidSignatureException: the secret key is wrong, or this machine's clock" in reason
        )
        assert len(server.requests) == requests


@pytest.mark.parametrize("date", ["", "yesterday", "Mon, 99 Xyz 0000 00:00:00 GMT"])
def test_without_a_date_no_clock_is_corrected(server: Scripted, date: str) -> None:
    body = b'{"__type": "InvalidSignatureException"}'
    server.respond = lambda _: Answer(400, body, {"Date": date})
    _refused(_client(server.url), ServiceError)
    assert len(server.requests) == 1


# ---- Answers that are errors ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (
            Answer(
                400,
                b'{"__type": "AccessDeniedException", "Message": "User: arn:aws:sts::1:x is not '
                b'authorized to perform: firehose:PutRecord on resource: a-secret-key"}',
            ),
            "AccessDeniedException: the role may not firehose:PutRecord here",
        ),
        (
            Answer(
                403,
                b'{"__type": "AccessDeniedException", "Message": "not authorized to perform: '
                b'kms:GenerateDataKey"}',
            ),
            "AccessDeniedException: the role may not kms:GenerateDataKey here",
        ),
        (Answer(403, b"<html>p4ssword"), "403"),
        (Answer(400, b'{"__type":"com.amazon.coral#ExpiredTokenException"}'),
         "ExpiredTokenException: the credentials are not valid, or no longer"),
        (Answer(403, b'{"__type":"UnrecognizedClientException", "message": "a-session-token"}'),
         "UnrecognizedClientException: the credentials are not valid, or no longer"),
        (Answer(400, b'{"__type": "ResourceNotFoundException", "message": "p4ssword"}'),
         "ResourceNotFoundException"),
        (Answer(400, b"{}", {"x-amzn-ErrorType": "ValidationException:http://internal.amazon.com/"}),
         "ValidationException"),
        (Answer(400, b'{"__type": "InvalidArgumentException:"}'), "InvalidArgumentException"),
        (Answer(413, b"the-payload"), "413"),
        (Answer(500, b'{"__type": "a-secret-key"}'), "500"),
        (Answer(503, b'{"__type": "ServiceUnavailableException"}'), "ServiceUnavailableException"),
        (Answer(429, b"slow down"), "429"),
        (Answer(301, b"", {"Location": "http://p4ssword"}), "301"),
    ],
)  # fmt: skip
def test_a_refusal_is_named_by_the_code_of_aws_and_nothing_else_of_its_body(
    server: Scripted, answer: Answer, text: str
) -> None:
    server.respond = lambda _: answer
    assert _refused(_client(server.url, Limits(30, 30, tries=1)), ServiceError) == text


def test_a_service_of_another_kind_is_one_line_more(server: Scripted) -> None:
    dynamodb = Service("dynamodb", "DynamoDB_20120810", "1.0")
    client = JsonClient(dynamodb, PATIENT, variables=_variables(server.url))
    body = b'{"Item": {}}'
    server.respond = lambda _: Answer(body=body, headers={"x-amz-crc32": str(crc32(body))})
    assert client.call("GetItem", {}, inf) == {"Item": {}}
    (sent,) = server.requests
    assert sent.headers["x-amz-target"] == "DynamoDB_20120810.GetItem"
    assert "/eu-west-1/dynamodb/aws4_request" in sent.headers["authorization"]


def test_credentials_that_no_header_may_have_are_not_repeated(server: Scripted) -> None:
    client = _client(server.url, AWS_SESSION_TOKEN="a-session-token\n")
    assert "has a line break" in _refused(client, CredentialsError)
    assert server.requests == []


# ---- TLS and proxies -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificate and key of 127.0.0.1, signed by themselves."""
    path = tmp_path_factory.mktemp("tls") / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1", "-addext",
         "subjectAltName=IP:127.0.0.1", "-keyout", f"{path}.key", "-out", path],
        check=True, capture_output=True,
    )  # fmt: skip
    path.write_text(path.read_text() + Path(f"{path}.key").read_text())
    return path


def test_a_private_certificate_is_accepted_where_the_environment_names_it(
    certificate: Path,
) -> None:
    for variable in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"):
        with scripted(certificate) as server:
            client = _client(server.url, **{variable: str(certificate)})
            for _ in range(2):
                client.call("PutRecord", PAYLOAD, inf)
            assert len(set(server.ports)) == 1


def test_a_certificate_that_nobody_vouches_for_is_refused(certificate: Path) -> None:
    with scripted(certificate) as server:
        reason = _refused(_client(server.url), UnreachableError)
        assert server.requests == []
    assert "certificate verify failed: self-signed certificate (AWS_CA_BUNDLE)" in reason


def test_a_closed_tls_connection_is_opened_anew(certificate: Path) -> None:
    with scripted(certificate) as server:
        client = _client(server.url, Limits(30, 30, tries=1), AWS_CA_BUNDLE=str(certificate))
        server.answers = [Answer(fault="closed afterwards")]
        client.call("PutRecord", PAYLOAD, inf)
        assert server.closed.wait(30)
        client.call("PutRecord", PAYLOAD, inf)
        assert len(set(server.ports)) == 2


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_certificates_that_can_not_be_read_are_named(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "ca.pem"
    if content:
        path.write_text(content)
    with pytest.raises(AwsConfigError, match=r"^AWS_CA_BUNDLE: "):
        _client("https://127.0.0.1", AWS_CA_BUNDLE=str(path))


def test_plain_http_goes_to_a_proxy_by_its_whole_url(
    server: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", server.url.replace("//", "//me:p4ssword@"))
    variables: Any = {"http_proxy": "see the environment"}
    client = _client("http://firehose.example:8000", **variables)
    client.call("PutRecord", PAYLOAD, inf)
    (sent,) = server.requests
    assert sent.path == "http://firehose.example:8000/"
    assert sent.headers["host"] == "firehose.example:8000"
    assert sent.headers["proxy-authorization"] == "Basic bWU6cDRzc3dvcmQ="
    assert "proxy-authorization" not in sent.headers["authorization"]


class Tunnel:
    """A proxy for CONNECT, to one server; `status` is its answer."""

    def __init__(self, status: str = "200 Connection established") -> None:
        self.status = status
        self.heads: list[bytes] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://me:p4ssword@127.0.0.1:{self.listener.getsockname()[1]}"

    def serve(self, upstream: int) -> None:
        connection, _ = self.listener.accept()
        with connection, socket.create_connection(("127.0.0.1", upstream)) as other:
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += connection.recv(1)
            self.heads.append(head)
            connection.sendall(f"HTTP/1.1 {self.status}\r\n\r\n".encode())
            if not self.status.startswith("200"):
                return
            with ThreadPoolExecutor(2) as pool:
                pool.submit(_pump, connection, other)
                pool.submit(_pump, other, connection)


def _pump(source: socket.socket, target: socket.socket) -> None:
    while data := source.recv(1 << 16):
        target.sendall(data)
    target.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("status", ["200 Connection established", "407 p4ssword please"])
def test_https_goes_through_the_tunnel_of_a_proxy(
    certificate: Path, monkeypatch: pytest.MonkeyPatch, status: str
) -> None:
    tunnel = Tunnel(status)
    monkeypatch.setenv("HTTPS_PROXY", tunnel.url)
    with tunnel.listener, scripted(certificate) as server, ThreadPoolExecutor(1) as pool:
        served = pool.submit(tunnel.serve, server.server_port)
        more = {"AWS_CA_BUNDLE": str(certificate), "HTTPS_PROXY": "see the environment"}
        client = _client(server.url, Limits(30, 30, tries=1), **more)
        if status.startswith("200"):
            assert client.call("PutRecord", PAYLOAD, inf) == {}
            assert len(server.requests) == 1
        else:
            assert "by a proxy, Tunnel connection failed: 407" in _refused(client)
        del client
        served.result(30)
    (head,) = tunnel.heads
    assert head.startswith(f"CONNECT 127.0.0.1:{server.server_port} HTTP/1.".encode())
    assert b"proxy-authorization: Basic bWU6cDRzc3dvcmQ=" in head
