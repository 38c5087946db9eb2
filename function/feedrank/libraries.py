"""Environment variables that libraries read by themselves, and what each may hold.

A library that can't parse one fails an init or a load with an error that doesn't name the variable.
Variables whose wrong values do no harm are not listed.
"""

import re
from collections.abc import Mapping

FLAG = ("(?i:1|y|yes|t|true|on|0|n|no|f|false|off)", "true or false")
COUNT = (r"[1-9]\d{0,5}", "a whole number of at least 1")
REGION = ("([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)?", "a region, such as eu-west-1")
_HOST = r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?"
URL = (rf"(?i:https?)://([!-.0-?A-~]+@)?{_HOST}(/[!-~]*)?", "a URL, such as https://host:443")
CHECKSUM = ("(?i:when_supported|when_required)", "when_supported or when_required")
_DAEMON = r"[!-9;-~]+:\d{1,5}"
# By name: a regular expression for the whole value, and its description in messages.
PATTERNS: dict[str, tuple[str, str]] = {
    # Powertools, some of them at import
    "POWERTOOLS_DEV": FLAG,
    "POWERTOOLS_DEBUG": FLAG,
    "POWERTOOLS_LOG_DEDUPLICATION_DISABLED": FLAG,
    "POWERTOOLS_TRACE_DISABLED": FLAG,
    "POWERTOOLS_TRACER_CAPTURE_ERROR": FLAG,
    # X-Ray's SDK
    "AWS_XRAY_DAEMON_ADDRESS": (
        rf"{_DAEMON}|tcp:{_DAEMON} udp:{_DAEMON}|udp:{_DAEMON} tcp:{_DAEMON}",
        "host:port, or tcp:host:port udp:host:port",
    ),
    # this package
    "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": COUNT,
    # feedrank.aws, and botocore where credentials come from a profile
    "AWS_REGION": REGION,
    "AWS_DEFAULT_REGION": REGION,
    "AWS_ENDPOINT_URL": URL,
    "AWS_ENDPOINT_URL_S3": URL,
    "AWS_ENDPOINT_URL_FIREHOSE": URL,
    "AWS_ENDPOINT_URL_DYNAMODB": URL,
    "AWS_ENDPOINT_URL_SECRETS_MANAGER": URL,
    "AWS_EC2_METADATA_SERVICE_ENDPOINT": URL,
    "AWS_METADATA_SERVICE_TIMEOUT": COUNT,
    "AWS_METADATA_SERVICE_NUM_ATTEMPTS": (r"\d{1,6}", "a whole number"),
    "AWS_DEFAULTS_MODE": (
        "(?i:legacy|auto|standard|in-region|cross-region|mobile)",
        "legacy, auto, standard, in-region, cross-region or mobile",
    ),
    "AWS_STS_REGIONAL_ENDPOINTS": ("legacy|regional", "legacy or regional"),
    "AWS_REQUEST_CHECKSUM_CALCULATION": CHECKSUM,
    "AWS_RESPONSE_CHECKSUM_VALIDATION": CHECKSUM,
    "AWS_ACCOUNT_ID_ENDPOINT_MODE": (
        "(?i:preferred|disabled|required)",
        "preferred, disabled or required",
    ),
    "AWS_REQUEST_MIN_COMPRESSION_SIZE_BYTES": (r"\d{1,8}", "a number of bytes"),
}


def empty(environment: Mapping[str, str]) -> list[str]:
    """Variables that are set to an empty text, as templates set parameters without a value. The
    caller has to unset them: libraries refuse an empty value."""
    return [name for name in PATTERNS if environment.get(name) == ""]


def refused(environment: Mapping[str, str]) -> list[str]:
    """A message for each variable that is wrong; none repeats a value."""
    return [
        f"{name}: must be {allowed}"
        for name, (pattern, allowed) in PATTERNS.items()
        if environment.get(name) and not re.fullmatch(pattern, environment[name])
    ]
