"""The table of faults: what breaks, and the expected responses during and after it."""

import fcntl
import os
import resource
import shutil
import signal
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Timer
from typing import Any

import endless
from faulty_table import FAULTS as FEATURE_FAULTS
from long.lab import GOOD, Lab, Raw, Response, nowhere

INIT_S = 10.0  # Lambda's limit until the first response
REQUEST_S = 2.5  # REQUEST_TIMEOUT_MS plus a margin
FEATURES_MS = 1_000  # enough for moto on a busy machine
FEATURES_S = 2.0
LAYER = ["model:layer"]
FROM_CACHE, FROM_SNAPSHOT = ["features:cache 3/4"], ["features:snapshot 4/4"]
BOTH = [*FROM_CACHE, "features:snapshot 1/4"]  # of the user, who is not in the cache
REAL, WITH_LAYER, NO_MODEL = (200, []), (200, LAYER), (503, [])
Step = Callable[[Lab], Any]
Send = Callable[[Lab], Response]


def nothing(_lab: Lab) -> None:
    pass


@dataclass(frozen=True)
class Fault:
    """`prepare` runs before the start, `begin` after it, `end` before the `next` request. If the
    function `recovers`, a later request gets the real model again."""

    name: str
    prepare: Step
    status: int = 200
    degraded: list[str] | None = None
    bound_s: float = REQUEST_S
    begin: Step = nothing
    send: Send = lambda lab: lab.send()
    end: Step = nothing
    next: tuple[int, list[str]] = REAL
    recovers: bool = False
    uvicorn: bool = False
    short: bool = False


def s3_is(fault: str, *, fallback: bool = False) -> Step:
    def prepare(lab: Lab) -> None:
        lab.s3.fault = fault
        if fault != "down":
            lab.s3.up()
        if fallback:
            lab.with_fallback()

    return prepare


def s3_is_back(lab: Lab) -> None:
    lab.s3.fault = ""
    lab.s3.up()


def s3_becomes(fault: str) -> Step:
    return lambda lab: setattr(lab.s3, "fault", fault)


def at_init(fault: str, **more: Any) -> Fault:
    """Without a fallback nothing serves until the next attempt, milliseconds later."""
    name = f"S3 {fault} at init"
    return Fault(
        name,
        s3_is(fault),
        503,
        bound_s=INIT_S,
        end=s3_is_back,
        next=NO_MODEL,
        recovers=True,
        **more,
    )


def at_init_with_fallback(fault: str, **more: Any) -> Fault:
    prepare = s3_is(fault, fallback=True)
    name = f"S3 {fault} at init, a fallback"
    return Fault(
        name, prepare, 200, LAYER, INIT_S, end=s3_is_back, next=WITH_LAYER, recovers=True, **more
    )


def at_retry(fault: str, **more: Any) -> Fault:
    """The fallback serves from init on, and continues during a retry."""
    prepare = s3_is("missing", fallback=True)
    name = f"S3 {fault} at a retry"
    return Fault(
        name, prepare, 200, LAYER, begin=s3_becomes(fault), end=s3_is_back, next=WITH_LAYER,
        recovers=True, uvicorn=True, **more,
    )  # fmt: skip


def variables(**changes: str) -> Step:
    def prepare(lab: Lab) -> None:
        lab.s3.up()
        lab.with_fallback()
        lab.variables.update(changes)
        for name, value in changes.items():
            if not value:
                del lab.variables[name]

    return prepare


def firehose(fault: Any) -> Step:
    def prepare(lab: Lab) -> None:
        lab.from_directory()
        lab.with_firehose().usual = fault

    return prepare


def firehose_gone(lab: Lab) -> None:
    lab.from_directory()
    lab.variables |= {"AWS_ENDPOINT_URL_FIREHOSE": nowhere(), "DECISION_STREAM": "decisions"}


def today(lab: Lab) -> Path:
    directory = lab.directory / "decisions"
    directory.mkdir(exist_ok=True)
    lab.from_directory()
    lab.variables["DECISION_LOG_DIR"] = str(directory)
    return directory / f"predictions_{datetime.now(UTC):%Y-%m-%d}.jsonl"


def full_daily_file(lab: Lab) -> None:
    today(lab).symlink_to("/dev/full")


def locked_daily_file(lab: Lab) -> None:
    file = lab.stack.enter_context(today(lab).open("w"))
    fcntl.flock(file, fcntl.LOCK_EX)


def file_instead(lab: Lab) -> None:
    directory = Path(lab.variables["DECISION_LOG_DIR"])
    shutil.rmtree(directory)
    directory.touch()


