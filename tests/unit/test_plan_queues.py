"""The formulas of `feedrank plan`, compared with published values, closed forms and sums."""

from math import exp, factorial, log

import numpy as np
import pytest

from feedops.plan.queues import Queue, all_erlang_b, beyond, erlang_b, erlang_c
from feedops.plan.service_time import ServiceTime

WITHIN = 0.02


def loss(servers: int, load: float) -> float:
    """Erlang's B as its definition has it."""
    terms = [load**n / factorial(n) for n in range(servers + 1)]
    return terms[-1] / sum(terms)


def wait(servers: int, load: float) -> float:
    """Erlang's C as its definition has it."""
    last = load**servers / factorial(servers) * servers / (servers - load)
    return last / (sum(load**n / factorial(n) for n in range(servers)) + last)


@pytest.mark.parametrize(
    ("servers", "load", "share"),
    [(1, 0.01, 0.0099), (5, 1.36, 0.01), (10, 4.46, 0.01), (20, 12.03, 0.01), (100, 84.06, 0.01)],
)
def test_erlang_b_gives_the_load_of_the_traffic_tables(
    servers: int, load: float, share: float
) -> None:
    assert erlang_b(servers, load) == pytest.approx(share, rel=WITHIN)


@pytest.mark.parametrize("servers", [1, 2, 7, 40, 120])
@pytest.mark.parametrize("busy", [0.05, 0.5, 0.9, 0.99])
def test_erlang_b_and_c_are_their_definitions(servers: int, busy: float) -> None:
    load = busy * servers
    assert erlang_b(servers, load) == pytest.approx(loss(servers, load), rel=1e-9)
    assert erlang_c(servers, load) == pytest.approx(wait(servers, load), rel=1e-9)


def test_few_servers_before_a_large_load_lose_the_rest_of_it() -> None:
    shares = all_erlang_b(3_000, 20_000.0)
    assert shares[0] == 1.0
    assert shares[2_000] == pytest.approx(0.9, rel=1e-3)


def test_servers_that_can_not_carry_the_load_let_everybody_wait() -> None:
    queue = Queue(2, rate_per_s=30.0, service_s=0.1)
    assert (queue.waiting_share, queue.mean_wait_s) == (1.0, float("inf"))
    assert queue.response_quantile_s(0.99, np.array([0.1])) == float("inf")


@pytest.mark.parametrize("servers", [1, 3, 12, 60])
@pytest.mark.parametrize("busy", [0.3, 0.6, 0.9])
def test_exponential_service_waits_as_the_closed_formulas_of_m_m_c(
    servers: int, busy: float
) -> None:
    service_s = 0.02
    queue = Queue(servers, busy * servers / service_s, service_s)
    free_per_s = servers / service_s - queue.rate_per_s
    waiting = wait(servers, busy * servers)
    assert queue.mean_wait_s == pytest.approx(waiting / free_per_s, rel=WITHIN)
    later = queue.longer_wait_share(np.array([0.0, 0.01, 0.05]))
    expected = [waiting * exp(-free_per_s * wait_s) for wait_s in (0.0, 0.01, 0.05)]
    assert later == pytest.approx(expected, rel=WITHIN)


def test_one_server_gives_the_response_times_of_m_m_1() -> None:
    """Which are exponential: a closed form for every percentile."""
    queue = Queue(1, rate_per_s=30.0, service_s=0.02)
    shares = (np.arange(20_000) + 0.5) / 20_000
    service_s = -0.02 * np.log(1.0 - shares)
    for share in (0.5, 0.9, 0.99):
        response_s = -log(1.0 - share) / (1.0 / 0.02 - 30.0)
        assert queue.response_quantile_s(share, service_s) == pytest.approx(response_s, rel=WITHIN)


def test_constant_service_waits_half_as_long_as_pollaczek_and_khinchine_say() -> None:
    queue = Queue(1, rate_per_s=40.0, service_s=0.02, variation=0.0)
    assert queue.mean_wait_s == pytest.approx(0.8 * 0.02 / (2 * (1 - 0.8)), rel=WITHIN)


@pytest.mark.parametrize(("mean", "limit"), [(2.0, 4), (8.0, 10), (900.0, 940), (10_000.0, 10_200)])
def test_what_is_above_a_limit_is_the_excess_of_a_poisson_number(mean: float, limit: int) -> None:
    random = np.random.default_rng(1)
    numbers = random.poisson(mean, 1_000_000)
    excess = np.maximum(0, numbers - limit)
    error = 4.0 * float(excess.std()) / len(numbers) ** 0.5
    assert beyond(mean, limit) == pytest.approx(float(excess.mean()), rel=WITHIN, abs=error)


def test_percentiles_make_the_distribution_that_has_them() -> None:
    service = ServiceTime({50: 5.0, 95: 10.0, 99: 15.0})
    for percent, value_ms in service.percentiles_ms.items():
        assert service.quantile_ms(percent / 100) == pytest.approx(value_ms, rel=0.01)
    assert service.scaled(2.0).mean_ms == pytest.approx(2.0)
    assert service.scaled(2.0).variation == pytest.approx(service.variation)


def test_two_percentiles_make_a_lognormal_distribution() -> None:
    sigma = 0.4
    service = ServiceTime({50: 10.0, 97.724987: 10.0 * exp(2 * sigma)})
    assert service.mean_ms == pytest.approx(10.0 * exp(sigma**2 / 2), rel=0.005)
    assert service.variation == pytest.approx(exp(sigma**2) - 1, rel=0.02)


def test_cold_starts_of_more_than_a_hundredth_are_the_p99() -> None:
    service = ServiceTime({50: 5.0, 99: 10.0})
    assert service.quantile_ms(0.99, 0.009, 600.0) < 25.0
    assert service.quantile_ms(0.99, 0.02, 600.0) == pytest.approx(605.0, abs=1.0)
