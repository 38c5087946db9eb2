"""The client of Valkey against a server that misbehaves: an error in time, no reply for another's
command, and the next call on a connection of its own."""

import socket
from collections.abc import Iterator
from contextlib import suppress
from math import inf, isnan
from threading import Event, Thread
from time import perf_counter

import pytest

from feedrank.errors import SettingsError
from feedrank.features.stored_rows import DAMAGED, StoredRow
from feedrank.features.valkey_rows import ValkeyRows, pack, unpack
from feedrank.valkey.client import SLOTS, Client, Command, slot_of
from feedrank.valkey.connection import Address, RefusedError, Server, ValkeyError, server_of

SINGLE = b"-ERR This instance has cluster support disabled\r\n"
NONE = b"*1\r\n$-1\r\n"
TOO_LONG_S = 60.0


class Script:
    """Each connection gets the answers in order, one for what comes at once; None hangs up."""

    def __init__(self) -> None:
        self.answers: list[bytes | None] = []
        self.received: list[bytes] = []
        self.connections = 0
        self.over = Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        Thread(target=self._accept, daemon=True).start()

    @property
    def server(self) -> Server:
        return Server(Address("127.0.0.1", self.port))

    def close(self) -> None:
        self.over.set()
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            while data := connection.recv(65_536):
                self.received.append(data)
                if not self.answers:
                    self.over.wait(TOO_LONG_S)
                    return
                answer = self.answers.pop(0)
                if answer is None:
                    return
                connection.sendall(answer)


@pytest.fixture
def script() -> Iterator[Script]:
    script = Script()
    yield script
    script.close()


@pytest.fixture
def client(script: Script) -> Iterator[Client]:
    client = Client(script.server)
    yield client
    client.reset()


@pytest.fixture
def rows(script: Script) -> Iterator[ValkeyRows]:
    rows = ValkeyRows(script.server)
    yield rows
    rows.connect()


def test_keys_are_read_by_one_command(script: Script, client: Client) -> None:
    script.answers = [SINGLE, b"*3\r\n$1\r\nx\r\n$-1\r\n$0\r\n\r\n"]
    assert client.get(["a", "b", "c"]) == [b"x", None, b""]
    assert script.received == [
        b"*2\r\n$7\r\nCLUSTER\r\n$5\r\nSLOTS\r\n",
        b"*4\r\n$4\r\nMGET\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n",
    ]
    assert script.connections == 1


def test_a_reply_may_come_in_pieces(script: Script, client: Client) -> None:
    value = b"v" * 100_000
    script.answers = [SINGLE, b"*1\r\n$100000\r\n" + value + b"\r\n"]
    assert client.get(["a"]) == [value]


def test_a_connection_that_was_closed_meanwhile_is_opened_anew(
    script: Script, client: Client
) -> None:
    script.answers = [SINGLE, NONE, None, NONE]
    assert client.get(["a"]) == client.get(["a"]) == [None]
    assert script.connections == 2


def test_what_comes_too_late_is_nobodys_reply(script: Script, client: Client) -> None:
    script.answers = [SINGLE]
    with pytest.raises(ValkeyError, match="doesn't respond in time"):
        client.get(["a"], perf_counter() + 0.05)
    script.answers = [b"*1\r\n$3\r\nfor\r\n", b"*1\r\n$3\r\nnow\r\n"]
    assert client.get(["a"], perf_counter() + TOO_LONG_S) == [b"for"]
    assert script.connections == 2


def test_no_time_left_is_an_error_at_once(script: Script, client: Client) -> None:
    with pytest.raises(ValkeyError, match="doesn't respond in time"):
        client.get(["a"], perf_counter() - 1)


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"*1\r\n$x\r\n",
        b"*1\r\n$2\r\nabc\r\n",
        b"*2\r\n$1\r\na\r\n$1\r\nb\r\n",  # of two keys
        b"*1\r\n$1\r\na\r\n$1\r\nb\r\n",  # and something more
        b":7\r\n",
        b"*1\r\n:7\r\n",
        b"*-1\r\n",
        b"\r\n",
    ],
)
def test_a_reply_that_makes_no_sense_is_an_error(
    script: Script, rows: ValkeyRows, reply: bytes
) -> None:
    script.answers = [SINGLE, reply]
    with pytest.raises(ValkeyError):
        rows.read_user(1, inf)


