"""Errors of the operator's commands, which print the text. None has an HTTP status.

OperationError
├── EmulatorMissingError       no Runtime Interface Emulator runs on this platform
├── StartError                 a local service or the function did not start; its log is quoted
├── ListenError                no such host here, or the port is taken
├── ModelMissingError          MLflow has no such model, or a directory is no bundle
├── BuildError                 `sam build` can't run, or failed
├── OverBudgetError            a build is larger than the project's own limit
├── ThrottledError             every execution environment stayed busy
├── MalformedResponseError     the function returned what no HTTP response can be made of
└── FunctionError              the function failed, as Lambda sees it
    ├── FunctionTimeoutError
    └── EnvironmentLostError   the environment ended during the invocation
"""

from collections.abc import Sequence

from feedmodel.errors import CommandError


class OperationError(CommandError):
    """The root of this package's errors."""


class EmulatorMissingError(OperationError):
    pass


class StartError(OperationError):
    pass


class ListenError(OperationError):
    pass


class ModelMissingError(OperationError):
    pass


class BuildError(OperationError):
    pass


class OverBudgetError(OperationError):
    pass


class ThrottledError(OperationError):
    pass


class MalformedResponseError(OperationError):
    pass


class FunctionError(OperationError):
    """`kind` is Lambda's errorType, such as ValueError or Runtime.ExitError."""

    def __init__(self, kind: str, message: str, stack: Sequence[str] = ()) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind
        self.stack = stack


class FunctionTimeoutError(FunctionError):
    pass


class EnvironmentLostError(FunctionError):
    pass