def full_output(lab: Lab) -> None:
    lab.from_directory()
    lab.stdout = lab.stack.enter_context(Path("/dev/full").open("w"))  # noqa: SIM115 entered below


def broken_output(lab: Lab) -> None:
    lab.from_directory()
    reader, writer = os.pipe()
    os.close(reader)
    lab.stdout = writer
    lab.stack.callback(os.close, writer)


def full_pipe(lab: Lab) -> None:
    """A full pipe in non-blocking mode."""
    lab.from_directory()
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writer, bytes(4_096))
    lab.stdout = writer
    lab.stack.callback(os.close, writer)
    lab.stack.callback(os.close, reader)


def with_table(timeout_ms: int) -> Step:
    def prepare(lab: Lab) -> None:
        lab.from_directory()
        lab.with_table()
        lab.variables["FEATURES_TIMEOUT_MS"] = str(timeout_ms)

    return prepare


def starts(lab: Lab) -> None:
    assert lab.send().status == 200


def table_becomes(fault: str) -> Step:
    def step(lab: Lab) -> None:
        starts(lab)
        lab.table.fault = FEATURE_FAULTS[fault]

    return step


def table_recovers(lab: Lab) -> None:
    lab.table.fault = FEATURE_FAULTS["none"]


def table_fault(
    fault: str, degraded: list[str] | None = None, timeout_ms: int = FEATURES_MS, **more: Any
) -> Fault:
    prepare, begin = with_table(timeout_ms), table_becomes(fault)
    return Fault(
        f"DynamoDB: {fault}", prepare, 200, degraded, FEATURES_S, begin, end=table_recovers, **more
    )


def unreachable_table(url: str) -> Step:
    def prepare(lab: Lab) -> None:
        lab.from_directory()
        lab.with_table()
        https = lab.table.url.replace("http:", "https:")
        lab.variables["AWS_ENDPOINT_URL_DYNAMODB"] = url or https

    return prepare


def after_a_thaw(lab: Lab) -> Response:
    """Whose connections the table has closed meanwhile."""
    assert lab.send().body["degraded"] == []
    os.kill(lab.pid(), signal.SIGSTOP)
    os.kill(lab.pid(), signal.SIGCONT)
    return lab.send()


JUMP = """
import os, time
real = time.time
def jumped():
    with open(os.environ["CLOCK"]) as file:
        return real() + float(file.read() or 0)
time.time = jumped
"""


def clock(lab: Lab) -> None:
    (lab.directory / "sitecustomize.py").write_text(JUMP)
    (lab.directory / "clock").write_text("0")
    lab.from_directory()
    lab.variables |= {"CLOCK": str(lab.directory / "clock"), "PYTHONPATH": str(lab.directory)}


def clock_jumps(by_s: int) -> Step:
    return lambda lab: (lab.directory / "clock").write_text(str(by_s))


def frozen_between(lab: Lab) -> Response:
    """As Lambda freezes a container between requests."""
    assert lab.send().status == 200
    os.kill(lab.pid(), signal.SIGSTOP)
    os.kill(lab.pid(), signal.SIGCONT)
    return lab.send()


def frozen_within(lab: Lab) -> Response:
    assert lab.send().status == 200
    pid = lab.pid()
    os.kill(pid, signal.SIGSTOP)
    thaw = Timer(1.0, os.kill, (pid, signal.SIGCONT))
    thaw.start()
    response = lab.send()
    thaw.join()
    return response


def killed_within(lab: Lab) -> Response:
    """Killed during a request."""
    assert lab.send().status == 200
    pid = lab.pid()
    os.kill(pid, signal.SIGSTOP)
    kill = Timer(0.5, os.kill, (pid, signal.SIGKILL))
    kill.start()
    response = lab.send()
    kill.join()
    return response


def killed_between(lab: Lab) -> Response:
    assert lab.send().status == 200
    os.kill(lab.pid(), signal.SIGKILL)
    return lab.send()


def memory_is_short(lab: Lab) -> None:
    """Limits the address space to its current size."""
    assert lab.send().status == 200
    status = Path(f"/proc/{lab.pid()}/status").read_text()
    size_kib = int(status.partition("VmSize:")[2].split()[0])
    limits = size_kib * 1_024, resource.RLIM_INFINITY
    resource.prlimit(lab.pid(), resource.RLIMIT_AS, limits)


def memory_is_back(lab: Lab) -> None:
    limits = resource.RLIM_INFINITY, resource.RLIM_INFINITY
    resource.prlimit(lab.pid(), resource.RLIMIT_AS, limits)


def disk_is_full(lab: Lab) -> None:
    lab.s3.fault = ""
    resource.prlimit(lab.pid(), resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))


