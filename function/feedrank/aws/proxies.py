"""The proxy that HTTPS_PROXY, HTTP_PROXY and NO_PROXY name, by the standard library's rules."""

from base64 import b64encode
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from feedrank.aws.endpoints import Endpoint
from feedrank.aws.errors import AwsConfigError


class Proxy(NamedTuple):
    host: str
    port: int
    headers: Mapping[str, str]  # with its user and password


def proxy_for(endpoint: Endpoint, variables: Mapping[str, str]) -> Proxy | None:
    """None without one. Raises AwsConfigError."""
    if not any(name.lower().endswith("_proxy") for name in variables):
        return None
    from urllib.request import getproxies, proxy_bypass

    url = getproxies().get(endpoint.scheme, "")
    if not url or proxy_bypass(endpoint.authority):
        return None
    return _parsed(url, f"{endpoint.scheme.upper()}_PROXY")


def _parsed(url: str, name: str) -> Proxy:
    parts = urlsplit(url if "://" in url else f"http://{url}")
    try:
        port = parts.port
    except ValueError as error:
        raise AwsConfigError(f"{name}: its port must be at most 65535") from error
    if parts.scheme.lower() != "http" or not parts.hostname:
        raise AwsConfigError(f"{name}: must be a proxy that is reached by HTTP: http://host:port")
    if parts.username is None:
        return Proxy(parts.hostname, port or 80, {})
    user = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
    authorization = f"Basic {b64encode(user).decode()}"
    return Proxy(parts.hostname, port or 80, {"proxy-authorization": authorization})
