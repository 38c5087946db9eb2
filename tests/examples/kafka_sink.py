"""A decision sink: each record goes to a Kafka topic before its request is answered."""

import os
from time import perf_counter
from typing import Any

from feedrank.decisions.sinks import DecisionRecord, DecisionSink


class KafkaSink(DecisionSink):
    replaces_output = True  # CloudWatch gets only what Kafka refuses
    max_writes = 1  # a flush reports the deliveries of all threads

    def __init__(self, servers: str, topic: str) -> None:
        self._servers, self._topic = servers, topic
        self.connect()

    def connect(self) -> None:
        from confluent_kafka import Producer

        self._producer: Any = Producer({"bootstrap.servers": self._servers, "linger.ms": 0})

    def write(self, record: DecisionRecord) -> None:
        outcomes: list[Any] = []
        self._producer.produce(
            self._topic, record.line, on_delivery=lambda error, _message: outcomes.append(error)
        )
        self._producer.flush(max(record.deadline_s - perf_counter(), 0.0))
        if not outcomes:
            raise OSError(f"{self._topic} has not confirmed it in time")
        if outcomes[0] is not None:
            raise OSError(f"{self._topic} refuses it: {outcomes[0]}")


SINKS = [KafkaSink(os.environ["KAFKA_SERVERS"], "decisions")]
