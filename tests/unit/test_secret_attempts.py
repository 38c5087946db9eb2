"""How often Secrets Manager is tried: a start has ten seconds in all."""

from typing import Any, NoReturn

import botocore.endpoint
import pytest
from botocore.exceptions import EndpointConnectionError
from botocore.httpsession import URLLib3Session

import fakes
from feedrank.decisions.record_ids import user_hash
from feedrank.errors import SettingsError

SECRET = "the-key"


def test_a_secret_is_tried_twice_whatever_the_environment_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    urls: list[str] = []

    def send(_: Any, request: Any) -> NoReturn:
        urls.append(request.url)
        raise EndpointConnectionError(endpoint_url=request.url)

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "7")
    monkeypatch.setattr(URLLib3Session, "send", send)
    monkeypatch.setattr(botocore.endpoint.time, "sleep", lambda _: None)
    with pytest.raises(SettingsError, match="RECORD_ID_KEY_SECRET: Could not connect"):
        user_hash(fakes.settings(RECORD_IDS="hashed", RECORD_ID_KEY_SECRET=SECRET))
    assert urls == 2 * ["https://secretsmanager.eu-west-1.amazonaws.com/"]
