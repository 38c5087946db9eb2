"""`feedrank plan`: its choice, its bill, its output; and its parameters against the template."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from feedbench.cli import app
from feedops.plan.bill import instance_usd
from feedops.plan.prices import usd
from feedops.stack import environments
from feedops.stack.template import load
from feedops.workspace import PROJECT

DAY_S, DAYS = 86_400, 30
TEMPLATE = load(PROJECT / "template.yaml")["Parameters"]


def plan(line: str) -> Any:
    done = CliRunner().invoke(app, ["plan", "--json", *line.split()])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def way(made: Any, name: str) -> Any:
    (found,) = [each for each in made["ways"] if each["name"] == name]
    return found


@pytest.fixture(scope="module")
def constant() -> Any:
    return plan("--rate 10000 --p50-ms 5 --p95-ms 9 --p99-ms 14 --init-ms 600 --server-per-s 2000")


def test_a_steady_rate_is_served_on_demand_without_cold_starts_that_matter(constant: Any) -> None:
    on_demand = way(constant, "on demand")
    assert constant["choice"] == "on demand"
    assert on_demand["cold_starts"] < 1_000  # of 864 million
    assert on_demand["worst_minute_p99_ms"] == pytest.approx(14.0, rel=0.01)
    assert 60 < on_demand["capacity"] < 150


def test_the_bill_is_requests_times_prices(constant: Any) -> None:
    requests = 10_000 * DAY_S * DAYS
    on_demand, kept = way(constant, "on demand"), way(constant, "provisioned")
    assert on_demand["compute"]["Lambda requests"] == pytest.approx(requests / 1e6 * 0.20)
    assert on_demand["around"]["HTTP API"] == pytest.approx(300 + (requests / 1e6 - 300) * 0.90)
    seconds = 1_031 * DAY_S * DAYS * 1_769 / 1_024
    assert kept["compute"]["provisioned concurrency"] == pytest.approx(seconds * 0.0000041667)
    managed, fargate = way(constant, "Managed Instances"), way(constant, "Fargate")
    hours = 24 * DAYS * managed["capacity"]
    assert managed["compute"]["m7i.xlarge"] == pytest.approx(hours * 0.2016 * 1.15)
    assert fargate["capacity"] == 9  # 5 workers' load, at most 60 % busy
    hourly = usd("fargate_vcpu") + 2 * usd("fargate_memory")
    assert fargate["compute"]["1 vCPU"] == pytest.approx(24 * DAYS * 9 * hourly)
    assert instance_usd("m7i_xlarge", fee=True) == pytest.approx(0.23184)
    for each in constant["ways"]:
        lines = {**each["compute"], **each["around"]}
        assert each["usd"] == pytest.approx(sum(lines.values()))


def test_quotas_that_are_too_small_are_named(constant: Any) -> None:
    short = {need["code"]: need["need"] for need in constant["quotas"] if need["is_short"]}
    assert set(short) == {"L-B99A9384", "L-8A5B8E43"}
    assert short["L-B99A9384"] >= 10_000 / 10
    assert short["L-8A5B8E43"] == int(constant["parameters"]["ThrottleRate"]) > 10_000


def test_records_sent_directly_need_more_of_firehose_and_less_of_the_log() -> None:
    direct, logs = plan("--rate 3000 --delivery direct"), plan("--rate 3000")
    (need,) = [need for need in direct["quotas"] if need["what"].startswith("Firehose")]
    assert (need["need"] > 3_000, need["is_short"]) == (True, True)
    of_logs = [way(made, "on demand")["around"]["logs"] for made in (direct, logs)]
    assert of_logs[0] < of_logs[1]
    assert direct["parameters"]["DecisionDelivery"] == "direct"


def test_reads_of_dynamodb_are_billed_and_have_a_quota() -> None:
    made = plan("--rate 2000 --reads 25.5")
    requests = 2_000 * DAY_S * DAYS
    reads = requests * 25.5 / 1e6 * usd("dynamodb_reads")
    assert way(made, "on demand")["around"]["DynamoDB"] == pytest.approx(reads)
    assert made["quotas"][-1]["need"] == 51_000
    assert made["quotas"][-1]["is_short"]


def test_an_accounts_concurrency_refuses_what_is_above_it() -> None:
    few = plan("--rate 400 --concurrency 20")  # 200 requests/s
    refused = way(few, "on demand")["throttled"] / (400 * DAY_S)
    assert refused == pytest.approx(0.5, rel=0.01)
    enough = plan("--rate 400 --concurrency 100")
    assert way(enough, "on demand")["throttled"] == pytest.approx(0.0, abs=1.0)


def test_an_account_keeps_no_more_ready_than_its_concurrency_leaves() -> None:
    """A hundred stay unreserved, and take what spills over."""
    made = plan("--rate 4000 --concurrency 300")  # 3,000 requests/s
    kept, on_demand = way(made, "provisioned"), way(made, "on demand")
    assert kept["parameters"]["ProvisionedMin"] == "200"
    assert 200 < kept["capacity"] <= 300
    assert kept["throttled"] / (4_000 * DAY_S) == pytest.approx(0.25, rel=0.01)
    assert kept["throttled"] >= on_demand["throttled"]
    requests = (4_000 * DAY_S - kept["throttled"]) * DAYS
    assert kept["compute"]["Lambda requests"] == pytest.approx(requests / 1e6 * 0.20)


def test_an_account_of_little_concurrency_keeps_none_ready() -> None:
    line = "--rate 400 --concurrency 100 --target-p99-ms 1"
    made = plan(line)
    assert "provisioned" not in [each["name"] for each in made["ways"]]
    assert made["choice"] == "on demand"
    shown = CliRunner().invoke(app, ["plan", *line.split()]).stdout
    assert "100 of the account's concurrency stay unreserved, and it has 100." in shown


@pytest.mark.parametrize("rate", [0.001, 0.005])
def test_the_worst_minute_is_no_better_than_all_of_them(rate: float) -> None:
    """Where a minute has less than a request, and many of them start an environment."""
    made = plan(f"--rate {rate} --init-ms 900 --target-p99-ms 500")
    on_demand = way(made, "on demand")
    assert on_demand["worst_minute_p99_ms"] >= on_demand["p99_ms"] > 900
    assert made["choice"] != "on demand"


@pytest.fixture
def jump(tmp_path: Path) -> Path:
    """From 20 to 2,000 requests/s at once."""
    path = tmp_path / "jump.csv"
    path.write_text("seconds,requests_per_s\n0,20\n300,20\n301,2000\n900,2000\n")
    return path


def test_a_jump_costs_cold_starts_that_snapstart_and_provisioned_concurrency_avoid(
    jump: Path,
) -> None:
    made = plan(f"--curve {jump} --init-ms 2000 --restore-ms 100 --target-p99-ms 100")
    on_demand, snapstart, kept = (
        way(made, name) for name in ("on demand", "SnapStart", "provisioned")
    )
    assert on_demand["throttled"] > 0
    assert on_demand["most_starts_in_10_s"] > 1_000
    assert snapstart["cold_starts"] < on_demand["cold_starts"]
    assert kept["cold_starts"] < 0.05 * snapstart["cold_starts"]
    assert kept["spilled"] <= 0.001 * made["traffic"]["requests_per_day"]


@pytest.mark.parametrize(
    ("line", "warm_start"),
    [("--rate 1500", "none"), ("--curve {jump} --init-ms 5000 --restore-ms 5000", "provisioned")],
)
def test_the_parameters_are_the_templates_and_can_be_deployed(
    line: str, warm_start: str, tmp_path: Path, jump: Path
) -> None:
    made = plan(line.format(jump=jump))
    assert made["parameters"]["WarmStart"] == warm_start
    for name, value in made["parameters"].items():
        declared = TEMPLATE[name]
        assert value in declared.get("AllowedValues", [value])
        assert re.fullmatch(declared.get("AllowedPattern", ".*"), value)
        if declared["Type"] == "Number":
            most = declared.get("MaxValue", float("inf"))
            assert declared["MinValue"] <= float(value) <= most
    given = ["Environment=prod", *(f"{name}={v}" for name, v in made["parameters"].items())]
    config = tmp_path / "samconfig.toml"
    parameters = {"parameter_overrides": given}
    config.write_text(f"[prod.deploy.parameters]\nparameter_overrides = {json.dumps(given)}\n")
    assert tomllib.loads(config.read_text())["prod"]["deploy"]["parameters"] == parameters
    environments.check(config)


def test_a_plan_is_printed_and_drawn(tmp_path: Path) -> None:
    picture = tmp_path / "directory" / "plan.png"
    done = CliRunner().invoke(app, ["plan", "--rate", "50", "--plot", str(picture)])
    assert done.exit_code == 0, done.output
    assert 'parameter_overrides = ["MemorySize=1769", ' in done.stdout
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--curve missing.csv", "missing.csv: No such file or directory"),
        ("--rate 0", "Invalid value for '--rate'"),
        ("--rate nan", "Invalid value for '--rate'"),
        ("--p50-ms 5", "give all three"),
        ("--p50-ms 5 --p95-ms 4 --p99-ms 9", "percentiles must be positive and must not fall"),
        ("--log README.md", "0 REPORT lines; percentiles need 100 or more"),
        ("--log missing", "missing: No such file or directory"),
        ("--bench README.md", "README.md: not the results of a whole `feedrank bench`"),
        ("--plot x.docx --rate 1", "x.docx: the picture is a PNG"),
        ("--rate 100000 --p50-ms 900 --p95-ms 950 --p99-ms 990", "plan the part of one region"),
        ("--delivery x", "'x' is not one of"),
    ],
)
def test_a_mistake_gives_one_line(line: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PROJECT)
    monkeypatch.setenv("COLUMNS", "200")
    done = CliRunner().invoke(app, ["plan", *line.split()])
    assert done.exit_code in (1, 2), done.output
    assert message in done.stderr
    assert "Traceback" not in done.output
