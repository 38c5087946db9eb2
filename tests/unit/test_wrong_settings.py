"""Every setting with every kind of wrong value: refused by name, or harmless and accepted."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_origin

import boto3
import pytest

import fakes
from feedops.workspace import EVENTS, FUNCTION
from feedrank.errors import SettingsError
from feedrank.libraries import PATTERNS
from feedrank.settings import Settings

ANY = [
    " ",
    "a\x01b",
    "a\x7fb",
    "a\nb",
    "a\u2028b",
    "\udce9",
    "/\udce9",
    "x" * 5_000,
    "\t/opt/model",
    "/opt/model\n",
]
NO_NUMBERS = [
    *("soon", "nan", "inf", "-inf", "1e309", "-1e309", "1e400", "9" * 400, "9" * 5_000, "-1"),
    *("-0.1", "0x10", "1,5", "1.5.0", "5s", "5 s", "true", "None", "null", "--1", "1e", "1/2"),
    "$(nproc)",
]
NO_WHOLE = ["1.5", "1e3", "2.000001", "0.1", "\u0665.1"]
OF: dict[str, list[str]] = {
    "MODEL_URI": ["s3://", "s3:///", "s3:///prefix/", "s3://b",
                  "s3://b?/p/", "s3://arn:aws:s3:eu-west-1:1:accesspoint:a/p/",
                  "S3://bucket/p/", "s3:/bucket/p/", "s3:bucket",
                  "gs://bucket/p/", "http://bucket/p/", "file:///opt/model", "s3://bucket/p/ ",
                  "models:/shop@production", " s3://bucket/p/", "arn:aws:s3:::bucket/p",
                  "C:\\model", "s3://bucket/p\x01"],
    "MODEL_DIGEST": ["A" * 64, "a" * 63, "a" * 65, "g" * 64, "a" * 64 + "\n", "latest",
                     "sha256:" + "a" * 64],
    "MODEL_ENGINE": ["ONNX", "Onnx", "tensorrt", "onnx "],
    "MODEL_FALLBACK": ["Layer", "LAYER", "true", "s3", "layer "],
    "MODEL_LOAD_SECONDS": ["0", "900.1", "1e300"],
    "MODEL_RETRY_SECONDS": ["0", "301", "1e300"],
    "ENGINE_THREADS": ["65", "1000", "100000", "-2147483649"],
    "REQUEST_TIMEOUT_MS": ["0", "900001", "2s", "2_000_000"],
    "MAX_BODY_BYTES": ["0", "64k", "64KiB", "6291457"],
    "BASE_PATH": ["/", "/prod/", "//prod", "prod", "/..", "/a/..", "/../a", "/.", "/a/./b",
                  "/a b", "/a?b", "/a#b", "/a%20b", "/a%2f", "/\u00e9", "/a\\b", "/" + "a" * 255, "http://a/b"],
    "API_AUTH": ["IAM", "Iam", "apikey", "true"],
    "CONTEXT_CHECK": ["Strict", "lax", "off"],
    "DECISION_STREAM": ["a b", "a/b", "a" * 65, "\u00e9",
                        "arn:aws:firehose:eu-west-1:123456789012:deliverystream/a"],
    "RECORD_ID_KEY_SECRET": ["a b", "\u00e9", "a" * 513, "a:b", "https://a/b", "arn:aws:s3:::a/b",
                             "arn:aws:secretsmanager:eu-west-1:1:secret:a",
                             "arn:aws:secretsmanager:eu-west-1:123456789012:secret:"],
    "TRACING": ["On", "yes", "true", "1"],
    "POWERTOOLS_LOG_LEVEL": ["TRACE", "info", "WARN", "CRITICAL", "10", "OFF"],
    "POWERTOOLS_SERVICE_NAME": ["caf\u00e9", " a", "a ", "a" * 251, "\u65e5\u672c"],
    "POWERTOOLS_METRICS_NAMESPACE": [":a", "caf\u00e9", "a" * 256, "a@b", " a", 'a"b', "a{b}"],
}  # fmt: skip
# Unusual and unambiguous.
ACCEPTED: dict[str, list[str]] = {
    "ENGINE_THREADS": ["+1", " 1 ", "01", "1.0", "64"],
    "REQUEST_TIMEOUT_MS": ["2_000", "900000"],
    "MAX_BODY_BYTES": ["6291456"],
    "MODEL_LOAD_SECONDS": ["1e1", "900"],
    "MODEL_RETRY_SECONDS": ["1e-300", "300"],
    "BASE_PATH": ["/v1.2/~feed_a-b", "/...", "/@v1:b/(c)!$&'*+,;=d"],
    "MODEL_LAYER_DIR": ["/nowhere", "a/../b"],  # read with MODEL_FALLBACK=layer alone
    "POWERTOOLS_SERVICE_NAME": ["Feed: rank/1 {a}"],
    "POWERTOOLS_METRICS_NAMESPACE": ["a b/c:d#e"],
    "MODEL_FALBACK": ["layer"],
    "REQUEST_TIMEOUT_MSEC": ["soon"],
}
EMPTY = {str(f.alias): "" for f in Settings.model_fields.values() if not f.is_required()}
# Together, since each costs a container: the first value of each, the second of each, ...
ACCEPTED_TOGETHER = [
    {name: values[n] for name, values in ACCEPTED.items() if n < len(values)}
    for n in range(max(map(len, ACCEPTED.values())))
]
OF_LIBRARIES: list[tuple[str, str]] = [
    *((name, "\x01 maybe?") for name in PATTERNS),
    ("AWS_REGION", "eu west 1"),
    ("AWS_DEFAULT_REGION", "-eu"),
    ("AWS_ENDPOINT_URL", "localhost:4566"),
    ("AWS_ENDPOINT_URL", "http:///a"),
    ("AWS_ENDPOINT_URL_S3", "s3.amazonaws.com"),
    ("AWS_ENDPOINT_URL_FIREHOSE", "http://a b"),
    ("AWS_REQUEST_CHECKSUM_CALCULATION", "sometimes"),
    ("AWS_RESPONSE_CHECKSUM_VALIDATION", "sometimes"),
    ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "1769MB"),
    ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "0"),
    ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "9" * 5_000),
    ("AWS_XRAY_DAEMON_ADDRESS", "127.0.0.1"),
    ("AWS_XRAY_DAEMON_ADDRESS", "tcp:127.0.0.1:2000"),
]  # fmt: skip
SIMILAR = "{}: no setting has this name; {} is one"
TIMEOUT = "REQUEST_TIMEOUT_MS"
OTHERS = [
    *("MODEL_NAME", "MODEL_PATH", "MODEL_VERSION", "MODEL_DIR", "MODEL_SERVER_WORKERS", "API_KEY"),
    *("API_PATH", "BASE_URL", "REQUEST_ID", "REQUESTS_CA_BUNDLE", "MAX_REQUESTS", "CONTEXT"),
    *("TRACE", "DECISION", "ENGINE", "PATH", "HOME", "POWERTOOLS_LOGGER_LOG_EVENT"),
]
# Libraries read them, and nothing here depends on them.
HARMLESS = {
    "LOG_LEVEL": "TRACE",
    "AWS_LAMBDA_LOG_LEVEL": "TRACE",
    "POWERTOOLS_LOGGER_SAMPLE_RATE": "often",
    "POWERTOOLS_LOGGER_LOG_EVENT": "maybe",
    "POWERTOOLS_METRICS_DISABLED": "maybe",
    "POWERTOOLS_METRICS_FUNCTION_NAME": "\x01",
    "POWERTOOLS_TRACER_CAPTURE_RESPONSE": "maybe",
    "POWERTOOLS_TRACE_MIDDLEWARES": "maybe",
    "POWERTOOLS_IDEMPOTENCY_DISABLED": "maybe",
    "POWERTOOLS_PARAMETERS_MAX_AGE": "soon",
    "AWS_XRAY_SDK_ENABLED": "maybe",
    "AWS_XRAY_CONTEXT_MISSING": "maybe",
    "AWS_XRAY_TRACING_NAME": "\x01",
    "AWS_MAX_ATTEMPTS": "often",
    "AWS_RETRY_MODE": "maybe",
    "AWS_USE_FIPS_ENDPOINT": "maybe",
    "AWS_USE_DUALSTACK_ENDPOINT": "maybe",
    "AWS_CA_BUNDLE": "/nowhere",
    "AWS_CONFIG_FILE": "/nowhere",
    "AWS_LAMBDA_INITIALIZATION_TYPE": "maybe",
    "AWS_EXECUTION_ENV": "maybe",
    "OMP_NUM_THREADS": "many",
    "TZ": "nowhere",
    "_X_AMZN_TRACE_ID": "maybe",
}
ONE_REQUEST = """
import json, sys
import handler
print(handler.lambda_handler(json.load(sys.stdin), None)["statusCode"])
"""


def _refused() -> Iterator[tuple[str, str]]:
    for field in Settings.model_fields.values():
        name, kind = str(field.alias), field.annotation
        values = ANY + OF.get(name, [])
        if kind in {int, float}:
            values = [*values, *NO_NUMBERS, *(NO_WHOLE if kind is int else [])]
        elif get_origin(kind) is Literal:
            values = [*values, "", "true false", "None"]
        for value in dict.fromkeys(values):
            if value and value not in ACCEPTED.get(name, ()):
                yield name, value
    yield from OF_LIBRARIES


REFUSED = list(_refused())


def _label(case: tuple[str, str]) -> str:
    return f"{case[0]}={ascii(case[1])[:40]}"


def _read(**variables: str) -> Settings:
    settings = Settings.from_environment({"MODEL_URI": "/opt/model", **variables})
    settings.check_places()
    return settings


def test_the_cases_cover_every_variable() -> None:
    assert len(REFUSED) >= 173
    names = {name for name, _ in REFUSED}
    assert names >= {str(field.alias) for field in Settings.model_fields.values()}
    assert names >= PATTERNS.keys()


@pytest.mark.parametrize("case", REFUSED, ids=_label)
def test_a_wrong_value_is_refused_and_its_variable_named(case: tuple[str, str]) -> None:
    name, value = case
    with pytest.raises(SettingsError) as error:
        _read(**{name: value})
    first, line = str(error.value).split("\n")
    assert first == "wrong environment variables:"
    assert line.startswith(f"  {name}")  # or RECORD_ID_KEY_SECRET, for what goes with RECORD_ID_KEY
    assert ": " in line
    assert len(line) < 500
    assert len(value) < 12 or value not in line


@pytest.mark.parametrize("variables", [EMPTY, *ACCEPTED_TOGETHER])
def test_an_unusual_value_is_accepted(demo_bundle: Path, variables: dict[str, str]) -> None:
    event = json.loads((EVENTS / "predict.json").read_bytes())
    path = f"{variables.get('BASE_PATH', '')}/predict"
    event["requestContext"]["http"]["path"] = event["rawPath"] = path
    with fakes.container(MODEL_URI=str(demo_bundle), **variables) as module:
        assert module.lambda_handler(event, None)["statusCode"] == 200


def _in_a_process(**variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", ONE_REQUEST],
        input=(EVENTS / "predict.json").read_text(),
        env={"PATH": os.defpath, "PYTHONPATH": str(FUNCTION), **variables},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_no_library_reads_a_wrong_value_before_the_settings_do(tmp_path: Path) -> None:
    """All at once, in a process of its own: a library's error would name none of them."""
    wrong = {name: values[0] for name, values in OF.items()} | dict(OF_LIBRARIES)
    process = _in_a_process(**wrong)
    names = {line.partition(":")[0].strip() for line in process.stderr.splitlines()}
    assert process.returncode == 1
    assert wrong.keys() - names == set()


