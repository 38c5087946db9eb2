"""The options of `feedrank serve` and `feedrank run`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from typing import Literal

from feedmodel.demo.options import NetworkName
from feedops.local.processes import LOCALHOST
from feedops.workspace import LOGS

FrontName = Literal["lambda", "uvicorn"]
StoreName = Literal["dynamodb"]


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """`variables` are environment variables for the function; they win over those that serve sets.
    A `bundle` needs no MLflow. `features` names the store that rows are read from, in place of the
    snapshot. `front` None means lambda, or uvicorn where no emulator runs."""

    model: str | None = None
    bundle: Path | None = None
    tracking_uri: str | None = None
    network: NetworkName | None = None
    train: bool = False
    publish: bool = False
    front: FrontName | None = None
    host: str = LOCALHOST
    port: int = 8_000
    concurrency: int = 2
    memory_mb: int = 1_769
    timeout_s: int = 10
    show_answer: bool = False
    features: StoreName | None = None
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def near_host(self) -> str:
        """The address by which this machine reaches the server, even if it listens on all."""
        try:
            address = ip_address(self.host)
        except ValueError:  # a name
            return self.host
        if not address.is_unspecified:
            return self.host
        return LOCALHOST if isinstance(address, IPv4Address) else "::1"

    @property
    def url(self) -> str:
        host = self.near_host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def logs(self) -> Path:
        """By port, because two servers on one machine have different ports."""
        return LOGS / f"port-{self.port}"
