"""A server in front of another one, which lets in whoever API Gateway would let in, after the
refusals that it was given."""

import hashlib
import hmac
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import NamedTuple

import urllib3

KEY, SECRET, TOKEN = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "a/session+token=="
REGION, SERVICE = "eu-west-1", "execute-api"
JWT = "header.payload.signature"
SIGNED = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<key>\w+)/(?P<scope>[\w/-]+), ?"
    r"SignedHeaders=(?P<names>[\w;-]+), ?Signature=(?P<signature>[0-9a-f]{64})"
)
MAX_SKEW = timedelta(minutes=5)


class Refusal(NamedTuple):
    """Status 0 closes the connection instead."""

    status: int
    retry_after: str | None = None


class Guard(NamedTuple):
    url: str
    statuses: list[int]  # of the responses so far


@contextmanager
def guard(server: str, auth: str, *refusals: Refusal) -> Iterator[Guard]:
    left, statuses = list(refusals), list[int]()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            if not ADMITS[auth](self.path, headers, body):
                self._respond(403, b'{"message":"Forbidden"}')
            elif not left:
                sent = {"content-type": headers["content-type"]}
                reply = urllib3.request("POST", server + self.path, body=body, headers=sent)
                self._respond(reply.status, reply.data)
            elif (refusal := left.pop(0)).status:
                self._respond(refusal.status, b"{}", refusal.retry_after)
            else:
                statuses.append(0)
                self.close_connection = True

        def _respond(self, status: int, body: bytes, retry_after: str | None = None) -> None:
            statuses.append(status)
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            if retry_after:
                self.send_header("retry-after", retry_after)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            pass

    front = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    front.daemon_threads = True
    thread = Thread(target=front.serve_forever, daemon=True)
    thread.start()
    try:
        yield Guard(f"http://127.0.0.1:{front.server_port}", statuses)
    finally:
        front.shutdown()
        thread.join()
        front.server_close()


def is_signed(path: str, headers: dict[str, str], body: bytes) -> bool:
    """Whether AWS would recompute this signature.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
    """
    signed = SIGNED.fullmatch(headers.get("authorization", ""))
    date = headers.get("x-amz-date", "")
    scope = [date[:8], REGION, SERVICE, "aws4_request"]
    if not signed or signed["key"] != KEY or signed["scope"] != "/".join(scope):
        return False
    time = datetime.strptime(date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    names = signed["names"].split(";")
    if abs(datetime.now(UTC) - time) > MAX_SKEW or names != sorted(names):
        return False
    if not {"host", "x-amz-date"} <= set(names) or headers.get("x-amz-security-token") != TOKEN:
        return False
    head = "".join(f"{name}:{' '.join(headers[name].split())}\n" for name in names)
    hashed = hashlib.sha256(body).hexdigest()
    canonical = "\n".join(["POST", path, "", head, ";".join(names), hashed])
    to_sign = ["AWS4-HMAC-SHA256", date, "/".join(scope)]
    to_sign.append(hashlib.sha256(canonical.encode()).hexdigest())
    key = f"AWS4{SECRET}".encode()
    for part in [*scope, "\n".join(to_sign)]:
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.compare_digest(key.hex(), signed["signature"])


ADMITS = {
    "none": lambda _path, headers, _body: "authorization" not in headers,
    "jwt": lambda _path, headers, _body: headers.get("authorization") == f"Bearer {JWT}",
    "iam": is_signed,
}