def test_wrong_values_that_nothing_depends_on_do_no_harm(demo_bundle: Path) -> None:
    traced = {"TRACING": "on", "LAMBDA_TASK_ROOT": "/var/task"}
    empty = dict.fromkeys(PATTERNS, "")
    process = _in_a_process(MODEL_URI=str(demo_bundle), **traced, **HARMLESS, **empty)
    assert (process.returncode, process.stdout.splitlines()[-1:]) == (0, ["200"]), process.stderr[
        -2_000:
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MODEL_URI", "s3://MyBucket/p/"),  # older than the rules for names, or MinIO's
        ("MODEL_URI", "s3://my_bucket.v1/p/"),
        ("MODEL_URI", "s3://arn:aws:s3:eu-west-1:123456789012:accesspoint:feed/p/"),
        ("AWS_REQUEST_CHECKSUM_CALCULATION", "WHEN_SUPPORTED"),
        ("AWS_RESPONSE_CHECKSUM_VALIDATION", "WHEN_REQUIRED"),
        ("AWS_DEFAULTS_MODE", "Standard"),
        ("AWS_ACCOUNT_ID_ENDPOINT_MODE", "PREFERRED"),
        ("AWS_METADATA_SERVICE_NUM_ATTEMPTS", "0"),
        ("AWS_ENDPOINT_URL", "HTTP://localhost:4566"),
        ("AWS_ENDPOINT_URL", "http://user:secret@localhost:4566/a"),
    ],
)
def test_a_value_that_boto3_accepts_is_accepted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, value: str
) -> None:
    uri = value if name == "MODEL_URI" else "s3://bucket/p/"
    _read(**{"MODEL_CACHE_DIR": str(tmp_path), "MODEL_URI": uri, name: value})
    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(key, "testing")
    monkeypatch.setenv(name, value)
    s3 = boto3.Session(region_name="eu-west-1").client("s3")
    bucket = uri.removeprefix("s3://").partition("/")[0]
    s3.generate_presigned_url("get_object", {"Bucket": bucket, "Key": "p"})


