"""What CloudWatch Logs and Firehose do with a log line, as their manuals describe it.

moto stores its input unchanged: it evaluates no filter pattern and runs no processor. These
functions do, with the patterns and processors of the template.
"""

import gzip
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jq

Stream = Mapping[str, Any]  # the Properties of an AWS::KinesisFirehose::DeliveryStream
Processor = Callable[[Mapping[str, str], Iterable[bytes]], Iterable[bytes]]

_EQUALS = re.compile(r'\{ \$\.(\w+) = "(\w+)" \}')
_KEY = re.compile(r"!\{partitionKeyFromQuery:(\w+)\}")


def matches(pattern: str, message: str) -> bool:
    """Evaluates the one kind of filter pattern that the template uses: `{ $.name = "value" }`."""
    match = _EQUALS.fullmatch(pattern)
    assert match, pattern
    try:
        event = json.loads(message)
    except json.JSONDecodeError:
        return False
    return isinstance(event, dict) and event.get(match[1]) == match[2]


def filtered(envelope: bytes, pattern: str) -> bytes | None:
    """CloudWatch's gzipped envelope with the matching events; None if there are none."""
    content = json.loads(gzip.decompress(envelope))
    events = [event for event in content["logEvents"] if matches(pattern, event["message"])]
    if not events:
        return None
    return gzip.compress(json.dumps({**content, "logEvents": events}).encode())


def delivered(stream: Stream, records: Iterable[bytes]) -> dict[str, bytes]:
    """The objects that the stream writes for these records, by key."""
    destination = stream["ExtendedS3DestinationConfiguration"]
    assert destination["DynamicPartitioningConfiguration"]["Enabled"] is True
    assert destination["CompressionFormat"] == "GZIP"
    bodies: dict[str, bytes] = defaultdict(bytes)
    query = ""
    for processor in destination["ProcessingConfiguration"]["Processors"]:
        parameters = {
            parameter["ParameterName"]: parameter["ParameterValue"]
            for parameter in processor.get("Parameters", ())
        }
        if processor["Type"] == "MetadataExtraction":
            assert parameters["JsonParsingEngine"] == "JQ-1.6"
            query = parameters["MetadataExtractionQuery"]
        else:
            records = PROCESSORS[processor["Type"]](parameters, records)
    for record in records:
        bodies[_prefix(destination, query, record)] += record
    name = f"{stream['DeliveryStreamName']}-1{destination['FileExtension']}"
    return {f"{prefix}{name}": gzip.compress(body) for prefix, body in bodies.items()}


def _prefix(destination: Mapping[str, Any], query: str, record: bytes) -> str:
    try:
        ((keys),) = jq.compile(query).input_text(record.decode()).all()
    except ValueError:
        keys = {}
    names = _KEY.findall(destination["Prefix"])
    if not all(isinstance(keys.get(name), str) and keys[name] for name in names):
        failed = "!{firehose:error-output-type}"
        return str(destination["ErrorOutputPrefix"].replace(failed, "metadata-extraction-failed"))
    return _KEY.sub(lambda match: keys[match[1]], destination["Prefix"])


def _decompress(parameters: Mapping[str, str], records: Iterable[bytes]) -> Iterator[bytes]:
    assert parameters == {"CompressionFormat": "GZIP"}
    return map(gzip.decompress, records)


def _extract_messages(parameters: Mapping[str, str], records: Iterable[bytes]) -> Iterator[bytes]:
    assert parameters == {"DataMessageExtraction": "true"}
    for envelope in map(json.loads, records):
        if envelope["messageType"] == "DATA_MESSAGE":
            yield from (event["message"].encode() for event in envelope["logEvents"])


def _deaggregate(parameters: Mapping[str, str], records: Iterable[bytes]) -> Iterator[bytes]:
    assert parameters == {"SubRecordType": "JSON"}
    for record in records:
        text, place = record.decode(), 0
        while text[place:].strip():
            begin = place + len(text[place:]) - len(text[place:].lstrip())
            _, place = json.JSONDecoder().raw_decode(text, begin)
            yield text[begin:place].encode()


def _append_delimiter(parameters: Mapping[str, str], records: Iterable[bytes]) -> Iterator[bytes]:
    assert not parameters
    return (record + b"\n" for record in records)


PROCESSORS: Mapping[str, Processor] = {
    "Decompression": _decompress,
    "CloudWatchLogProcessing": _extract_messages,
    "RecordDeAggregation": _deaggregate,
    "AppendDelimiterToRecord": _append_delimiter,
}
