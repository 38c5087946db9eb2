"""How much of everything, and where a run keeps its things."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from feedbench.target import Target


@dataclass(frozen=True, slots=True)
class Effort:
    """`quick` shows whether things work and about where they are; `full` is for the record."""

    name: str
    cold_rounds: int
    torch_cold_rounds: int
    stage_rounds: int
    warm_rounds: int
    warm_calls: int  # a round, of each contestant
    engine_rounds: int
    engine_s: float  # a round
    server_rounds: int
    server_s: float  # a round
    front_s: float
    memory_requests: int
    leak_requests: int


FULL = Effort(
    "full",
    cold_rounds=25,
    torch_cold_rounds=7,
    stage_rounds=9,
    warm_rounds=120,
    warm_calls=40,
    engine_rounds=15,
    engine_s=0.5,
    server_rounds=10,
    server_s=2.0,
    front_s=60.0,
    memory_requests=100_000,
    leak_requests=20_000,
)
QUICK = Effort(
    "quick",
    cold_rounds=7,
    torch_cold_rounds=3,
    stage_rounds=3,
    warm_rounds=40,
    warm_calls=25,
    engine_rounds=6,
    engine_s=0.2,
    server_rounds=2,
    server_s=1.0,
    front_s=10.0,
    memory_requests=20_000,
    leak_requests=10_000,
)


@dataclass(frozen=True, slots=True)
class Plan:
    """`target` is what is deployed, `development` the checkout: torch is only there."""

    target: Target
    development: Target
    rivals: Path | None  # the Python that has them
    bundle: Path
    effort: Effort
    scratch: Path
    say: Callable[[str], None]

    @property
    def variables(self) -> dict[str, str]:
        return {"MODEL_URI": str(self.bundle)}