# ---- Directories, packages, combinations ---------------------------------------------------------


def test_a_directory_that_can_not_be_written_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for path in (file, file / "below", Path("/proc/nowhere"), Path("/dev/null")):
        for name, more in (
            ("DECISION_LOG_DIR", {}),
            ("MODEL_CACHE_DIR", {"MODEL_URI": "s3://bucket/p/"}),
        ):
            with pytest.raises(SettingsError, match=f"^wrong .*\n  {name}: must be a directory"):
                _read(**{name: str(path)}, **more)


def test_a_missing_directory_is_made(tmp_path: Path) -> None:
    logs, cache = tmp_path / "a" / "logs", tmp_path / "b" / "cache"
    _read(MODEL_URI="s3://bucket/p/", DECISION_LOG_DIR=str(logs), MODEL_CACHE_DIR=str(cache))
    assert logs.is_dir()
    assert cache.stat().st_mode & 0o777 == 0o700


def test_with_a_fallback_the_cache_need_not_be_writable(tmp_path: Path) -> None:
    _read(
        MODEL_URI="s3://bucket/p/",
        MODEL_CACHE_DIR="/dev/null",
        MODEL_FALLBACK="layer",
        MODEL_LAYER_DIR=str(tmp_path),
    )


def test_a_fallback_needs_its_directory(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere", Path("/dev/null")):
        with pytest.raises(SettingsError, match="MODEL_FALLBACK: layer needs a directory"):
            _read(MODEL_FALLBACK="layer", MODEL_LAYER_DIR=str(path))
    _read(MODEL_FALLBACK="layer", MODEL_LAYER_DIR=str(tmp_path))


@pytest.mark.parametrize(
    ("name", "value", "package"),
    [("MODEL_ENGINE", "torch", "torch"), ("TRACING", "on", "aws_xray_sdk")],
)
def test_a_setting_whose_package_is_missing_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, package: str
) -> None:
    monkeypatch.setattr("feedrank.settings.find_spec", lambda name: name != package or None)
    with pytest.raises(SettingsError, match=f"{name}: .*not installed"):
        _read(**{name: value})


