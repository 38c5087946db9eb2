"""What of the account has to be raised, and what the deployed stack has to allow."""

from dataclasses import dataclass
from math import ceil, sqrt

from feedops.plan import prices
from feedops.plan.prices import assumption
from feedops.plan.ways import Way
from feedops.plan.workload import Workload

HEADROOM = 1.2
SPREADS = 4.0  # of a Poisson number, that all but 3 seconds of a day stay below
KIB_IN_MIB = 1_024.0


@dataclass(frozen=True, slots=True)
class Need:
    """`quota` is the default of an account."""

    what: str
    code: str
    quota: float
    need: float

    @property
    def is_short(self) -> bool:
        return self.need > self.quota


def peak_second(rate_per_s: float) -> float:
    """Requests in the fullest second of a Poisson stream."""
    return rate_per_s + SPREADS * sqrt(rate_per_s)


def throttle_rate(workload: Workload) -> int:
    """For the API and for the account: the fullest second, and a fifth more."""
    return ceil(HEADROOM * peak_second(workload.traffic.peak_per_s))


def needs(workload: Workload, way: Way) -> list[Need]:
    """Of Lambda in this way, and of everything around it."""
    return [
        _need("lambda_concurrency", concurrency(workload, way)),
        _need("lambda_scaling", ceil(way.most_starts_in_10_s)),
        _need("api_requests", throttle_rate(workload)),
        _firehose(workload),
        *_dynamodb(workload),
    ]


def concurrency(workload: Workload, way: Way) -> int:
    """The environments of the busiest moment, or a tenth of the requests/s, which Lambda limits as
    well; and what has to stay unreserved where some are kept ready."""
    requests_per_s = HEADROOM * peak_second(workload.traffic.peak_per_s)
    by_rate = requests_per_s / prices.quota("lambda_requests_per_environment")
    reserved = way.parameters.get("WarmStart") == "provisioned"
    unreserved = prices.quota("lambda_unreserved") if reserved else 0.0
    return ceil(max(by_rate, HEADROOM * way.capacity) + unreserved)


def _firehose(workload: Workload) -> Need:
    """By the log, CloudWatch sends compressed batches; the function itself a record a request."""
    rate_per_s = workload.traffic.peak_per_s
    if workload.delivery == "direct":
        return _need("firehose_requests", ceil(peak_second(rate_per_s)))
    kb_per_s = rate_per_s * assumption("record_kb") * assumption("log_compression")
    return _need("firehose_mib", round(kb_per_s * 1_000.0 / 1_024.0 / KIB_IN_MIB, 1))


def _dynamodb(workload: Workload) -> list[Need]:
    reads_per_s = workload.reads * workload.traffic.peak_per_s
    return [_need("dynamodb_table_reads", ceil(reads_per_s))] if reads_per_s else []


def _need(name: str, need: float) -> Need:
    entry = prices.DATA["quota"][name]
    return Need(entry["what"], entry.get("code", ""), entry["value"], need)
