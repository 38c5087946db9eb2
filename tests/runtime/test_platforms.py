"""The server as SageMaker and a load balancer of ECS use it, by their documented contracts.

SageMaker: https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-inference-code.html
ECS: https://docs.aws.amazon.com/AmazonECS/latest/developerguide/load-balancer-connection-draining.html
Prometheus: https://prometheus.io/docs/instrumenting/content_negotiation/
"""

import hashlib
import json
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from feedrank.bundle.layout import MANIFEST, ONNX_MODEL
from stack.faulty import FaultyFront
from stack.transform import resolved, template
from uvicorns import Server, stream, uvicorn

REQUEST = {"user_id": 42, "item_ids": [17, 256, 3]}
TRACE = "Root=1-5759e988-bd862e3fe1be46a994272793"
# What is left of a caller's headers, as InvokeEndpoint documents it.
INVOCATION = {
    "Content-Type": "application/json",
    "Accept": "*/*",
    "X-Amzn-SageMaker-Custom-Attributes": TRACE,
    "X-Amzn-SageMaker-Inference-Id": "a-callers-own-id",
}
PING = {"User-Agent": "AHC/2.0", "Accept": "*/*"}
PING_S = 2.0  # in which SageMaker wants a response to it
KILLED_S = 30  # after SIGTERM, by SageMaker as by ECS
# What a load balancer adds: https://docs.aws.amazon.com/elasticloadbalancing/latest/application/
# x-forwarded-headers.html and load-balancer-request-tracing.html
FORWARDED = {
    "X-Forwarded-For": "203.0.113.7",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Port": "443",
    "X-Amzn-Trace-Id": f"Self=1-67891234-12456789abcdef012345678;{TRACE}",
}
HEALTH_CHECK = {"User-Agent": "ELB-HealthChecker/2.0", "Connection": "close"}
SCRAPE = {
    "User-Agent": "Prometheus/3.8.0",
    "Accept": "text/plain;version=0.0.4;q=0.6,*/*;q=0.1",
    "Accept-Encoding": "gzip",
    "X-Prometheus-Scrape-Timeout-Seconds": "10",
}
LONGEST_S = 60


@pytest.fixture(scope="module")
def sagemaker(demo_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """`docker run IMAGE serve`, as it starts a container."""
    model = tmp_path_factory.mktemp("ml") / "model"
    shutil.copytree(demo_bundle, model)
    with uvicorn(model, "serve", SAGEMAKER="on") as server:
        yield server


def test_sagemaker_pings_and_invokes(sagemaker: Server) -> None:
    ping = httpx2.get(f"{sagemaker.url}/ping", headers=PING, timeout=PING_S)
    assert (ping.status_code, ping.json()) == (200, {"status": "ok"})
    response = httpx2.post(f"{sagemaker.url}/invocations", json=REQUEST, headers=INVOCATION)
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-amzn-sagemaker-custom-attributes"] == TRACE
    predicted = httpx2.post(f"{sagemaker.url}/predict", json=REQUEST).json()["predictions"]
    assert response.json()["predictions"] == predicted
    assert sorted(item["item_id"] for item in predicted) == sorted(REQUEST["item_ids"])


def test_sagemaker_routes_no_request_to_a_container_without_a_model(
    demo_bundle: Path, tmp_path: Path
) -> None:
    """It pings until it gets a 200, within the time that the template allows."""
    shutil.copytree(demo_bundle, tmp_path / "model")
    weights = tmp_path / "model" / ONNX_MODEL
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    with uvicorn(tmp_path / "model", "serve", SAGEMAKER="on", MODEL_RETRY_SECONDS="0.01") as server:
        before = httpx2.get(f"{server.url}/ping", headers=PING, timeout=PING_S)
        weights.write_bytes(whole)
        after = before
        while after.status_code != 200:
            assert server.process.poll() is None
            after = httpx2.get(f"{server.url}/ping", headers=PING, timeout=PING_S)
    assert before.status_code == 503


def test_only_the_last_argument_is_sagemakers(demo_bundle: Path) -> None:
    with (
        pytest.raises(AssertionError, match="unexpected extra argument"),
        uvicorn(demo_bundle, "serve", "--no-access-log"),
    ):
        pass


def test_a_server_that_is_busy_answers_every_probe(demo_bundle: Path) -> None:
    """Else it would be replaced for being busy, and the others would be busier still."""
    with (
        uvicorn(demo_bundle, "--limit-concurrency", "1", SAGEMAKER="on") as server,
        connected(server),
    ):
        paths = ("/", "/live", "/ready", "/ping", "/predict")
        statuses = {path: httpx2.get(server.url + path).status_code for path in paths}
    probes = {"/live": 200, "/ready": 200, "/ping": 200}
    assert statuses == {"/": 503, **probes, "/predict": 503}


def connected(server: Server) -> socket.socket:
    host, port = server.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=LONGEST_S)