@pytest.mark.parametrize(
    ("variables", "doubts"),
    [
        ({"MODEL_FALBACK": "layer"}, [SIMILAR.format("MODEL_FALBACK", "MODEL_FALLBACK")]),
        ({"REQUEST_TIMEOUT_MSEC": "5"}, [SIMILAR.format("REQUEST_TIMEOUT_MSEC", TIMEOUT)]),
        ({"REQUEST_TIMEOUT": "5"}, [SIMILAR.format("REQUEST_TIMEOUT", TIMEOUT)]),
        ({"MODEL_URL": "5"}, [SIMILAR.format("MODEL_URL", "MODEL_URI")]),
        ({"DECISION_LOGDIR": "5"}, [SIMILAR.format("DECISION_LOGDIR", "DECISION_LOG_DIR")]),
        # other programs' variables
        ({**HARMLESS, **dict.fromkeys(PATTERNS, "")}, []),
        (dict.fromkeys(OTHERS, "5"), []),
        # Lambda's limit on init
        ({"MODEL_LOAD_SECONDS": "9", "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand"},
         ["MODEL_LOAD_SECONDS: Lambda ends an init after 10 s, and begins it again"]),
        ({"MODEL_LOAD_SECONDS": "8", "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand"}, []),
        ({"MODEL_LOAD_SECONDS": "60", "AWS_LAMBDA_INITIALIZATION_TYPE": "snap-start"}, []),
        ({"MODEL_LOAD_SECONDS": "60"}, []),
    ],
)  # fmt: skip
def test_settings_that_are_rarely_intended_are_named(
    variables: dict[str, str], doubts: list[str]
) -> None:
    environment = {"MODEL_URI": "/opt/model", **variables}
    own = {k: v for k, v in environment.items() if k not in PATTERNS}
    assert Settings.from_environment(own).doubts(environment) == doubts
