"""Request bodies that nobody sends by accident. Each holds SECRET, which no answer may hold."""

import json
from typing import Any

SECRET = "SECRET-b7f1"


def _predict(**changes: Any) -> bytes:
    body = {"user_id": 1, "item_ids": [10, 20], "context": {"device": SECRET}} | changes
    return json.dumps(body).encode()


def _raw(user_id: str) -> bytes:
    return f'{{"user_id": {user_id}, "item_ids": [1], "context": {{"a": "{SECRET}"}}}}'.encode()


INVALID: dict[str, bytes] = {
    "empty": b"",
    "null": b"null",
    "a list": json.dumps([SECRET]).encode(),
    "a text": json.dumps(SECRET).encode(),
    "a number": b"5",
    "an empty object": b"{}",
    "not JSON": SECRET.encode(),
    "JSON and more": _predict() + SECRET.encode(),
    "cut short": _predict()[:-1],
    "with a byte order mark": b"\xef\xbb\xbf" + _predict(),
    "in UTF-16": _predict().decode().encode("utf-16"),
    "invalid UTF-8": _predict().replace(b"SECRET", b"SECRET\xff\xfe"),
    "invalid UTF-8 alone": b"\xff\xfe\x00",
    "a lone surrogate": _predict().replace(b"SECRET", b"SECRET\\ud800"),
    "a lone low surrogate": _predict().replace(b"SECRET", b"\\udfffSECRET"),
    "a lone surrogate as a key": _predict(**{SECRET: 1}).replace(b"SECRET", b"SECRET\\ud800"),
    "a NUL byte": _predict().replace(b"SECRET", b"SECRET\x00"),
    "nested deeply": b"[" * 30_000,
    "nested deeply in a field": b'{"context": ' + b'{"SECRET-b7f1":' * 4_000,
    "NaN": _raw("NaN"),
    "Infinity": _raw("Infinity"),
    "-Infinity": _raw("-Infinity"),
    "a number past float": _raw("1e400"),
    "an exponent past all bounds": _raw("1e99999999999999999999"),
    "a fraction past all bounds": _raw("1e-99999999999999999999"),
    "an exponent of nine digits": _raw("1e999999999"),
    "nothing with an exponent of nine digits": _raw("0e999999999"),
    "a float past 64 bits": _raw("9223372036854775808.0"),
    "a float with a fraction": _raw("4376.5"),
    "a float that rounds to a whole one": _raw("4376.00000000000000000001"),
    "a float of fifty thousand digits": _raw("9" * 50_000 + ".0"),
    "a negative whole float": _raw("-1.0"),
    "a float beside five thousand digits": _raw("5.0").replace(b"[1]", b"[" + b"9" * 5_000 + b"]"),
    "a leading zero": _raw("01"),
    "hexadecimal": _raw("0x10"),
    "a thousand digits": _raw("9" * 1_000),
    "fifty thousand digits": _raw("9" * 50_000),
    "past 64 bits": _raw(str(2**63)),
    "negative": _raw("-1"),
    "a bool for the user": _predict(user_id=True),
    "a text for the user": _predict(user_id="5"),
    "a secret for the user": _predict(user_id=SECRET),
    "null for the user": _predict(user_id=None),
    "a list for the user": _predict(user_id=[SECRET]),
    "an object for the user": _predict(user_id={SECRET: SECRET}),
    "a bool for an item": _predict(item_ids=[1, True]),
    "a text for an item": _predict(item_ids=[1, "5"]),
    "secrets for items": _predict(item_ids=[SECRET] * 100),
    "a float for an item": _predict(item_ids=[1.5]),
    "a negative item": _predict(item_ids=[1, -1]),
    "an item past 64 bits": _predict(item_ids=[2**63]),
    "no items": _predict(item_ids=[]),
    "101 items": _predict(item_ids=list(range(101))),
    "ten thousand items": _predict(item_ids=[1] * 10_000),
    "an object for the items": _predict(item_ids={SECRET: 1}),
    "a text for the items": _predict(item_ids=SECRET),
    "null for the items": _predict(item_ids=None),
    "null for the context": _predict(context=None),
    "a list for the context": _predict(context=[[SECRET, SECRET]]),
    "a number in the context": _predict(context={SECRET: 5}),
    "null in the context": _predict(context={SECRET: None}),
    "an object in the context": _predict(context={SECRET: {SECRET: SECRET}}),
    "many wrong things in the context": _predict(context={f"{SECRET}{i}": i for i in range(2_000)}),
    "an unknown key": _predict(**{SECRET: SECRET}),
    "two thousand unknown keys": _predict(**{f"{SECRET}{i:010}": 1 for i in range(2_000)}),
    "unknown keys with long names": _predict(**{SECRET + c * 20_000: 1 for c in "xy"}),
    "unknown keys of many bytes a character": _predict(**{SECRET + "\U0001f600" * 3_000: 1}),
    "a time that is none": _predict(context={"timestamp": SECRET}),
    "a time out of range": _predict(context={"timestamp": "2026-13-45T99:99:99Z", "a": SECRET}),
    "a time before the year 1": _predict(context={"timestamp": "0001-01-01T00:00:00+14:00"}),
    "a time after the year 9999": _predict(context={"timestamp": "9999-12-31T23:59:59.999999"}),
}

TOO_LARGE: dict[str, bytes] = {
    "a text of 5 MB": _predict(context={"device": SECRET * 500_000}),
    "ten thousand unknown keys with long names": _predict(
        **{SECRET + "x" * 100 + str(i): 1 for i in range(10_000)}
    ),
    "5 MB of brackets": b"[" * 5_000_000,
    "5 MB that is not text": b"\xff" * 5_000_000,
}
