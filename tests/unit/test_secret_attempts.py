"""How often Secrets Manager is tried: a start has ten seconds in all."""

from typing import NoReturn

import pytest

import fakes
from feedrank.aws import client
from feedrank.aws.connections import Connections
from feedrank.aws.errors import UnreachableError
from feedrank.aws.signing import Request
from feedrank.decisions.record_ids import user_hash
from feedrank.errors import SettingsError

SECRET = "the-key"


def test_a_secret_is_tried_twice_whatever_the_environment_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    urls: list[str] = []

    def send(_: Connections, request: Request, *_limits_s: float) -> NoReturn:
        urls.append(f"https://{request.headers['host']}{request.path}")
        raise UnreachableError("Could not connect")

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "7")
    monkeypatch.setattr(Connections, "send", send)
    monkeypatch.setattr(client, "sleep", lambda _: None)
    with pytest.raises(SettingsError, match="RECORD_ID_KEY_SECRET: Could not connect"):
        user_hash(fakes.settings(RECORD_IDS="hashed", RECORD_ID_KEY_SECRET=SECRET))
    assert urls == 2 * ["https://secretsmanager.eu-west-1.amazonaws.com/"]