def test_a_task_ranks_with_the_templates_variables_and_a_bundle_in_s3(
    demo_bundle: Path, aws_server: str, tmp_path: Path
) -> None:
    digest = hashlib.sha256((demo_bundle / MANIFEST).read_bytes()).hexdigest()
    boto3.setup_default_session()
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="bundles")
    for file in (demo_bundle / "serving").iterdir():
        s3.upload_file(str(file), "bundles", f"feed/ranker/sha256-{digest}/serving/{file.name}")
    s3.close()
    parameters = {
        "ModelUri": f"s3://bundles/feed/ranker/sha256-{digest}/",
        "ImageDigest": f"sha256:{'ef' * 32}",
    }
    resources = resolved(template("infra/images/ecs.yaml"), **parameters)["Resources"]
    (container,) = resources["Task"]["Properties"]["ContainerDefinitions"]
    variables = {each["Name"]: each["Value"] for each in container["Environment"]}
    session = {
        "AWS_ENDPOINT_URL": aws_server, "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
    }  # fmt: skip
    uri = variables.pop("MODEL_URI")
    with (
        (tmp_path / "stdout").open("w+b") as stdout,
        uvicorn(uri, stdout=stdout, **variables, **session) as server,
    ):
        assert httpx2.get(server.url + "/ready", headers=HEALTH_CHECK).status_code == 200
        response = httpx2.post(f"{server.url}/predict", json=REQUEST, headers=FORWARDED)
    assert response.status_code == 200
    assert digest.startswith(response.json()["model_digest"])
    lines = [json.loads(line) for line in (tmp_path / "stdout").read_text().splitlines()]
    traces = {line["trace_id"] for line in lines if line.get("route") == "/predict"}
    assert traces == {TRACE.removeprefix("Root=")}
    assert "203.0.113.7" not in json.dumps(lines)  # who calls is nobody's business here


def test_a_load_balancer_and_ecs_check_the_health_of_a_task(demo_bundle: Path) -> None:
    """By the template's path and its command, which runs in the container."""
    resources = template("infra/images/ecs.yaml")["Resources"]
    path = resources["TargetGroup"]["Properties"]["HealthCheckPath"]
    (container,) = resources["Task"]["Properties"]["ContainerDefinitions"]
    kind, program, *arguments = container["HealthCheck"]["Command"]
    assert (kind, program) == ("CMD", "python")

    def is_alive(url: str) -> bool:
        here = [argument.replace("http://127.0.0.1:8080", url) for argument in arguments]
        command = [sys.executable, *here]
        return not subprocess.run(command, capture_output=True, check=False).returncode

    with uvicorn(demo_bundle) as server:
        response = httpx2.get(server.url + path, headers=HEALTH_CHECK)
        assert (response.status_code, response.headers["connection"]) == (200, "close")
        assert is_alive(server.url)
    assert not is_alive(server.url)


@pytest.mark.parametrize("route", ["/predict", "/invocations"])
def test_at_a_sigterm_requests_end_and_so_does_the_server_before_it_is_killed(
    demo_bundle: Path, route: str
) -> None:
    variables = {"SAGEMAKER": "on"} if route == "/invocations" else {}
    with (
        FaultyFront(usual="held") as front,
        uvicorn(demo_bundle, "serve", **stream(front), **variables) as server,
        ThreadPoolExecutor() as pool,
    ):
        url = server.url + route
        ranking = pool.submit(httpx2.post, url, json=REQUEST, timeout=LONGEST_S)
        assert front.arrived.wait(LONGEST_S)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(KILLED_S) == 0
        assert ranking.result(LONGEST_S).status_code == 200


def test_a_scrape_is_of_one_worker_and_all_add_up(demo_bundle: Path) -> None:
    requests, workers = 40, 2
    with uvicorn(demo_bundle, "--workers", str(workers)) as server:
        started = 0
        while started < workers:
            assert server.process.stderr
            started += b"startup complete" in server.process.stderr.readline()
        for _ in range(requests):  # a connection each, and so a worker each
            assert httpx2.post(f"{server.url}/predict", json=REQUEST).status_code == 200
        counts: dict[str, float] = {}
        while sum(counts.values()) < requests:
            assert server.process.poll() is None
            counts |= scraped(server)
    assert sum(counts.values()) == requests
    assert len(counts) <= workers


def scraped(server: Server) -> dict[str, float]:
    """Requests by worker."""
    response = httpx2.get(f"{server.url}/metrics", headers=SCRAPE)
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        sample.labels["worker"]: sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
        if sample.name == "feedrank_requests_total"
    }


def test_sagemaker_gets_no_200_for_another_bundle_than_the_pinned_one(demo_bundle: Path) -> None:
    with uvicorn(demo_bundle, "serve", SAGEMAKER="on", MODEL_DIGEST="0" * 64) as server:
        assert httpx2.get(f"{server.url}/ping").status_code == 503
