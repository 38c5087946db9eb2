"""The README's table of stores."""

import pytest

from feedops.plan.stores import BEGIN, END, STORES, block, usd_of_a_million_requests
from feedops.workspace import PROJECT

BY_URI = {store.uri: store for store in STORES}
# Millions of requests at 10,000 a second for 30 days. A million read units are 0.125 USD:
# https://aws.amazon.com/dynamodb/pricing/on-demand/
A_MONTH = 10_000 * 86_400 * 30 / 1e6


@pytest.mark.parametrize(
    ("uri", "hit_rate", "usd_a_month"),
    [
        ("dynamodb://", 0.0, 163_620),
        ("dynamodb://", 0.95, 9_720),
        ("users:dynamodb://", 0.0, 1_620),
        ("users:dynamodb://", 0.95, 1_620),
        ("snapshot", 0.0, 0),
    ],
)
def test_a_month_of_reads_costs_what_a_calculation_by_hand_gives(
    uri: str, hit_rate: float, usd_a_month: float
) -> None:
    cost = usd_of_a_million_requests(BY_URI[uri], hit_rate) * A_MONTH
    assert cost == pytest.approx(usd_a_month)


def test_a_key_of_valkey_is_an_ecpu() -> None:
    assert usd_of_a_million_requests(BY_URI["valkey://"], 0.8) == pytest.approx(21 * 0.0023)


def test_the_readme_has_the_table() -> None:
    readme = (PROJECT / "README.md").read_text()
    assert readme.count(BEGIN) == readme.count(END) == 1
    assert block() in readme
