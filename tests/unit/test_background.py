"""Servers in processes of their own are waited for until they answer."""

import os
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest

from feedops.errors import StartError
from feedops.local import background
from feedops.local.processes import LOCALHOST, free_port

HANGS_ONCE = """
import sys, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
requests = []
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        requests.append(self.path)
        if len(requests) == 1:
            threading.Event().wait()
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
ENVIRON = {"PATH": os.defpath}


def test_a_server_that_never_answers_its_first_request_is_sent_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "RESPONSE_TIMEOUT_S", 0.5)
    port = free_port()
    command, url = [sys.executable, "-c", HANGS_ONCE, str(port)], f"http://{LOCALHOST}:{port}/"

    with background.running(command, tmp_path / "server.log", ENVIRON, url):
        assert urlopen(url).status == 200


def test_a_server_that_ends_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('no model')"]
    url = f"http://{LOCALHOST}:{free_port()}/"

    with (
        pytest.raises(StartError, match="no model"),
        background.running(command, tmp_path / "server.log", ENVIRON, url),
    ):
        pass
