"""Measures the CPU time of reading 100 rows of 15 floats that Feast's SDK wrote: by the function's
reader, and by the SDK.

    make feast && PYTHONPATH=tests .venv/bin/python tests/feast_store/cpu.py
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from math import inf
from pathlib import Path
from statistics import median
from subprocess import PIPE
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from moto.server import ThreadedMotoServer
from rich.console import Console

from feast_sdk import AS_OF, PYTHON, materialize
from feast_store.record import stored_rows
from feedops.features.feast_repo import RepoOptions, write_repo
from feedrank.features.feast import FeastTables
from feedrank.features.feast_rows import feast_layout
from feedrank.features.spec_reader import parse_spec

ITEMS, FEATURES, RUNS = 100, 15, 200
NAMES = [f"feature_{at}" for at in range(FEATURES)]
# A server in a process of its own, which keeps connections, as DynamoDB does and moto doesn't.
SERVER = """
import sys
from zlib import crc32
from scripted import Answer, scripted
body = open(sys.argv[1], "rb").read()
answer = Answer(body=body, headers={"x-amz-crc32": str(crc32(body))})
with scripted() as server:
    server.respond = lambda _: answer
    print(server.url, flush=True)
    input()
"""
SDK = """
import sys, time
began = time.process_time()
import feast
from feast.infra.online_stores import dynamodb
imported = time.process_time() - began
store = feast.FeatureStore(repo_path=sys.argv[1])
features, rows = sys.argv[2].split(","), [{"item_id": id_} for id_ in range(int(sys.argv[3]))]
def read():
    began = time.process_time()
    store.get_online_features(features=features, entity_rows=rows)
    return time.process_time() - began
read()
times = sorted(read() for _ in range(int(sys.argv[4])))
print(f"SDK {feast.__version__}: import {imported:.2f} s, read: median "
      f"{1e3 * times[len(times) // 2]:.2f} ms, least {1e3 * times[0]:.2f} ms")
"""


def main() -> None:
    moto = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    moto.start()
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_REGION": "eu-west-1",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_ENDPOINT_URL": "http://{}:{}".format(*moto.get_host_and_port()),
    }
    with TemporaryDirectory() as scratch:
        repository = _repository(Path(scratch))
        materialize([repository], [])
        response = repository / "response.json"
        response.write_text(json.dumps({"Responses": stored_rows("feed"), "UnprocessedKeys": {}}))
        moto.stop()
        command = [sys.executable, "-c", SERVER, str(response)]
        with subprocess.Popen(command, stdin=PIPE, stdout=PIPE, text=True) as server:
            assert server.stdout
            os.environ["AWS_ENDPOINT_URL"] = server.stdout.readline().strip()
            _measure_reader(json.loads((repository / "feature_spec.json").read_text()))
            _measure_sdk(repository)
            server.communicate("\n")


def _measure_sdk(repository: Path) -> None:
    features = ",".join(f"items:{name}" for name in NAMES)
    arguments = [str(repository), features, str(ITEMS), str(RUNS)]
    subprocess.run([str(PYTHON), "-W", "ignore", "-c", SDK, *arguments], check=True)


def _repository(scratch: Path) -> Path:
    spec = {"inputs": [{"name": "x", "features": [{"name": n, "source": "item"} for n in NAMES]}]}
    cells = np.random.default_rng(7).random((ITEMS, FEATURES)).astype(np.float32)
    (scratch / "feature_spec.json").write_text(json.dumps(spec))
    table = pd.DataFrame(cells, columns=NAMES)
    table.insert(0, "item_id", range(ITEMS))
    table.to_parquet(scratch / "items.parquet", index=False)
    options = RepoOptions(scratch, scratch / "repository", "feed", AS_OF, "eu-west-1")
    write_repo(options, Console(quiet=True))
    return options.directory


def _measure_reader(data: Any) -> None:
    spec = parse_spec(data)
    tables, layout = FeastTables("feed", spec, reads_items=True), feast_layout(spec, "item")

    def read() -> None:
        found: dict[Any, Any] = {}
        tables.read_items(range(ITEMS), inf, found)
        _, reasons = layout.unpack([stored.row for stored in found.values()])
        assert {*reasons} == {""}

    times_ms = [_cpu_ms(read) for _ in range(RUNS)][1:]
    print(f"reader: median {median(times_ms):.2f} ms, least {min(times_ms):.2f} ms")


def _cpu_ms(work: Callable[[], None]) -> float:
    began = time.process_time()
    work()
    return 1_000 * (time.process_time() - began)


main()
