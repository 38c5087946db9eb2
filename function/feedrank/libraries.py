"""Variables that Lambda sets, and that libraries read by themselves.

A value that a library can't read ends an init, or a load, with that library's words for it and
without the variable's name. Left out are those whose wrong values do no harm.
"""

import re
from collections.abc import Mapping

FLAG = ("(?i:1|y|yes|t|true|on|0|n|no|f|false|off)", "true or false")
COUNT = (r"[1-9]\d{0,5}", "a whole number from 1 on")
REGION = ("([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)?", "a region, such as eu-west-1")
_HOST = r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?"
URL = (rf"(?i:https?)://([!-.0-?A-~]+@)?{_HOST}(/[!-~]*)?", "a URL, such as https://host:443")
CHECKSUM = ("(?i:when_supported|when_required)", "when_supported or when_required")
_DAEMON = r"[!-9;-~]+:\d{1,5}"
# By name: the whole value as a regular expression, and what a message says of it.
PATTERNS: dict[str, tuple[str, str]] = {
    # Powertools, some of them when it is imported
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
    # ourselves
    "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": COUNT,
    # botocore, when a client is made
    "AWS_REGION": REGION,
    "AWS_DEFAULT_REGION": REGION,
    "AWS_ENDPOINT_URL": URL,
    "AWS_ENDPOINT_URL_S3": URL,
    "AWS_ENDPOINT_URL_FIREHOSE": URL,
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
    """Those that are set and empty, as templates pass what has no value: for the caller to unset,
    since the libraries take nothing for a wrong value."""
    return [name for name in PATTERNS if environment.get(name) == ""]


def refused(environment: Mapping[str, str]) -> list[str]:
    """A line for each that is wrong, which repeats no value."""
    return [
        f"{name}: must be {allowed}"
        for name, (pattern, allowed) in PATTERNS.items()
        if environment.get(name) and not re.fullmatch(pattern, environment[name])
    ]
