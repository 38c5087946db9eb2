"""Writes `rows.json`: rows as Feast's SDK writes them into DynamoDB (by moto), and what the SDK
answers for them: of `kinds`, and of some users and items of the demo.

    make feast && PYTHONPATH=tests .venv/bin/python tests/feast_store/record.py
"""

import json
import os
from base64 import b64encode
from datetime import UTC, datetime
from pathlib import Path
from shutil import copytree
from tempfile import TemporaryDirectory
from typing import Any

import boto3
import numpy as np
import pandas as pd
from moto.server import ThreadedMotoServer

from feast_sdk import demo_repository, demo_requests, materialize

HERE = Path(__file__).parent
KINDS = HERE / "kinds"
ROWS = HERE / "rows.json"
MADE = pd.Timestamp("2026-11-20T06:00:00.123456Z")
BIG = 2**40 + 1
USERS = [1, 7, 42, 2**31, 2**63 - 1]
ITEMS = ["a", "film-1", "ünïcode", "x" * 128, "7"]
CODES = [0, 1, 2**31 - 1]
DEMO_USERS, DEMO_ITEMS = [7], [*range(1, 20), 88, 1001]


def kinds(count: int) -> dict[str, Any]:
    """(count,) of each kind of number: the smallest, the largest and what is missing among them."""
    at = np.arange(count)
    return {
        "f32": np.resize(np.array([0.5, -1e-30, 3e38, np.nan, 0.1], np.float32), count),
        "f64": np.resize([0.1, -2.5, 1e30, np.nan, 1 / 3], count),
        "i32": pd.array([-(2**31), 0, None, 2**31 - 1, -1][:count], "Int32"),
        "i64": pd.array([-BIG, BIG, None, 0, -1][:count], "Int64"),
        "flag": pd.array([True, False, None, True, False][:count], "boolean"),
        "made": [MADE, pd.NaT, MADE + pd.Timedelta("1s"), pd.Timestamp(0, tz="UTC"), MADE],
    } | {"event_timestamp": MADE + pd.to_timedelta(at, unit="h")}


def write_tables(directory: Path) -> None:
    directory.mkdir(exist_ok=True)
    users, items = {"user_id": USERS, **kinds(5)}, {"item_id": ITEMS, **kinds(5)}
    users |= {"text": list("abcde"), "vector": [[1.0, 2.0]] * 5}
    more = {"user_id": USERS[:3], "more": np.array([1.5, 2.5, 3.5], np.float32)}
    more |= {"event_timestamp": [MADE, MADE - pd.Timedelta("3 days"), MADE]}
    codes = {"code": np.array(CODES, np.int32), "f32": np.array([0.1, 0.2, 0.3], np.float32)}
    codes |= {"event_timestamp": [MADE] * 3}
    tables = {"of_users": users, "more_of_users": more, "of_items": items, "of_codes": codes}
    for name, table in tables.items():
        pd.DataFrame(table).to_parquet(directory / f"{name}.parquet", index=False)


def requests() -> list[dict[str, Any]]:
    of_kinds = ["f32", "f64", "i32", "i64", "flag", "made"]
    users = [f"of_users:{name}" for name in of_kinds] + ["more_of_users:more"]
    items = [f"of_items:{name}" for name in of_kinds]
    return [
        {"features": users, "join_key": "user_id", "ids": [*USERS, 5]},
        {"features": items, "join_key": "item_id", "ids": [*ITEMS, "?"]},
        {"features": ["of_codes:f32"], "join_key": "code", "ids": [*CODES, 5]},
    ]


def stored_rows(project: str) -> dict[str, Any]:
    """Each table's items, as DynamoDB's JSON has them."""
    client = boto3.client("dynamodb")
    tables = {}
    for name in client.list_tables()["TableNames"]:
        if name.startswith(f"{project}."):
            items = client.scan(TableName=name)["Items"]
            tables[name] = sorted(map(_json, items), key=lambda item: str(item["entity_id"]["S"]))
    return tables


def _json(value: Any) -> Any:
    if isinstance(value, bytes):
        return b64encode(value).decode()
    return {name: _json(each) for name, each in value.items()} if isinstance(value, dict) else value


def _kinds(scratch: Path) -> dict[str, Any]:
    repository = Path(copytree(KINDS, scratch / "kinds"))
    write_tables(repository / "data")
    asked = requests()
    told = materialize([repository], asked)
    return {
        "feast": told["feast"],
        "recorded": datetime.now(UTC).date().isoformat(),
        "tables": stored_rows("kinds"),
        "answers": [
            request | answer for request, answer in zip(asked, told["answers"][0], strict=True)
        ],
    }


def _demo(scratch: Path) -> dict[str, Any]:
    """The rows of DEMO_USERS and DEMO_ITEMS."""
    repository = demo_repository(scratch, region="eu-west-1")
    (told,) = materialize([repository], demo_requests(DEMO_USERS, DEMO_ITEMS))["answers"]
    keys = {key for answer in told for key in answer["keys"]}
    tables = stored_rows("feed").items()
    return {
        "demo": {name: [i for i in items if i["entity_id"]["S"] in keys] for name, items in tables}
    }


def main() -> None:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_ENDPOINT_URL": "http://{}:{}".format(*server.get_host_and_port()),
    }
    with TemporaryDirectory() as scratch:
        recorded = _kinds(Path(scratch)) | _demo(Path(scratch))
    ROWS.write_text(json.dumps(recorded, indent=1, ensure_ascii=False, sort_keys=True) + "\n")
    server.stop()


if __name__ == "__main__":
    main()
