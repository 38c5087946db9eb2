"""One execution environment: the real emulator and runtime client with a test function."""

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from feedops.errors import (
    EmulatorMissingError,
    EnvironmentLostError,
    FunctionError,
    FunctionTimeoutError,
    StartError,
)
from feedops.local import emulator
from feedops.local.emulator import ExecutionEnvironment, Function, find_emulator
from feedops.local.emulator_log import printed_by_function, reports
from feedops.local.tether import members_of

MakeEvent = Callable[..., bytes]
Start = Callable[[Function], ExecutionEnvironment]
Invoke = Callable[..., Any]


@pytest.fixture
def start(runner: asyncio.Runner, tmp_path: Path) -> Iterator[Start]:
    started: list[ExecutionEnvironment] = []

    def start_one(function: Function) -> ExecutionEnvironment:
        environment = runner.run(
            ExecutionEnvironment.start(
                function, log=tmp_path / "environment.log", temporary=tmp_path / "tmp"
            )
        )
        started.append(environment)
        return environment

    yield start_one
    for environment in started:
        runner.run(environment.stop())


@pytest.fixture
def environment(start: Start, standin: Function) -> ExecutionEnvironment:
    return start(standin)


@pytest.fixture
def invoke(runner: asyncio.Runner, environment: ExecutionEnvironment, event: MakeEvent) -> Invoke:
    def invoke_with(do: str, body: object = None, **query: object) -> Any:
        return json.loads(runner.run(environment.invoke(event(do, body, **query))))

    return invoke_with


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_THE_SHELL", "1")
    monkeypatch.setenv("AWS_PROFILE", "mine")


def test_the_response_is_what_the_function_returns(invoke: Invoke) -> None:
    assert invoke("answer", {"statusCode": 200, "body": "é"}) == {"statusCode": 200, "body": "é"}


def test_a_failed_attempt_to_start_leaves_nothing_in_the_log(
    tmp_path: Path,
    start: Start,
    standin: Function,
    runner: asyncio.Runner,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "environment.log").write_text("output of an earlier start\n")
    unlucky = tmp_path / "unlucky"
    unlucky.write_text(
        f'#!/bin/sh\ncd "{tmp_path}"\nmkdir tried 2>&- || exec {find_emulator()} "$@"\n'
        "echo panic: address already in use\nexit 2\n"
    )
    unlucky.chmod(0o755)
    monkeypatch.setattr(emulator, "find_emulator", lambda: unlucky)
    environment = start(standin)
    runner.run(environment.invoke(b"{}"))
    lines = printed_by_function(environment.log.read_text().splitlines())
    assert (tmp_path / "tried").is_dir()
    assert lines == ["output of an earlier start", "stand-in initialised"]


def test_the_function_has_lambdas_variables_and_its_own_but_not_the_shells(
    shell: None, start: Start, standin: Function, runner: asyncio.Runner, event: MakeEvent
) -> None:
    function = replace(
        standin,
        variables={"MODEL_URI": "s3://b/p/"},
        memory_mb=512,
        timeout_s=7,
        runtime="python3.13",
    )
    variables = json.loads(runner.run(start(function).invoke(event("environment"))))
    assert (
        variables.items()
        >= {
            "MODEL_URI": "s3://b/p/",
            "AWS_LAMBDA_FUNCTION_NAME": "feedrank",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512",
            "AWS_LAMBDA_FUNCTION_TIMEOUT": "7",
            "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
            "AWS_EXECUTION_ENV": "AWS_Lambda_python3.13",
            "AWS_REGION": "us-east-1",
            "LAMBDA_TASK_ROOT": str(function.task_root),
            "_HANDLER": "handler.lambda_handler",
        }.items()
    )
    assert {"SECRET_OF_THE_SHELL", "AWS_PROFILE", "HOME"}.isdisjoint(variables)


def test_the_function_runs_in_its_task_root_and_reads_its_memory_size(invoke: Invoke) -> None:
    process = invoke("process")
    assert process["cwd"] == str(Path(__file__).parent / "standin")
    assert process["memory_mb"] == "1769"


def test_init_runs_once(invoke: Invoke, environment: ExecutionEnvironment) -> None:
    invoke("answer")
    invoke("answer")
    first, second = reports(environment.log.read_text().splitlines())
    assert first.init_ms is not None
    assert second.init_ms is None


def test_peak_memory_is_the_runtimes(invoke: Invoke, environment: ExecutionEnvironment) -> None:
    invoke("answer")
    assert 10 < environment.peak_memory_mb() < 200


