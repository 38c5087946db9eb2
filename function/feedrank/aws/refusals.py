"""What a response that is an error means, from its status, headers and body.

Of the body only AWS's own code, the name of a right and the name of a region get into a message.
"""

import re
from collections.abc import Callable

from feedrank.aws.errors import ServiceError

CLOCK_CODES = frozenset(
    {
        "InvalidSignatureException",
        "RequestExpired",
        "RequestInTheFuture",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
    }
)
KEY_CODES = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignature",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidToken",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "TokenRefreshRequired",
        "UnrecognizedClientException",
    }
)
REGION_CODES = frozenset(
    {
        "301",
        "307",
        "AuthorizationHeaderMalformed",
        "IllegalLocationConstraintException",
        "PermanentRedirect",
        "TemporaryRedirect",
    }
)
DENIED = frozenset({"AccessDenied", "AccessDeniedException", "AllAccessDisabled"})
_CODE = re.compile(rb"<Code>([\w.]{1,64})</Code>|"
                   rb'"(?:__type|code)"\s*:\s*"(?:[^"#]{0,255}#)?([\w.]{1,64})[":]')  # fmt: skip
_RIGHT = re.compile(rb"not authorized to perform: ([a-z0-9-]{1,40}:[A-Za-z]{1,80})")
_REGION = re.compile(rb"<Region>([a-z0-9-]{1,40})</Region>")
_HEADER_REGION = re.compile(r"[a-z0-9-]{1,40}")


def refusal(status: int, header: Callable[[str], str], body: bytes, action: str) -> ServiceError:
    """`action` is the right that the request needs."""
    code = _code(status, header("x-amzn-errortype"), body)
    region = _region(header("x-amz-bucket-region"), body) if code in REGION_CODES else ""
    if right := _RIGHT.search(body):
        action = right[1].decode()
    error = ServiceError(status, code, _hint(code, action, region))
    error.region = region
    error.date = header("date")
    return error


def _code(status: int, error_type: str, body: bytes) -> str:
    """AWS's name for it, or the status where a proxy responds in place of AWS."""
    if name := re.match(r"[\w.]{1,64}", error_type.rpartition("#")[2]):
        return name[0]
    if match := _CODE.search(body):
        return (match[1] or match[2]).decode()
    return str(status)


def _region(from_header: str, body: bytes) -> str:
    if _HEADER_REGION.fullmatch(from_header):
        return from_header
    match = _REGION.search(body)
    return match[1].decode() if match else ""


def _hint(code: str, action: str, region: str) -> str:
    if code in DENIED:
        return f"the role may not {action} here"
    if code in KEY_CODES:
        return "the credentials are not valid, or no longer"
    if code in CLOCK_CODES:
        return "the secret key is wrong, or this machine's clock"
    if region:
        return f"the bucket is in {region}"
    return ""
