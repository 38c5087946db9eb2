"""What a plan is made for."""

from dataclasses import dataclass
from typing import Literal

from feedops.plan.measured import Measured
from feedops.plan.traffic import Traffic

Delivery = Literal["logs", "direct"]


@dataclass(frozen=True, slots=True)
class Workload:
    """`concurrency`: the account's quota; 0 for one that is raised as far as needed. `reads`:
    DynamoDB read units of a request, 0 with the snapshot in the bundle."""

    traffic: Traffic
    measured: Measured
    keep_alive_s: float
    target_p99_ms: float
    concurrency: int = 0
    delivery: Delivery = "logs"
    reads: float = 0.0
    gpu_per_s: float = 0.0  # requests/s of one GPU instance; 0: as many as its CPUs alone serve

    @property
    def per_day(self) -> float:
        """How many times the traffic fits a day."""
        return 86_400.0 / self.traffic.duration_s

    @property
    def memory_gb(self) -> float:
        return self.measured.memory_mb / 1_024.0