def test_an_exception_in_the_handler_is_a_function_error(invoke: Invoke) -> None:
    with pytest.raises(
        FunctionError, match=r"^ValueError: the stand-in was told to raise$"
    ) as caught:
        invoke("raise")
    assert 'raise ValueError("the stand-in was told to raise")' in "".join(caught.value.stack)
    assert invoke("answer", 1) == 1


def test_a_response_about_an_error_is_a_response(invoke: Invoke) -> None:
    response = {"statusCode": 500, "body": '{"errorType": "x"}', "errorType": "x"}
    assert invoke("answer", response) == response


def test_a_timeout_kills_the_runtime_and_the_next_invocation_starts_a_new_one(
    start: Start, impatient: Function, runner: asyncio.Runner, event: MakeEvent
) -> None:
    environment = start(impatient)
    first = json.loads(runner.run(environment.invoke(event("process"))))
    with pytest.raises(FunctionTimeoutError, match="Task timed out after 5"):
        runner.run(environment.invoke(event("hang")))
    second = json.loads(runner.run(environment.invoke(event("process"))))
    assert second["emulator"] == first["emulator"]
    assert second["pid"] != first["pid"]


def test_a_runtime_that_exits_is_a_function_error_and_is_replaced(invoke: Invoke) -> None:
    with pytest.raises(FunctionError, match=r"Runtime.ExitError: .*exit status 3"):
        invoke("exit")
    assert invoke("answer", 1) == 1


def test_a_response_over_lambdas_limit_is_a_function_error(invoke: Invoke) -> None:
    with pytest.raises(FunctionError, match=r"Function.ResponseSizeTooLarge"):
        invoke("big", bytes=6 * 1_024 * 1_024 + 100)


def test_no_process_survives_the_emulator(
    invoke: Invoke, environment: ExecutionEnvironment
) -> None:
    session = environment._process.session
    with pytest.raises(EnvironmentLostError, match=f"see {environment.log}"):
        invoke("kill_emulator")
    assert not environment.is_running
    assert members_of(session) == []


def test_a_cancelled_invocation_ends_the_environment(
    environment: ExecutionEnvironment, runner: asyncio.Runner, event: MakeEvent
) -> None:
    """The function is still busy, and the emulator can't take a second invocation."""
    session = environment._process.session

    async def cancel() -> None:
        async with asyncio.timeout(0.2):
            await environment.invoke(event("hang"))

    with pytest.raises(TimeoutError):
        runner.run(cancel())
    assert not environment.is_running
    assert members_of(session) == []


def test_each_start_has_an_empty_temporary_directory(
    start: Start, standin: Function, tmp_path: Path
) -> None:
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp" / "left").touch()
    start(standin)
    assert list((tmp_path / "tmp").iterdir()) == []


def test_an_emulator_that_does_not_start_is_an_error_with_the_end_of_its_log(
    monkeypatch: pytest.MonkeyPatch, start: Start, standin: Function
) -> None:
    monkeypatch.setattr(emulator, "find_emulator", lambda: Path("/bin/false"))
    with pytest.raises(
        StartError, match=r"the Lambda emulator ended with exit code 1; the end of .*log"
    ):
        start(standin)


@pytest.mark.parametrize(
    ("system", "machine"), [("darwin", "arm64"), ("win32", "AMD64"), ("linux", "riscv64")]
)
def test_on_other_platforms_the_message_names_the_uvicorn_front(
    monkeypatch: pytest.MonkeyPatch, system: str, machine: str
) -> None:
    monkeypatch.setattr("sys.platform", system)
    monkeypatch.setattr("platform.machine", lambda: machine)
    with pytest.raises(EmulatorMissingError, match="--front uvicorn"):
        find_emulator()


def test_without_the_sam_cli_the_message_names_the_package_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(emulator, "find_spec", lambda _: None)
    with pytest.raises(EmulatorMissingError, match="pip install aws-sam-cli"):
        find_emulator()


def test_the_emulator_is_made_executable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    binary = tmp_path / "local" / "rapid" / find_emulator().name
    binary.parent.mkdir(parents=True)
    binary.touch(0o644)

    class Spec:
        origin = str(tmp_path / "__init__.py")

    monkeypatch.setattr(emulator, "find_spec", lambda _: Spec)
    assert find_emulator() == binary
    assert os.access(binary, os.X_OK)