def test_a_server_without_end_is_cut_off(
    script: Script, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("feedrank.valkey.connection.MAX_REPLIES_BYTES", 1_000)
    script.answers = [SINGLE, b"*1\r\n$9000000000\r\n" + b"x" * 10_000]
    with pytest.raises(ValkeyError, match="not one of Valkey's"):
        client.get(["a"])


def test_a_refusal_shows_its_first_word_alone(script: Script, rows: ValkeyRows) -> None:
    script.answers = [SINGLE, b"-NOPERM User bob has no permissions to access u#42\r\n"]
    with pytest.raises(RefusedError) as caught:
        rows.read_user(42, inf)
    assert str(caught.value) == "Valkey responds with NOPERM: the user may not GET these keys"


def test_there_is_no_server(script: Script, client: Client) -> None:
    script.close()
    with pytest.raises(ValkeyError, match="no connection to Valkey"):
        client.get(["a"], perf_counter() + TOO_LONG_S)


def test_a_name_that_does_not_resolve_is_an_error() -> None:
    with pytest.raises(ValkeyError, match="no connection to Valkey"):
        Client(Server(Address("none.invalid", 1))).get(["a"], perf_counter() + TOO_LONG_S)


def _slots(*ranges: tuple[int, int, int], host: bytes = b"127.0.0.1") -> bytes:
    parts = [
        b"*3\r\n:%d\r\n:%d\r\n*2\r\n$%d\r\n%b\r\n:%d\r\n" % (start, end, len(host), host, port)
        for start, end, port in ranges
    ]
    return b"*%d\r\n%b" % (len(parts), b"".join(parts))


@pytest.fixture
def other() -> Iterator[Script]:
    script = Script()
    yield script
    script.close()


def test_a_cluster_has_each_key_where_its_slot_is(
    script: Script, client: Client, other: Script
) -> None:
    """foo has slot 12182, bar 5061: https://valkey.io/commands/cluster-keyslot"""
    assert (slot_of("foo"), slot_of("bar"), slot_of("{foo}.x"), slot_of("123456789")) == (
        12_182, 5_061, 12_182, 0x31C3 % SLOTS,
    )  # fmt: skip
    script.answers = [_slots((0, 8_000, script.port), (8_001, 16_383, other.port), host=b"")]
    script.answers.append(b"*1\r\n$1\r\nb\r\n")
    other.answers = [b"*1\r\n$1\r\nf\r\n"]
    assert client.get(["foo", "bar"]) == [b"f", b"b"]


@pytest.mark.parametrize("code", ["MOVED", "ASK"])
def test_a_key_that_has_moved_is_followed(
    script: Script, client: Client, other: Script, code: str
) -> None:
    script.answers = [
        _slots((0, 16_383, script.port)),
        b"-%b 12182 127.0.0.1:%d\r\n" % (code.encode(), other.port),
    ]
    value = b"*1\r\n$1\r\nf\r\n"
    other.answers = [value if code == "MOVED" else b"+OK\r\n" + value]
    assert client.get(["foo"]) == [b"f"]
    script.answers = [_slots((0, 16_383, other.port))] if code == "MOVED" else [value]
    other.answers = [value]
    assert client.get(["foo"]) == [b"f"]  # the slots are asked for again after a MOVED alone
    assert (script.answers, b"ASKING" in other.received[0]) == ([], code == "ASK")


def test_a_key_that_moves_without_end_is_refused(script: Script, client: Client) -> None:
    moved = b"-MOVED 12182 127.0.0.1:%d\r\n" % script.port
    script.answers = [_slots((0, 16_383, script.port)), moved, moved, moved]
    (reply,) = client.run([Command("foo", ["GET", "foo"])])
    assert isinstance(reply, RefusedError)
    assert script.answers == []


@pytest.mark.parametrize("reply", [b"*1\r\n:7\r\n", b"*1\r\n*1\r\n:7\r\n"])
def test_slots_that_make_no_sense_are_an_error(
    script: Script, client: Client, reply: bytes
) -> None:
    script.answers = [reply]
    with pytest.raises(ValkeyError, match="not one of Valkey's"):
        client.get(["a"])


def test_a_value_is_its_rows_alone() -> None:
    value = pack("p:u#7", b"row", 1_795_600_000.25, b"pairs")
    assert value[:17] == b"1795600000.250000"
    assert unpack("p:u#7", value) == StoredRow(b"row", 1_795_600_000.25, b"pairs")
    for key, other in (
        ("p:u#8", value),
        ("p:u#7", value[:20]),
        ("p:u#7", b""),
        ("p:u#7", b"x" * 17 + value[17:]),
        ("p:u#7", value[:21] + b"\xff" * 4 + value[25:]),
    ):
        row = unpack(key, other)
        assert (row.row, isnan(row.time_s), row.pairs) == (DAMAGED, True, b"")


@pytest.mark.parametrize(
    ("uri", "server"),
    [
        ("valkey://cache", Server(Address("cache", 6_379))),
        (
            "valkeys://a.b:7000/3?prefix={fr}:",
            Server(Address("a.b", 7_000), 3, "{fr}:", is_encrypted=True),
        ),
    ],
)
def test_a_uri_says_where_the_server_is(uri: str, server: Server) -> None:
    assert server_of(uri) == server


@pytest.mark.parametrize(
    "uri", ["valkey://", "valkey://u:secret@h", "valkey://h:99999", "valkey://h/x", "valkey://h/-1"]
)
def test_another_uri_is_refused_without_showing_it(uri: str) -> None:
    with pytest.raises(SettingsError, match="FEATURES_URI: must be valkey://") as caught:
        server_of(uri)
    assert "secret" not in str(caught.value)


def test_a_password_is_shown_nowhere() -> None:
    assert "hunter2" not in repr(server_of("valkey://h", "bob", "hunter2"))
