"""The example of a team's own sink, as the handler loads it. The producer has confluent-kafka's
shape: `produce(topic, value, on_delivery)` and `flush(timeout)`."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from types import ModuleType
from typing import Any

import pytest

import fakes
from feedops.workspace import EVENTS
from feedrank.threads import TIMED_OUT

EXAMPLES = Path(__file__).parents[1] / "examples"
Delivered = Callable[[Any, Any], None]


class Producer:
    """Delivers at a flush, as the client library does."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.topics: list[tuple[str, bytes]] = []
        self._pending: list[tuple[bytes, Delivered]] = []

    def produce(self, topic: str, value: bytes, on_delivery: Delivered) -> None:
        self.topics.append((topic, value))
        self._pending.append((value, on_delivery))

    def flush(self, timeout: float) -> int:
        assert timeout > 0
        while self._pending:
            value, on_delivery = self._pending.pop()
            on_delivery(self.outcome(), value)
        return 0

    def outcome(self) -> Any:
        return None


class Refusing(Producer):
    def outcome(self) -> Any:
        return "NOT_ENOUGH_REPLICAS"


class Full(Producer):
    def produce(self, topic: str, value: bytes, on_delivery: Delivered) -> None:
        raise BufferError(f"Local: Queue full: {value!r}")


class Late(Producer):
    def flush(self, timeout: float) -> int:
        return 1


class Hanging(Producer):
    free = Event()

    def flush(self, timeout: float) -> int:
        self.free.wait()
        return 1


@pytest.fixture
def _freed_at_the_end() -> Iterator[None]:
    Hanging.free.clear()
    yield
    Hanging.free.set()


def _rank(
    bundle: Path, kind: type[Producer], monkeypatch: pytest.MonkeyPatch, **env: str
) -> Producer:
    """Has the handler rank one request with this producer, which is returned."""
    library: Any = ModuleType("confluent_kafka")
    library.Producer = kind
    monkeypatch.setitem(sys.modules, "confluent_kafka", library)
    monkeypatch.delitem(sys.modules, "kafka_sink", raising=False)
    monkeypatch.syspath_prepend(EXAMPLES)
    event = json.loads((EVENTS / "predict.json").read_bytes())
    names = {"EXTENSIONS": "kafka_sink", "KAFKA_SERVERS": "localhost:9092", **env}
    with fakes.container(MODEL_URI=str(bundle), **names) as handler:
        response = handler.lambda_handler(event, fakes.LambdaContext(remaining_ms=700))
    assert response["statusCode"] == 200
    producer: Producer = handler.extensions.sinks[0]._producer
    return producer


def test_kafka_gets_the_record_and_standard_output_does_not(
    demo_bundle: Path, monkeypatch: pytest.MonkeyPatch, printed: fakes.LogLines
) -> None:
    producer = _rank(demo_bundle, Producer, monkeypatch)
    ((topic, line),) = producer.topics
    record, last = json.loads(line), printed()[-1]
    assert (topic, record["record"], line[-1:]) == ("decisions", "decision", b"\n")
    assert (record["request_id"], last["DecisionsSpilled"]) == (last["request_id"], 0)
    assert [each for each in printed() if "record" in each] == []
    assert producer.config["bootstrap.servers"] == "localhost:9092"


@pytest.mark.usefixtures("_freed_at_the_end")
@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (Refusing, "decisions refuses it: NOT_ENOUGH_REPLICAS"),
        (Late, "decisions has not confirmed it in time"),
        (Full, "BufferError in test_kafka_sink.py"),
        (Hanging, TIMED_OUT),
    ],
)
def test_a_record_that_kafka_does_not_take_is_spilled_and_counted(
    demo_bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    printed: fakes.LogLines,
    kind: type[Producer],
    reason: str,
) -> None:
    """Also where the client never returns: its request is answered within its time."""
    _rank(demo_bundle, kind, monkeypatch)
    lines = printed()
    (spilled,) = (line for line in lines if line.get("message") == "decision record spilled")
    (record,) = (line for line in lines if "record" in line)
    assert (spilled["sink"], spilled["reason"].startswith(reason)) == ("KafkaSink", True)
    assert (record["request_id"], lines[-1]["DecisionsSpilled"]) == (lines[-1]["request_id"], 1)
    assert "item_ids" not in str(spilled)
