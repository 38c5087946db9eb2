"""Hashed user ids: OpenSSL's hash, no plain id in any line, no key anywhere."""

import json
import subprocess
from pathlib import Path
from typing import Any

import boto3
import pytest

import fakes
from feedrank.decisions.log import DecisionLog
from feedrank.decisions.record_ids import UserHash, user_hash
from feedrank.errors import SettingsError

KEY = "0123456789abcdef0123456789ABCDEF"
OTHER = "f" * 32
USER = 7_046_029_254_386_353_131
SECRET = "feedrank/record-ids"


def _openssl_hash(key: str, text: str) -> str:
    process = subprocess.run(
        ["openssl", "dgst", "-sha256", "-hmac", key],
        input=text.encode(),
        capture_output=True,
        check=True,
    )
    return process.stdout.decode().split()[-1][:32]


@pytest.mark.parametrize("user_id", [0, 1, USER, 2**63 - 1])
def test_a_hash_is_half_of_the_one_that_the_openssl_command_prints(user_id: int) -> None:
    hashed = UserHash(KEY)
    assert [hashed(user_id), hashed(user_id)] == 2 * [_openssl_hash(KEY, str(user_id))]


def test_another_key_gives_another_hash_and_a_newline_after_a_key_does_not() -> None:
    assert UserHash(KEY)(1) != UserHash(OTHER)(1)
    assert UserHash(KEY)(1) == UserHash(KEY + "\n")(1)


def test_a_record_has_the_hash_in_place_of_the_id(capsys: pytest.CaptureFixture[str]) -> None:
    sink = fakes.MemorySink()
    ranking = fakes.ranking(query=fakes.query(USER))
    fakes.record(DecisionLog([sink], UserHash(KEY)), ranking)
    ((line, _),) = sink.lines
    assert line.decode() == capsys.readouterr().out
    plain = fakes.recorded(ranking)
    assert json.loads(line) == plain | {"user_id": None, "user_hash": _openssl_hash(KEY, str(USER))}


def _serve_two(bundle: Path, **env: str) -> None:
    """Two requests to the handler itself."""
    event = json.loads((fakes.HANDLER.parents[1] / "events/predict.json").read_text())
    event["body"] = json.dumps({"user_id": USER, "item_ids": [1, 2, 3]})
    with fakes.container(MODEL_URI=str(bundle), **env) as module:
        for _ in range(2):
            response = module.lambda_handler(event, fakes.LambdaContext())
            assert (response["statusCode"], json.loads(response["body"])["user_id"]) == (200, USER)


def test_no_line_of_a_container_has_the_users_id(
    demo_bundle: Path, capfd: pytest.CaptureFixture[str], log: fakes.LogLines
) -> None:
    _serve_two(demo_bundle, RECORD_IDS="hashed", RECORD_ID_KEY=KEY)
    printed = capfd.readouterr().out
    records = [json.loads(line) for line in printed.splitlines() if '"decision"' in line]
    assert [record["user_hash"] for record in records] == 2 * [_openssl_hash(KEY, str(USER))]
    for text in (str(USER), KEY):
        assert text not in printed
        assert text not in str(log())


# ---- The key -------------------------------------------------------------------------------------


@pytest.fixture
def secrets(aws_server: str) -> Any:
    return boto3.client("secretsmanager", region_name="eu-west-1")


def test_the_key_is_the_named_secret(secrets: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    arn = secrets.create_secret(Name=SECRET, SecretString=f" {KEY}\n")["ARN"]
    by_arn = user_hash(fakes.settings(RECORD_IDS="hashed", RECORD_ID_KEY_SECRET=arn))
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    by_name = user_hash(fakes.settings(RECORD_IDS="hashed", RECORD_ID_KEY_SECRET=SECRET))
    by_key = user_hash(fakes.settings(RECORD_IDS="hashed", RECORD_ID_KEY=KEY))
    assert by_arn
    assert by_name
    assert by_key
    assert by_arn(1) == by_name(1) == by_key(1)


@pytest.mark.parametrize(
    ("secret", "reason"),
    [
        ({"SecretString": "short"}, "at least 32 characters"),
        ({"SecretBinary": b"0" * 64}, "at least 32 characters"),
        (None, "ResourceNotFoundException"),
    ],
)
def test_an_invalid_secret_fails_init_and_is_named(
    secret: dict[str, Any] | None, reason: str, secrets: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    if secret:
        secrets.create_secret(Name=SECRET, **secret)
    with (
        pytest.raises(SettingsError, match=f"RECORD_ID_KEY_SECRET: .*{reason}") as error,
        fakes.container(MODEL_URI="/nowhere", RECORD_IDS="hashed", RECORD_ID_KEY_SECRET=SECRET),
    ):
        pass
    assert "short" not in str(error.value)


def test_an_unreachable_secrets_manager_fails_init_and_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("feedrank.aws.secrets.MAX_TRIES", 1)
    with pytest.raises(SettingsError, match="RECORD_ID_KEY_SECRET: Could not connect"):
        user_hash(fakes.settings(RECORD_IDS="hashed", RECORD_ID_KEY_SECRET=SECRET))


@pytest.mark.parametrize(
    ("variables", "name"),
    [
        ({"RECORD_IDS": "hashed"}, "RECORD_ID_KEY_SECRET"),
        ({"RECORD_IDS": "hashed", "RECORD_ID_KEY": "short-secret"}, "RECORD_ID_KEY"),
        ({"RECORD_IDS": "hashed", "RECORD_ID_KEY": " " * 31 + "x"}, "RECORD_ID_KEY"),
        (
            {"RECORD_IDS": "hashed", "RECORD_ID_KEY": KEY, "RECORD_ID_KEY_SECRET": SECRET},
            "RECORD_ID_KEY_SECRET",
        ),
        ({"RECORD_ID_KEY": KEY}, "RECORD_ID_KEY_SECRET"),
        ({"RECORD_ID_KEY_SECRET": SECRET}, "RECORD_ID_KEY_SECRET"),
        ({"RECORD_IDS": "sha1"}, "RECORD_IDS"),
    ],
)
def test_inconsistent_settings_are_refused_by_name(variables: dict[str, str], name: str) -> None:
    with pytest.raises(SettingsError) as error:
        fakes.settings(**variables)
    lines = str(error.value).splitlines()[1:]
    assert [line.split(":")[0].strip() for line in lines] == [name]
    assert not any(value in str(error.value) for value in (KEY, "short-secret"))


def test_settings_never_show_the_key() -> None:
    settings = fakes.settings(RECORD_IDS="hashed", RECORD_ID_KEY=KEY)
    texts = f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"
    assert KEY not in texts