def disk_is_back(lab: Lab) -> None:
    limits = resource.RLIM_INFINITY, resource.RLIM_INFINITY
    resource.prlimit(lab.pid(), resource.RLIMIT_FSIZE, limits)


def header_flood(lab: Lab) -> Response:
    return raw(lab, b"GET / HTTP/1.1\r\nhost: a\r\n" + b"x: y\r\n" * 50_000 + b"\r\n")


def long_header(lab: Lab) -> Response:
    return raw(lab, b"GET / HTTP/1.1\r\nhost: a\r\nx: " + b"y" * (8 << 20) + b"\r\n\r\n")


def not_http(lab: Lab) -> Response:
    return raw(lab, b"\x16\x03\x01" + bytes(300) + b"\r\n\r\n")


def raw(lab: Lab, request: bytes) -> Response:
    """The status, or 0 if the connection was closed without a response."""
    host, port = lab.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        with suppress(OSError):
            connection.sendall(request)
        head = b""
        with suppress(OSError):
            head = connection.recv(100)
    return Response(int(head.split()[1]) if head.startswith(b"HTTP/") else 0, {})


def cut_off(lab: Lab) -> Response:
    """A caller that disconnects in the middle of its body."""
    host, port = lab.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nhost: a\r\ncontent-length: 900\r\n\r\n{")
    return lab.send()


def idle_connections(lab: Lab) -> Response:
    host, port = lab.url.removeprefix("http://").split(":")
    for _ in range(200):
        lab.stack.enter_context(socket.create_connection((host, int(port))))
    return lab.send()


def many_at_once(lab: Lab) -> Response:
    with ThreadPoolExecutor(50) as pool:
        responses = list(pool.map(lambda _: lab.send(), range(200)))
    return next((each for each in responses if each.status != 200), responses[0])


def body(content: Any) -> Send:
    return lambda lab: lab.send(content)


def local(lab: Lab) -> None:
    lab.from_directory()


def broken_fallback(lab: Lab) -> None:
    lab.with_fallback()
    layer = shutil.copytree(lab.bundle, lab.directory / "layer")
    (layer / "serving" / "model.onnx").write_bytes(b"")
    lab.variables["MODEL_LAYER_DIR"] = str(layer)


def endless_model(step: str) -> Step:
    """A model that never finishes for requests from desktops."""

    def prepare(lab: Lab) -> None:
        directory = endless.for_desktops(lab.bundle, lab.directory / "endless", step)
        lab.variables["MODEL_URI"] = str(directory)

    return prepare


def bundle_is_gone(lab: Lab) -> None:
    copy = Path(lab.variables["MODEL_URI"])
    for path in copy.rglob("*"):
        if path.is_file():
            path.unlink()


def with_a_copy(lab: Lab) -> None:
    shutil.copytree(lab.bundle, lab.directory / "bundle")
    lab.variables["MODEL_URI"] = str(lab.directory / "bundle")


DESKTOP = {**GOOD, "context": {"device": "desktop"}}
DAMAGED = {"version": "2.0", "rawPath": "/predict", "requestContext": None, "headers": None}
CONSOLE = {"key1": "value1", "key2": "value2"}
BIG = b'{"user_id": 1, "item_ids": [' + b"1, " * 2_000_000 + b"1]}"

FAULTS = [
    at_init("down", short=True),
    at_init("a black hole"),
    at_init("dripping"),
    at_init("denied"),
    at_init("missing"),
    at_init("throttled"),
    at_init("failing"),
    at_init("reset"),
    at_init("expired"),
    at_init("truncated"),
    at_init("a wrong bit"),
    at_init("without end"),
    at_init("a web page"),
    Fault("S3 slow at init", s3_is("slow"), bound_s=INIT_S, end=s3_is_back),
    at_init_with_fallback("down"),
    at_init_with_fallback("a black hole", short=True),
    at_init_with_fallback("dripping"),
    at_init_with_fallback("a wrong bit"),
    at_retry("a black hole", short=True),
    at_retry("dripping"),
    at_retry("denied"),
    at_retry("a wrong bit"),
    Fault("a wrong digest is pinned", variables(MODEL_DIGEST="0" * 64), 200, LAYER, INIT_S,
          next=WITH_LAYER),
    Fault("no credentials", variables(AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY=""), 200, LAYER,
          INIT_S, next=WITH_LAYER, uvicorn=True),
    Fault("S3 has no DNS entry", variables(AWS_ENDPOINT_URL_S3="http://s3.invalid"), 200, LAYER,
          INIT_S, next=WITH_LAYER),
    Fault("the fallback is broken too", broken_fallback, 503, None, INIT_S, next=NO_MODEL),
    Fault("the disk is full at a retry", s3_is("missing", fallback=True), 200, LAYER,
          begin=disk_is_full, end=disk_is_back, next=WITH_LAYER, recovers=True, uvicorn=True),
    Fault("the daily file's disk is full", full_daily_file, uvicorn=True, short=True),
    Fault("the daily file is locked", locked_daily_file, uvicorn=True),
    Fault("the daily file's directory is a file", today, begin=file_instead, uvicorn=True),
    Fault("standard output's disk is full", full_output, uvicorn=True),
    Fault("standard output is a broken pipe", broken_output, uvicorn=True, short=True),
    Fault("standard output is a full pipe", full_pipe, uvicorn=True),
    Fault("Firehose throttles", firehose("throttled"), bound_s=INIT_S),
    Fault("Firehose drops connections", firehose("dropped"), bound_s=INIT_S),
    Fault("Firehose is late", firehose("late"), bound_s=INIT_S, short=True),
    Fault("Firehose is late, under uvicorn", firehose("late"), uvicorn=True),
    Fault("Firehose is gone", firehose_gone, bound_s=INIT_S),
    table_fault("throttled", BOTH),
    table_fault("half the keys unprocessed"),
    table_fault("all keys unprocessed", FROM_CACHE),
    table_fault("slow by 10 ms"),
    table_fault("slow by 50 ms"),
    table_fault("slow by 500 ms", BOTH, 300),
    table_fault("hanging", BOTH, short=True),
    table_fault("closed", BOTH),
    table_fault("reset", BOTH),
    table_fault("reset mid-body", BOTH),
    table_fault("truncated JSON", BOTH),
    table_fault("another CRC32", BOTH),
    table_fault("a web page", BOTH),
    table_fault("expired credentials", BOTH),
    table_fault("access denied", BOTH),
    table_fault("table missing", BOTH),
    table_fault("a storm of 500", BOTH, uvicorn=True, short=True),
    table_fault("another clock"),
    table_fault("one poisoned row", ["features:cache 1/4", BOTH[1]]),
    table_fault("rows of other keys", BOTH),
    table_fault("closed afterwards", send=after_a_thaw),
    Fault("DynamoDB has no DNS entry", unreachable_table("http://dynamodb.invalid"),
          200, FROM_SNAPSHOT, FEATURES_S, begin=starts, next=(200, FROM_SNAPSHOT)),
    Fault("DynamoDB: TLS fails", unreachable_table(""), 200, FROM_SNAPSHOT, FEATURES_S,
          begin=starts, next=(200, FROM_SNAPSHOT)),
    Fault("the clock jumps a day ahead", clock, begin=clock_jumps(86_400), uvicorn=True),
    Fault("the clock jumps a day back", clock, begin=clock_jumps(-86_400), uvicorn=True),
    Fault("frozen between requests", local, send=frozen_between, bound_s=INIT_S),
    Fault("frozen for a second within a request", local, send=frozen_within, bound_s=INIT_S),
    Fault("killed within a request", local, 502, send=killed_within, bound_s=INIT_S, short=True),
    Fault("killed between requests", local, 502, send=killed_between, bound_s=INIT_S),
    Fault("no memory is left", local, begin=memory_is_short, end=memory_is_back, uvicorn=True),
    Fault("the bundle's files are removed", with_a_copy, begin=bundle_is_gone, uvicorn=True),
    Fault("an endless inference", endless_model(endless.LOOP), 504, send=body(DESKTOP),
          bound_s=INIT_S),
    Fault("an endless inference, under uvicorn", endless_model(endless.LOOP), 504,
          send=body(DESKTOP), uvicorn=True, short=True),
    Fault("an inference that can't be stopped", endless_model(endless.OPERATOR), 504,
          send=body(DESKTOP), bound_s=INIT_S),
    Fault("a damaged event", local, 400, send=body(Raw(DAMAGED)), bound_s=INIT_S),
    Fault("an event of another service", local, 502, send=body(Raw(CONSOLE)), bound_s=INIT_S),
    Fault("a body of 6 MB", local, 413, send=body(BIG), uvicorn=True),
    Fault("50,000 headers", local, 431, send=header_flood, uvicorn=True),
    Fault("a header of 8 MB", local, 431, send=long_header, uvicorn=True),
    Fault("a request that is not HTTP", local, 400, send=not_http, uvicorn=True),
    Fault("a caller hangs up within its body", local, send=cut_off, uvicorn=True),
    Fault("200 idle connections", local, send=idle_connections, uvicorn=True),
    Fault("200 requests, 50 concurrent", local, send=many_at_once, uvicorn=True),
]  # fmt: skip
