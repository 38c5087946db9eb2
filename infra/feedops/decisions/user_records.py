"""Removes one user's lines from a stored object.

Lines are JSON, one record each, gzipped or not, as Firehose and the function write them. Firehose
wraps what it could not deliver: `rawData` is the base64 of a record, or of CloudWatch's gzipped
envelope of several.
"""

import base64
import gzip
import json
import re
import zlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import orjson

from feedops.errors import OperationError
from feedrank.decisions.record_ids import UserHash

GZIP = b"\x1f\x8b"
DAMAGED = (ValueError, KeyError, TypeError, OSError, EOFError, zlib.error)


class UnreadableError(OperationError):
    """The object can't be read as records."""


class Rest(NamedTuple):
    body: bytes  # compressed as before
    removed: int


class UserRecords:
    """`keys` are all keys that user ids were ever hashed with. A number finds the same number as
    text too."""

    def __init__(self, user: int | str, keys: Sequence[str] = ()) -> None:
        self._ids = (user,) if isinstance(user, str) else (user, str(user))
        self._hashes = {UserHash(key)(user) for key in keys}
        escaped = json.dumps(str(user))[1:-1].encode()  # as tools write what is not ASCII
        texts = {escaped, *(orjson.dumps(each)[1:-1] for each in (str(user), *self._hashes))}
        ids = b"|".join(map(re.escape, texts))
        bare = b"" if isinstance(user, str) else b"|%d(?![0-9A-Za-z])" % user
        self._mention = re.compile(rb"(?<![0-9A-Za-z])(?:" + ids + rb")(?![0-9A-Za-z])")
        self._field = re.compile(rb'"user_(?:id|hash)":\s*(?:"(?:' + ids + rb')"' + bare + rb")")

    def without(self, body: bytes) -> Rest:
        """Raises UnreadableError."""
        try:
            is_gzipped = body.startswith(GZIP)
            plain = gzip.decompress(body) if is_gzipped else body
            lines = plain.split(b"\n")
            if plain.strip() and not any(_is_record(line) for line in lines):
                raise UnreadableError("holds no JSON lines")
            others, removed = self._split(lines)
        except DAMAGED as error:
            raise UnreadableError(f"is damaged: {error}") from error
        if not removed:
            return Rest(body, 0)
        rest = b"\n".join(others)
        return Rest(gzip.compress(rest) if is_gzipped else rest, removed)

    def _split(self, lines: Iterable[bytes]) -> tuple[list[bytes], int]:
        """The other users' lines, and the number of records removed."""
        rests = [self._rest_of(line) for line in lines]
        return [line for line, _ in rests if line is not None], sum(count for _, count in rests)

    def _rest_of(self, line: bytes) -> tuple[bytes | None, int]:
        """The line without the user's records, and the number of these."""
        has_mention = self._mention.search(line) is not None
        if not has_mention and b'"rawData"' not in line:
            return line, 0
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError:  # half a record, of a killed writer
            return (None, 1) if self._field.search(line) else (line, 0)
        if not isinstance(row, dict):
            return line, 0
        if row.get("user_id") in self._ids or row.get("user_hash") in self._hashes:
            return None, 1
        return self._undelivered(line, row) if "rawData" in row else (line, 0)

    def _undelivered(self, line: bytes, row: dict[str, Any]) -> tuple[bytes | None, int]:
        raw = base64.b64decode(row["rawData"], validate=True)
        is_gzipped = raw.startswith(GZIP)
        content = gzip.decompress(raw) if is_gzipped else raw
        if b'"logEvents"' in content:
            envelope = orjson.loads(content)
            rests = [self._rest_of(event["message"].encode()) for event in envelope["logEvents"]]
            envelope["logEvents"] = [
                event
                for event, (rest, _) in zip(envelope["logEvents"], rests, strict=True)
                if rest is not None
            ]
            removed, content = sum(count for _, count in rests), orjson.dumps(envelope)
            is_empty = not envelope["logEvents"]
        else:
            others, removed = self._split(content.split(b"\n"))
            content = b"\n".join(others)
            is_empty = not content.strip()
        if not removed or is_empty:
            return (None if removed else line), removed
        row["rawData"] = base64.b64encode(
            gzip.compress(content) if is_gzipped else content
        ).decode()
        return orjson.dumps(row), removed


def _is_record(line: bytes) -> bool:
    try:
        return isinstance(orjson.loads(line), dict)
    except orjson.JSONDecodeError:
        return False
