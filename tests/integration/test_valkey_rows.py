"""Rows in Valkey by the operator's commands and by the function, on a real server, or on fakeredis
where there is none."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from math import inf
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest
from typer.testing import CliRunner

import demo
import fakes
import valkeys
from feedops.cli.main import app
from feedrank.features.stored_rows import StoredRow
from feedrank.features.valkey_rows import ValkeyRows, pack
from feedrank.valkey.client import SLOTS, Client, Command, slot_of
from feedrank.valkey.connection import server_of
from live_requests import ranked, scores

BY_FAKE = pytest.mark.substituted_by("tests/integration/test_valkey_rows.py")
BY_SCRIPT = pytest.mark.substituted_by("tests/unit/test_valkey.py")
NO_SERVER = pytest.mark.skipif(
    valkeys.COMMAND is None, reason="there is no valkey-server or redis-server"
)
AS_OF, EARLIER, LATER = "2026-11-20T00:00:00Z", "2026-11-19T00:00:00Z", "2026-11-21T00:00:00Z"
ITEMS = [*range(1, 40), 1_001, 88, 5_000, 88]
BODY = {
    "user_id": 7,
    "item_ids": ITEMS,
    "context": {"device": "mobile", "timestamp": "2026-11-20T12:00:00Z"},
}


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("live") / "tables"
    demo.write_features(directory, demo.demo_spec())
    return directory


@pytest.fixture(params=["fake", pytest.param("real", marks=[NO_SERVER, BY_FAKE])])
def port(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[int]:
    with ExitStack() as stack:
        if request.param == "fake":
            yield stack.enter_context(valkeys.fake())
        else:
            yield stack.enter_context(valkeys.real(tmp_path)).port


def feedrank(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["features", *arguments])
    assert result.exit_code == code, result.output
    return result.output


def load(tables: Path, uri: str, bundle: Path, *more: str, as_of: str = AS_OF) -> str:
    options = ["--from", str(tables), "--to", uri, "--bundle", str(bundle), "--as-of", as_of]
    return feedrank("load", *options, "--writes-per-second", "1000000", *more)


@pytest.mark.parametrize("scheme", ["", "users:"])
def test_scores_are_the_snapshots(
    scheme: str, port: int, tables: Path, demo_bundle: Path, log: fakes.LogLines
) -> None:
    uri = f"valkey://127.0.0.1:{port}/1?prefix=fr:"
    load(tables, uri, demo_bundle, *["--users-alone"] * bool(scheme))
    live, snapshot = ranked(demo_bundle, BODY, FEATURES_URI=scheme + uri), ranked(demo_bundle, BODY)
    assert (live["degraded"], live["unknown"]) == ([], {"user": False, "items": [5_000]})
    assert scores(live) == pytest.approx(scores(snapshot), abs=1e-6)
    empty = ranked(demo_bundle, BODY, FEATURES_URI=f"{scheme}valkey://127.0.0.1:{port}/2")
    assert empty["unknown"]["user"]


def test_a_row_gives_way_to_a_newer_one_alone(port: int, tables: Path, demo_bundle: Path) -> None:
    uri = f"valkey://127.0.0.1:{port}"
    first = load(tables, uri, demo_bundle, "--users-alone")
    for as_of, written in ((AS_OF, False), (EARLIER, False), (LATER, True)):
        again = load(tables, uri, demo_bundle, "--users-alone", as_of=as_of)
        assert (_fact(again, "written") == _fact(first, "rows")) == written
        assert (_fact(again, "newer ones kept") == _fact(first, "rows")) != written
    shown = feedrank("get", "--from", uri, "--bundle", str(demo_bundle), "--user", "7")
    assert "2026-11-21T00:00:00+00:00" in shown
    assert "user_historical_ctr" in shown
    missing = feedrank(
        "get", "--from", uri, "--bundle", str(demo_bundle), "--user", "999999", code=1
    )
    assert "has no user 999999" in missing


def _fact(output: str, name: str) -> str:
    (line,) = [line for line in output.splitlines() if line.startswith(name)]
    return line.removeprefix(name).strip()


def test_an_expired_row_is_gone(port: int, tables: Path, demo_bundle: Path) -> None:
    uri = f"valkey://127.0.0.1:{port}"
    load(tables, uri, demo_bundle, "--users-alone", "--expire-days", "36500")
    client = Client(server_of(uri))
    (left_s,) = client.run([Command("u#7", ["TTL", "u#7"])])
    client.reset()
    assert isinstance(left_s, int)
    assert 36_000 * 86_400 < left_s < 36_500 * 86_400


@NO_SERVER
@BY_SCRIPT
def test_a_password_and_a_user_are_sent_and_never_shown(
    tmp_path: Path, tables: Path, demo_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with valkeys.real(tmp_path, password="hunter2") as running:
        uri = f"valkey://127.0.0.1:{running.port}"
        for wrong, word in (({}, "NOAUTH"), ({"FEATURES_PASSWORD": "hunter3"}, "WRONGPASS")):
            for name, value in wrong.items():
                monkeypatch.setenv(name, value)
            refusal = feedrank(
                "get", "--from", uri, "--bundle", str(demo_bundle), "--user", "7", code=1
            )
            assert word in refusal
            assert "hunter" not in refusal
            response = ranked(demo_bundle, BODY, FEATURES_URI=uri, **wrong)
            assert response["degraded"] == ["features:snapshot 43/44", "features:defaults 1/44"]
        monkeypatch.setenv("FEATURES_PASSWORD", "hunter2")
        load(tables, uri, demo_bundle)
        assert (
            ranked(demo_bundle, BODY, FEATURES_URI=uri, FEATURES_PASSWORD="hunter2")["degraded"]
            == []
        )
        running.call(
            "ACL", "SETUSER", "bob", "on", ">b0b", "~*", "+get", "+mget", password="hunter2"
        )
        bob = ValkeyRows(server_of(uri, "bob", "b0b"))
        assert bob.read_user(7, inf)  # though he may not ask for a cluster's slots
        bob.connect()


@NO_SERVER
@BY_SCRIPT
def test_keys_of_another_application_are_refused_and_the_others_read(tmp_path: Path) -> None:
    with valkeys.real(tmp_path) as running:
        running.call("LPUSH", "i#1", "x")
        running.call("SET", "i#2", pack("i#2", b"row", 5.0))
        rows, found = ValkeyRows(server_of(f"valkey://127.0.0.1:{running.port}")), dict[int, Any]()
        rows.read_items([1, 2], inf, found)
        assert found == {1: None, 2: StoredRow(b"row", 5.0)}  # MGET: what is no text isn't there
        rows.connect()


@NO_SERVER
@BY_SCRIPT
def test_a_server_that_dies_and_comes_back_costs_no_request(
    tmp_path: Path, tables: Path, demo_bundle: Path, log: fakes.LogLines
) -> None:
    port = valkeys.free_port()
    uri = f"valkey://127.0.0.1:{port}"
    settings = {
        "MODEL_URI": str(demo_bundle), "FEATURES_URI": uri, "FEATURES_TIMEOUT_MS": "60000",
        "FEATURES_CACHE_S": "0", "REQUEST_TIMEOUT_MS": "60000",
        "AWS_LAMBDA_FUNCTION_NAME": "feedrank",
    }  # fmt: skip
    event = fakes.http_event("POST", "/predict", BODY)
    with fakes.container(**settings) as handler:

        def degraded() -> list[str]:
            response = handler.lambda_handler(event, fakes.LambdaContext(120_000))
            assert response["statusCode"] == 200, response
            words: list[str] = json.loads(response["body"])["degraded"]
            return words

        with valkeys.real(tmp_path, port=port):
            load(tables, uri, demo_bundle)
            assert degraded() == []
        assert degraded() != []
        with valkeys.real(tmp_path, port=port):
            load(tables, uri, demo_bundle)
            end_s = monotonic() + 60
            while degraded():  # the breaker lets a try through every few seconds
                assert monotonic() < end_s
                sleep(0.05)


@NO_SERVER
@BY_SCRIPT
def test_connections_that_the_server_has_closed_are_opened_anew(tmp_path: Path) -> None:
    with valkeys.real(tmp_path) as running:
        rows = ValkeyRows(server_of(f"valkey://127.0.0.1:{running.port}"))
        assert rows.read_user(1, inf) is None
        running.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        assert rows.read_user(1, inf) is None
        rows.connect()


@NO_SERVER
@BY_SCRIPT
def test_a_cluster_has_rows_on_each_of_its_servers(tmp_path: Path) -> None:
    with ExitStack() as stack:
        servers = []
        for number in range(3):
            (directory := tmp_path / str(number)).mkdir()
            port, bus = valkeys.free_port(), valkeys.free_port()
            options = ("--cluster-enabled", "yes", "--cluster-port", str(bus))
            servers.append((stack.enter_context(valkeys.real(directory, *options, port=port)), bus))
        first, _ = servers[0]
        for number, (running, bus) in enumerate(servers):
            start, end = number * SLOTS // 3, (number + 1) * SLOTS // 3 - 1
            running.call("CLUSTER", "ADDSLOTSRANGE", str(start), str(end))
            first.call("CLUSTER", "MEET", "127.0.0.1", str(running.port), str(bus))
        end_s = monotonic() + 60
        while not all(_is_ready(running) for running, _ in servers):
            assert monotonic() < end_s
            sleep(0.05)
        client = Client(server_of(f"valkey://127.0.0.1:{first.port}"))
        keys = [f"i#{number}" for number in range(300)]
        assert len({slot_of(key) * 3 // SLOTS for key in keys}) == 3
        assert {*client.run([Command(key, ["SET", key, key]) for key in keys])} == {b"OK"}
        assert client.get([*keys, "none"]) == [*map(str.encode, keys), None]
        slot = slot_of("i#7")
        owner = slot * 3 // SLOTS
        _migrate(servers[owner][0], servers[(owner + 1) % 3][0], slot, "i#7")
        assert client.get(["i#7", "i#8"]) == [b"i#7", b"i#8"]
        client.reset()


def _is_ready(running: valkeys.Running) -> bool:
    info = str(running.call("CLUSTER", "INFO"))
    return "cluster_state:ok" in info and "cluster_slots_ok:16384" in info


def _migrate(source: valkeys.Running, target: valkeys.Running, slot: int, key: str) -> None:
    source_id, target_id = (
        str(running.call("CLUSTER", "MYID"), "ascii")  # type: ignore[arg-type]
        for running in (source, target)
    )
    target.call("CLUSTER", "SETSLOT", str(slot), "IMPORTING", source_id)
    source.call("CLUSTER", "SETSLOT", str(slot), "MIGRATING", target_id)
    source.call("MIGRATE", "127.0.0.1", str(target.port), key, "0", "5000")
    for running in (target, source):
        running.call("CLUSTER", "SETSLOT", str(slot), "NODE", target_id)
