"""A month's bill, line by line, in USD."""

from collections.abc import Mapping

from feedops.plan import prices
from feedops.plan.prices import DAYS, HOURS, assumption, usd
from feedops.plan.workload import Workload

KB_IN_GB = 1e6
RECORD_STEP_KB = 5.0  # Firehose bills each record that a function sends rounded up to it
SECONDS = 3_600.0 * HOURS

Bill = Mapping[str, float]


def monthly(workload: Workload, of_the_traffic: float) -> float:
    """What happens in the traffic's time, in 30 days of it."""
    return of_the_traffic * workload.per_day * DAYS


def of_lambda(workload: Workload, *, warm: float, cold: float, init_ms: float) -> Bill:
    """On demand: the requests, their duration, and the init of those that started an
    environment. Numbers of the traffic's time."""
    seconds = (warm + cold) * _billed_ms(workload) / 1_000.0 + cold * init_ms / 1_000.0
    return {
        "Lambda requests": usd("lambda_requests", monthly(workload, warm + cold) / 1e6),
        "Lambda duration": usd("lambda_duration", _gb_seconds(workload, seconds)),
    }


def of_provisioned(workload: Workload, *, requests: float, kept_s: float) -> Bill:
    """`kept_s`: seconds of all environments that are kept ready, in the traffic's time."""
    seconds = requests * _billed_ms(workload) / 1_000.0
    return {
        "Lambda requests": usd("lambda_requests", monthly(workload, requests) / 1e6),
        "Lambda duration": usd("lambda_provisioned_duration", _gb_seconds(workload, seconds)),
        "provisioned concurrency": usd("lambda_provisioned", _gb_seconds(workload, kept_s)),
    }


def of_snapstart(workload: Workload, *, requests: float, restores: float) -> Bill:
    """One version's snapshot, and its restores."""
    restored = monthly(workload, restores) * workload.memory_gb
    return {
        **of_lambda(workload, warm=requests, cold=0.0, init_ms=0.0),
        "SnapStart, cache": usd("snapstart_cache", SECONDS * workload.memory_gb),
        "SnapStart, restores": usd("snapstart_restore", restored),
    }


def of_gateway(workload: Workload) -> Bill:
    """What comes with Lambda: the HTTP API, and the logs of both."""
    requests = monthly(workload, workload.traffic.requests)
    function_gb = requests * _log_kb(workload) / KB_IN_GB
    access_gb = requests * assumption("access_log_kb") / KB_IN_GB
    return {
        "HTTP API": usd("http_api", requests / 1e6),
        "logs": usd("lambda_logs", function_gb) + usd("logs", access_gb),
        **_of_records(workload, requests, function_gb + access_gb),
    }


def of_load_balancer(workload: Workload) -> Bill:
    """What comes with containers. Their logs are not Lambda's, and have one price."""
    requests = monthly(workload, workload.traffic.requests)
    log_gb = requests * _log_kb(workload) / KB_IN_GB
    units = requests * assumption("request_kb") / KB_IN_GB  # 1 GB is one LCU-hour
    return {
        "load balancer": usd("load_balancer_hour", HOURS) + usd("load_balancer_unit", units),
        "logs": usd("logs", log_gb),
        **_of_records(workload, requests, log_gb),
    }


def _of_records(workload: Workload, requests: float, log_gb: float) -> Bill:
    record_gb = requests * assumption("record_kb") / KB_IN_GB
    if workload.delivery == "logs":
        ingested = usd("firehose", record_gb) + usd("firehose_decompression", record_gb)
    else:
        ingested = usd("firehose", requests * RECORD_STEP_KB / KB_IN_GB)
    stored = usd("log_storage", log_gb * assumption("log_compression"))
    reads = usd("dynamodb_reads", requests * workload.reads / 1e6)
    return {
        "Firehose": ingested + usd("firehose_partitioning", record_gb),
        "metrics": usd("metric", assumption("metrics")),
        "alarms": usd("alarm", assumption("alarms")),
        "storage": stored + usd("s3", record_gb * assumption("record_compression")),
        **({"DynamoDB": reads} if reads else {}),
    }


def _log_kb(workload: Workload) -> float:
    in_log = workload.delivery == "logs"
    return assumption("function_log_kb") - (0.0 if in_log else assumption("record_kb"))


def _billed_ms(workload: Workload) -> float:
    waits = workload.delivery == "direct"
    return workload.measured.service.billed_ms + (assumption("direct_wait_ms") if waits else 0.0)


def _gb_seconds(workload: Workload, seconds: float) -> float:
    return monthly(workload, seconds) * workload.memory_gb


def instance_usd(name: str, *, fee: bool = False) -> float:
    """An hour of an EC2 instance, with the fee of Lambda Managed Instances."""
    return usd(name) * (1.0 + (prices.share("managed_instances_fee") if fee else 0.0))
