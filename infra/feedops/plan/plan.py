"""A plan: every way to run the workload, the one to take, its quotas and its parameters."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from feedops.plan import fleets, prices, quotas, ways
from feedops.plan.environments import Course
from feedops.plan.kept_ready import most_ready
from feedops.plan.quotas import Need
from feedops.plan.ways import Way
from feedops.plan.workload import Workload

MOST_THROTTLED_SHARE = 1e-4


@dataclass(frozen=True, slots=True)
class Plan:
    workload: Workload
    ways: Sequence[Way]
    courses: Mapping[str, Course]  # by the way's name, of Lambda's own environments
    choice: Way
    needs: Sequence[Need]
    parameters: Mapping[str, str]  # of the stack


def make(workload: Workload) -> Plan:
    refused_per_s = ways.refused_per_s(workload)
    on_lambda = [ways.on_demand(workload, refused_per_s), ways.snapstart(workload, refused_per_s)]
    if most_ready(workload) >= 1:
        on_lambda.append(ways.provisioned(workload, refused_per_s))
    courses = {way.name: course for way, course in on_lambda}
    deployable = [way for way, _ in on_lambda]
    choice = best(deployable, workload)
    others = [fleets.managed_instances(workload), fleets.fargate(workload), fleets.gpu(workload)]
    return Plan(
        workload,
        [*deployable, *others],
        courses,
        choice,
        quotas.needs(workload, choice),
        parameters(workload, choice),
    )


def best(deployable: Sequence[Way], workload: Workload) -> Way:
    """The cheapest that refuses no one and holds the p99 in its worst minute, or else the one
    that comes nearest."""
    requests = workload.traffic.requests * workload.per_day
    good = [
        way
        for way in deployable
        if way.worst_minute_p99_ms <= workload.target_p99_ms
        and way.throttled <= MOST_THROTTLED_SHARE * requests
    ]
    if good:
        return min(good, key=lambda way: way.usd)
    return min(deployable, key=lambda way: (way.worst_minute_p99_ms, way.throttled))


def parameters(workload: Workload, way: Way) -> dict[str, str]:
    """Of the stack that `template.yaml` describes, in its order."""
    rate, most_burst = quotas.throttle_rate(workload), round(prices.quota("api_burst"))
    return {
        "MemorySize": f"{workload.measured.memory_mb:.0f}",
        **way.parameters,
        "ThrottleRate": str(rate),
        "ThrottleBurst": str(min(most_burst, ceil(rate / 2))),
        "DecisionDelivery": workload.delivery,
    }
